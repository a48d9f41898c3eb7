"""What stays and what goes: releases, superseded metadata, held bundles; and the same bytes for the same inputs."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta

import pytest

from seedcnn.bundle import Rollout
from seedcnn.errors import RepositoryError
from seedcnn.server.families import Access, add_family, rotate
from seedcnn.server.keys import generate_key
from seedcnn.server.refresh import refresh
from seedcnn.server.repository import init_repository, prune, publish
from seedcnn.server.verify import verify
from tests.server.client import Client

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def day(number: float) -> datetime:
    return NOW + timedelta(days=number)


@pytest.fixture
def repository(tmp_path):
    init_repository(tmp_path / "r", now=NOW)
    add_family(tmp_path / "r", "demo", access=Access(now=NOW))
    return tmp_path / "r"


def files(repository, part="metadata"):
    return {
        path.relative_to(repository / "public" / part).as_posix()
        for path in (repository / "public" / part).rglob("*.*")
    }


def signed(repository, family="demo"):
    """Releases in the newest list of bundles."""
    versions = (repository / "public" / "metadata").glob(f"*.{family}.bundles.json")
    newest = max(versions, key=lambda path: int(path.name.split(".")[0]))
    return {name.split("/")[1] for name in json.loads(newest.read_bytes())["signed"]["targets"]}


def test_metadata_goes_two_timestamp_lives_after_it_was_superseded(repository, make_bundle):
    publish(repository, make_bundle(1), now=day(1))
    first = files(repository) - {"1.targets.json", "1.snapshot.json"}  # superseded on day 0
    assert {"1.demo.bundles.json", "2.demo.bundles.json", "2.snapshot.json", "3.snapshot.json"} <= first
    publish(repository, make_bundle(2), now=day(2))
    for moment in (day(2.5), day(6.9), day(7)):
        refresh(repository, now=moment)
        assert first <= files(repository)  # a device that was on at day 1 may still hold that timestamp
    refresh(repository, now=day(7.1))
    assert "1.demo.bundles.json" not in files(repository)
    assert "2.demo.bundles.json" in files(repository)
    refresh(repository, now=day(8.1))
    assert files(repository) & first == {"1.root.json", "2.targets.json", "timestamp.json"}
    assert verify(repository, now=day(8.1)) == []


def test_time_of_supersession_that_is_lost_starts_anew(repository, make_bundle):
    publish(repository, make_bundle(1), now=day(1))
    for text in (None, b"", b"[]", b'{"metadata/2.snapshot.json": "x"}'):
        if text is None:
            (repository / "retired.json").unlink()
        else:
            (repository / "retired.json").write_bytes(text)
        refresh(repository, now=day(7.5), clock_ok=True)
        assert "1.demo.bundles.json" in files(repository)
    refresh(repository, now=day(13.6))
    assert "1.demo.bundles.json" not in files(repository)


def test_every_root_stays(repository):
    for number in range(1, 4):
        rotate(repository, "timestamp", access=Access(now=day(number * 7)))
    assert {f"{version}.root.json" for version in (1, 2, 3, 4)} <= files(repository)


def test_the_newest_releases_stay_signed(repository, make_bundle, tmp_path):
    for release in range(1, 6):
        done = publish(repository, make_bundle(release, parent=1 if release > 1 else None), now=day(release / 10))
        assert done.withdrawn == ((release - 3,) if release > 3 else ())
    names = {f"{release}.bundle" for release in (3, 4, 5)}
    assert {name for name in signed(repository) if name.endswith("bundle")} == names
    assert {name for name in signed(repository) if name.startswith("5.from-")} == {
        f"5.from-{n}.delta" for n in (2, 3, 4)
    }
    assert not any(name.startswith(("1.", "2.")) for name in signed(repository))
    # Their files stay for devices that hold an older timestamp.
    assert any(name.endswith(".1.bundle") for name in files(repository, "targets"))
    refresh(repository, now=day(6.6))
    left = files(repository, "targets/demo")
    assert {name.split(".", 1)[1] for name in left} == signed(repository)
    assert len(files(repository, "targets/rollout")) == 1
    publish(repository, make_bundle(6), deltas=0, keep=1, now=day(7))
    assert signed(repository) == {"6.bundle"}


def test_a_held_release_is_offered_to_nobody_until_it_is_published(make_bundle, tmp_path):
    repository, now = tmp_path / "r", datetime.now(UTC)
    init_repository(repository, now=now)
    add_family(repository, "demo", access=Access(now=now))
    home = Client(repository, tmp_path / "home")
    bundles = {release: make_bundle(release, parent=1 if release > 1 else None) for release in (1, 2, 3)}
    publish(repository, bundles[1], now=now)
    done = publish(repository, bundles[2], hold=True, now=now)
    assert (done.offered, set(done.deltas)) == (False, {1})
    assert (home.release(), signed(repository)) == (1, {"1.bundle", "2.bundle", "2.from-1.delta"})
    with pytest.raises(RepositoryError, match="release 2 of 'demo' cannot be published: release 2 is out"):
        publish(repository, bundles[2], hold=True, now=now)
    with pytest.raises(RepositoryError, match="releases only go up"):
        publish(repository, make_bundle(2, width=8), now=now)  # the number of a held one, and other bytes
    publish(repository, bundles[3], hold=True, now=now)
    # Offering needs no key of the team.
    (repository / "keys" / "demo.bundles.pem").rename(tmp_path / "team.pem")
    assert publish(repository, bundles[2], now=now).offered
    rule = home.look()
    assert (rule.offer.release, list(rule.offer.deltas.values())) == (2, ["demo/2.from-1.delta"])
    publish(repository, bundles[3], now=now)
    assert home.release() == 3
    with pytest.raises(RepositoryError, match="release 2 of 'demo' cannot be published: release 3 is out"):
        publish(repository, bundles[2], now=now)


def test_the_release_that_the_rule_names_stays(repository, make_bundle):
    publish(repository, make_bundle(1), now=day(0.1))
    for release in (2, 3, 4, 5):
        publish(repository, make_bundle(release, parent=1), hold=True, now=day(release / 10))
    assert {name for name in signed(repository) if name.endswith("bundle")} == {f"{n}.bundle" for n in (1, 3, 4, 5)}
    done = prune(repository, keep=1, now=day(0.6))
    assert done.withdrawn == {"demo": (3, 4)}
    assert done.notes == ("release 1 of 'demo' stays: its rule names it",)
    done = prune(repository, keep=0, now=day(0.7))
    assert done.withdrawn == {"demo": (5,)}
    assert signed(repository) == {"1.bundle"}
    assert verify(repository, now=day(0.8)) == []


def test_pruning_where_a_teams_key_is_elsewhere(repository, tmp_path, make_bundle):
    team = generate_key(tmp_path / "team.pem")
    assert team
    add_family(repository, "other", [tmp_path / "team.pem"], access=Access(now=day(0.1)))
    for release in (1, 2, 3):
        publish(repository, make_bundle(release), now=day(0.2))
        publish(repository, make_bundle(release, family="other"), keys=[tmp_path / "team.pem"], now=day(0.2))
    done = prune(repository, keep=1, now=day(0.3))
    assert done.withdrawn == {"demo": (1, 2)}
    (note,) = done.notes
    assert note == "2 releases of 'other' stay: other.bundles needs 1 of its keys; give them with --key"
    assert prune(repository, keep=1, keys=[tmp_path / "team.pem"], now=day(0.4)).withdrawn == {"other": (1, 2)}
    with pytest.raises(RepositoryError, match="does not sign the bundles of any family"):
        prune(repository, keys=[repository / "keys" / "root-1.pem"], now=day(0.5))
    with pytest.raises(ValueError, match=r"`keep` \(=-1\) must be 0 or more"):
        prune(repository, keep=-1)
    with pytest.raises(ValueError, match=r"`keep` \(=0\) must be 1 or more"):
        publish(repository, make_bundle(9), keep=0)


def test_a_rule_that_cannot_be_read_stops_pruning(repository, make_bundle):
    publish(repository, make_bundle(1), now=day(0.1))
    (rule,) = (repository / "public" / "targets" / "rollout").iterdir()
    rule.write_bytes(rule.read_bytes() + b" ")
    with pytest.raises(RepositoryError, match=r"the rule of 'demo' in .* is not what was signed"):
        prune(repository, keep=0, now=day(0.2))
    with pytest.raises(RepositoryError, match="is not what was signed"):
        publish(repository, make_bundle(2), hold=True, now=day(0.2))
    publish(repository, make_bundle(2), now=day(0.3))  # which replaces it
    (left,) = [path for path in rule.parent.iterdir() if path != rule]
    assert (Rollout.parse(left.read_bytes(), "demo").offer.release, b'"serial":2' in left.read_bytes()) == (2, True)


def test_the_same_inputs_at_the_same_time_give_the_same_bytes(repository, tmp_path, make_bundle):
    shutil.copytree(repository, tmp_path / "copy")
    for place in (repository, tmp_path / "copy"):
        for release in (1, 2, 3, 4, 5):
            publish(place, make_bundle(release, parent=1 if release > 1 else None), now=day(release))
        prune(place, keep=1, now=day(6))
        refresh(place, now=day(12))
    first, second = (
        {name: (place / "public" / name).read_bytes() for name in files(place, "")}
        for place in (repository, tmp_path / "copy")
    )
    assert first == second
    assert (repository / "retired.json").read_bytes() == (tmp_path / "copy" / "retired.json").read_bytes()


def test_a_repository_of_the_earlier_layout_is_refused(repository, make_bundle):
    """One list of targets, signed by the keys of targets, without delegations."""
    from tuf.api.metadata import Metadata, MetaFile
    from tuf.api.serialization.json import JSONSerializer

    from seedcnn.server.keys import load_signer

    metadata = repository / "public" / "metadata"
    parts = {
        name: Metadata.from_file(str(metadata / name))
        for name in ("2.targets.json", "2.snapshot.json", "timestamp.json")
    }
    targets, snapshot, timestamp = parts.values()
    targets.signed.delegations = None
    for part, keys in ((targets, ("targets-1", "targets-2")), (snapshot, ("snapshot",)), (timestamp, ("timestamp",))):
        if part is timestamp:
            timestamp.signed.snapshot_meta = MetaFile(2)
        part.signatures.clear()
        for key in keys:
            part.sign(load_signer(repository / "keys" / f"{key}.pem"), append=True)
    for name, part in parts.items():
        (metadata / name).write_bytes(part.to_bytes(JSONSerializer(compact=True)))
    for call in (lambda: publish(repository, make_bundle(1)), lambda: refresh(repository), lambda: verify(repository)):
        with pytest.raises(
            RepositoryError, match=r"was made by an earlier version of seedcnn.* make a new repository beside"
        ):
            call()
