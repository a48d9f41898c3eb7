from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from tuf.api.metadata import Metadata

from seedcnn.bundle import Artefact, Rollout, apply_delta, read_bundle, read_delta
from seedcnn.errors import RepositoryError
from seedcnn.server.families import Access, add_family
from seedcnn.server.lock import exclusive
from seedcnn.server.refresh import refresh
from seedcnn.server.repository import Expires, init_repository, publish
from tests.bundle.bundles import with_manifest

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def repository(tmp_path):
    init_repository(tmp_path / "r")
    add_family(tmp_path / "r", "demo")
    return tmp_path / "r"


def read(directory, name):
    return json.loads((directory / "public" / "metadata" / name).read_bytes())["signed"]


ROLES = ("demo.bundles", "demo.rule")


def published(directory):
    """The state that a client of "demo" arrives at: timestamp, snapshot, and all that is signed for it."""
    timestamp = read(directory, "timestamp.json")
    snapshot = read(directory, f"{timestamp['meta']['snapshot.json']['version']}.snapshot.json")
    roles = [read(directory, f"{snapshot['meta'][f'{name}.json']['version']}.{name}.json") for name in ROLES]
    return timestamp, snapshot, {**roles[0], "targets": roles[0]["targets"] | roles[1]["targets"]}


def test_init_makes_roles_thresholds_and_expiries(tmp_path):
    root = init_repository(tmp_path / "r", now=NOW)
    assert root == tmp_path / "r" / "root.json"
    assert root.read_bytes() == (tmp_path / "r" / "public" / "metadata" / "1.root.json").read_bytes()
    signed = json.loads(root.read_bytes())["signed"]
    assert signed["consistent_snapshot"] is True
    assert {name: (len(role["keyids"]), role["threshold"]) for name, role in signed["roles"].items()} == {
        "root": (3, 2),
        "targets": (3, 2),
        "snapshot": (1, 1),
        "timestamp": (1, 1),
    }
    assert {key["keytype"] for key in signed["keys"].values()} == {"ed25519"}
    days = {"1.root.json": 365, "1.targets.json": 180, "1.snapshot.json": 7, "timestamp.json": 3}
    for name, validity in days.items():
        assert read(tmp_path / "r", name)["expires"] == f"{NOW + timedelta(days=validity):%Y-%m-%dT%H:%M:%SZ}"
    assert b"\n" not in root.read_bytes()
    Metadata.from_bytes(root.read_bytes()).verify_delegate("root", Metadata.from_bytes(root.read_bytes()))


def test_private_keys_are_not_in_the_public_half(repository, make_bundle):
    publish(repository, make_bundle(1))
    assert not list((repository / "public").rglob("*.pem"))
    assert not any(b"PRIVATE" in path.read_bytes() for path in (repository / "public").rglob("*.*"))


def test_init_refuses_a_second_time(repository):
    before = (repository / "root.json").read_bytes()
    with pytest.raises(RepositoryError, match="already holds a repository"):
        init_repository(repository)
    assert (repository / "root.json").read_bytes() == before


def test_publish_adds_bundle_and_rule(repository, make_bundle, tmp_path):
    path = tmp_path / "m.bundle"
    path.write_bytes(make_bundle(3))
    done = publish(repository, path)
    digest = hashlib.sha256(make_bundle(3)).hexdigest()
    assert (done.family, done.release, done.target, done.size, done.sha256) == (
        "demo",
        3,
        "demo/3.bundle",
        len(make_bundle(3)),
        digest,
    )
    assert (repository / "public" / "targets" / "demo" / f"{digest}.3.bundle").read_bytes() == make_bundle(3)
    timestamp, snapshot, targets = published(repository)
    assert [role["version"] for role in (timestamp, snapshot, targets)] == [3, 3, 2]
    assert targets["targets"]["demo/3.bundle"] == {"length": len(make_bundle(3)), "hashes": {"sha256": digest}}
    rule = targets["targets"]["rollout/demo.json"]
    text = (repository / "public" / "targets" / "rollout" / f"{rule['hashes']['sha256']}.demo.json").read_bytes()
    content = read_bundle(make_bundle(3)).manifest.content_sha256()
    rule = Rollout.parse(text, "demo")
    assert (rule.offer, rule.base) == (Artefact("demo", 3, content, {}), None)
    assert (rule.serial, rule.per_mille, rule.cohorts, rule.dump()) == (1, 1000, (), text)


def _rule(repository):
    targets = published(repository)[2]["targets"]
    digest = targets["rollout/demo.json"]["hashes"]["sha256"]
    text = (repository / "public" / "targets" / "rollout" / f"{digest}.demo.json").read_bytes()
    return Rollout.parse(text, "demo"), targets


def test_deltas_from_the_last_releases(repository, make_bundle):
    assert publish(repository, make_bundle(1)).deltas == {}
    publish(repository, make_bundle(2, parent=1))
    publish(repository, make_bundle(3, width=32))  # another graph, so no delta
    publish(repository, make_bundle(4, parent=1))
    child = make_bundle(5, parent=1)
    done = publish(repository, child, deltas=3)
    rule, targets = _rule(repository)
    assert set(done.deltas) == {2, 4}
    assert rule.offer.content == read_bundle(child).manifest.content_sha256()
    assert len(rule.offer.deltas) == 2
    for release, size in done.deltas.items():
        parent = read_bundle(make_bundle(release, parent=1))
        name = rule.offer.deltas[parent.manifest.content_sha256()]
        digest = targets[name]["hashes"]["sha256"]
        data = (repository / "public" / "targets" / "demo" / f"{digest}.5.from-{release}.delta").read_bytes()
        assert len(data) == size < len(child) / 2
        made = read_bundle(apply_delta(parent, read_delta(data)))
        assert made.manifest.content_sha256() == rule.offer.content
    assert publish(repository, make_bundle(6, parent=1), deltas=0).deltas == {}


@pytest.mark.parametrize("deltas", [-1, 65])
def test_more_deltas_than_a_rule_may_list_are_refused(repository, make_bundle, deltas):
    with pytest.raises(ValueError, match=rf"`deltas` \(={deltas}\) must be in \[0, 64\]"):
        publish(repository, make_bundle(1), deltas=deltas)
    assert published(repository)[2]["targets"] == {}


def test_no_delta_from_a_file_that_is_not_what_was_signed(repository, make_bundle):
    done = publish(repository, make_bundle(1))
    file = repository / "public" / "targets" / "demo" / f"{done.sha256}.1.bundle"
    file.write_bytes(make_bundle(1, logit_error=0.5))
    assert publish(repository, make_bundle(2, parent=1)).deltas == {}
    file.unlink()
    assert set(publish(repository, make_bundle(3, parent=1)).deltas) == {2}


def test_older_states_stay_whole(repository, make_bundle):
    states = [published(repository)[1:]]
    for release in (1, 2, 3):
        publish(repository, make_bundle(release))
        states.append(published(repository)[1:])
    for version, (snapshot, targets) in enumerate(states, 1):
        assert read(repository, f"{version + 1}.snapshot.json") == snapshot
        assert {"demo/1.bundle", f"demo/{version - 1}.bundle"} <= set(targets["targets"]) or version == 1
        for name, target in targets["targets"].items():
            parent, _, base = name.rpartition("/")
            path = repository / "public" / "targets" / parent / f"{target['hashes']['sha256']}.{base}"
            assert path.stat().st_size == target["length"]
    assert not list((repository / "public").rglob(".*"))


@pytest.mark.parametrize("release", [1, 4, 5])
def test_releases_only_go_up(repository, make_bundle, release):
    publish(repository, make_bundle(5))
    before = (repository / "public" / "metadata" / "timestamp.json").read_bytes()
    with pytest.raises(RepositoryError, match=f"release {release} of 'demo' cannot be published: release 5 is out"):
        publish(repository, make_bundle(release))
    assert (repository / "public" / "metadata" / "timestamp.json").read_bytes() == before
    add_family(repository, "other")
    publish(repository, make_bundle(1, family="other"))
    publish(repository, make_bundle(6))


@pytest.mark.parametrize("family", ["..", "../x", "a/b", "A", " demo", "-x", ".x", "x" * 65, "rollout", "x\n", "ä"])
def test_family_names_are_harmless(repository, make_bundle, family):
    with pytest.raises(RepositoryError, match="must be 1 to 64 of"):
        publish(repository, make_bundle(1, family=family))
    assert published(repository)[2]["targets"] == {}
    assert list((repository / "public" / "targets").iterdir()) == []


@pytest.mark.parametrize("place", [0, 8, 2000, -1])
def test_damaged_bundles_are_not_published(repository, make_bundle, place):
    data = bytearray(make_bundle(1))
    data[place] ^= 1
    with pytest.raises(RepositoryError, match="was not published"):
        publish(repository, bytes(data))
    with pytest.raises(RepositoryError, match="was not published"):
        publish(repository, make_bundle(1)[:-3])


def test_unreadable_bundle_and_missing_repository(repository, make_bundle, tmp_path):
    with pytest.raises(RepositoryError, match=r"x\.bundle cannot be read: No such file"):
        publish(repository, tmp_path / "x.bundle")
    for call in (lambda place: publish(place, make_bundle(1)), refresh):
        with pytest.raises(RepositoryError, match="is not a repository; make one with"):
            call(tmp_path / "absent")
        with pytest.raises(RepositoryError, match="is not a repository; make one with"):
            call(tmp_path)


@pytest.mark.parametrize("role", ["demo.bundles", "demo.rule", "snapshot", "timestamp"])
def test_missing_key(repository, make_bundle, role):
    (repository / "keys" / f"{role}.pem").unlink()
    before = (repository / "public" / "metadata" / "timestamp.json").read_bytes()
    with pytest.raises(RepositoryError, match=f"{role} needs 1 of its keys"):
        publish(repository, make_bundle(1))
    assert (repository / "public" / "metadata" / "timestamp.json").read_bytes() == before


def test_publishing_needs_no_offline_keys(repository, make_bundle):
    for path in (repository / "keys").glob("*-*.pem"):
        path.unlink()
    publish(repository, make_bundle(1))
    assert refresh(repository).due == ()


def test_foreign_key_and_tampered_metadata_are_not_signed(repository, make_bundle, tmp_path):
    init_repository(tmp_path / "other")
    for role in ("snapshot", "timestamp"):
        path = repository / "keys" / f"{role}.pem"
        own = path.read_bytes()
        path.write_bytes((tmp_path / "other" / "keys" / f"{role}.pem").read_bytes())
        with pytest.raises(
            RepositoryError, match=rf"{role}\.pem holds a {role} key .* that the signed metadata does not"
        ):
            publish(repository, make_bundle(1))
        path.write_bytes(own)
    for name in ("2.targets.json", "1.demo.bundles.json"):
        file = repository / "public" / "metadata" / name
        before = file.read_bytes()
        file.write_bytes(before.replace(b'"targets":{}', b'"targets":{"x":{"hashes":{"sha256":"0"},"length":1}}'))
        with pytest.raises(RepositoryError, match="was not signed by this repository's keys"):
            publish(repository, make_bundle(1))
        file.write_bytes(before)
    publish(repository, make_bundle(1))


def test_two_publishers_take_turns(repository, make_bundle):
    with exclusive(repository), pytest.raises(RepositoryError, match="another process is publishing"):
        publish(repository, make_bundle(1))
    publish(repository, make_bundle(1))


def test_refresh_renews_the_timestamp_and_what_has_lived_half_its_life(tmp_path):
    init_repository(tmp_path, now=NOW)
    add_family(tmp_path, "demo", access=Access(now=NOW))
    later = NOW + timedelta(days=2)
    result = refresh(tmp_path, now=later)
    assert (result.roles, result.due) == (("timestamp",), ())
    timestamp, snapshot, _ = published(tmp_path)
    assert (timestamp["version"], snapshot["version"]) == (3, 2)
    assert timestamp["expires"] == f"{later + timedelta(days=3):%Y-%m-%dT%H:%M:%SZ}"
    days = {4: ("snapshot", "timestamp"), 15: ("demo.rule", "snapshot", "timestamp"), 16: ("timestamp",)}
    days |= {45: ("demo.bundles", "demo.rule", "snapshot", "timestamp")}
    days |= {90: ("targets", "demo.bundles", "demo.rule", "snapshot", "timestamp"), 91: ("timestamp",)}
    for day, roles in days.items():
        assert refresh(tmp_path, now=NOW + timedelta(days=day), clock_ok=True).roles == roles


def test_refresh_renews_the_root_with_two_of_its_keys(tmp_path):
    init_repository(tmp_path, now=NOW)
    (tmp_path / "keys" / "root-3.pem").unlink()
    roles = ("root", "targets", "snapshot", "timestamp")
    assert refresh(tmp_path, now=NOW + timedelta(days=183), clock_ok=True).roles == roles
    old = Metadata.from_file(str(tmp_path / "public" / "metadata" / "1.root.json"))
    new = Metadata.from_file(str(tmp_path / "public" / "metadata" / "2.root.json"))
    old.verify_delegate("root", new)
    assert new.signed.version == 2
    assert (tmp_path / "root.json").read_bytes() == (tmp_path / "public" / "metadata" / "2.root.json").read_bytes()


def test_refresh_says_what_is_due_but_has_no_keys(tmp_path):
    init_repository(tmp_path, now=NOW)
    add_family(tmp_path, "demo", access=Access(now=NOW))
    for name in ("root-1", "root-2", "targets-1", "targets-2", "demo.bundles"):
        (tmp_path / "keys" / f"{name}.pem").unlink()
    result = refresh(tmp_path, now=NOW + timedelta(days=200), clock_ok=True)
    assert result.roles == ("demo.rule", "snapshot", "timestamp")
    assert [sentence.split(" its keys")[0] for sentence in result.due] == [
        "demo.bundles expires 2026-04-01 and",
        "targets expires 2026-06-30 and",
        "root expires 2027-01-01 and",
    ]
    assert all("seedcnn repo export" in sentence for sentence in result.due)


def test_a_damaged_family_does_not_stop_the_others(repository, make_bundle):
    add_family(repository, "other")
    (repository / "public" / "metadata" / "1.other.rule.json").unlink()
    (sentence,) = refresh(repository).due
    assert sentence.startswith("other.rule cannot be renewed: ")
    publish(repository, make_bundle(1))


@pytest.mark.parametrize(
    ("days", "wrong"), [(-1, "before the last signing"), (8, "more than 7 days after the last signing")]
)
def test_an_implausible_clock_signs_nothing(repository, make_bundle, days, wrong):
    refresh(repository, now=NOW, clock_ok=True)
    files = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
    moment = NOW + timedelta(days=days)
    for sign in (refresh, lambda directory, **options: publish(directory, make_bundle(1), **options)):
        with pytest.raises(RepositoryError, match=f"{wrong} .* or if it is right, sign with --clock-ok"):
            sign(repository, now=moment)
    assert {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()} == files
    publish(repository, make_bundle(1), now=moment, clock_ok=True)
    publish(repository, make_bundle(2), now=moment)


def test_refresh_takes_back_what_a_clock_ahead_has_signed(tmp_path):
    """Nobody can freeze a fresh device with metadata that is valid for years."""
    init_repository(tmp_path, now=NOW + timedelta(days=3650))
    with pytest.raises(RepositoryError, match="before the last signing"):
        refresh(tmp_path, now=NOW)
    (tmp_path / "keys" / "root-1.pem").rename(tmp_path / "root-1.pem")
    (tmp_path / "keys" / "root-2.pem").rename(tmp_path / "root-2.pem")
    result = refresh(tmp_path, now=NOW, clock_ok=True)
    assert result.roles == ("targets", "snapshot", "timestamp")
    (due,) = result.due
    assert due.startswith("root expires 2036-12-29, later than it may (365 days) and its keys are not in")
    (tmp_path / "root-1.pem").rename(tmp_path / "keys" / "root-1.pem")
    assert refresh(tmp_path, now=NOW).roles == ("root", "timestamp")
    for name, most in (("2.root.json", 365), ("2.targets.json", 180), ("2.snapshot.json", 7), ("timestamp.json", 3)):
        assert read(tmp_path, name)["expires"] == f"{NOW + timedelta(days=most):%Y-%m-%dT%H:%M:%SZ}"


def test_expiries_and_moment_can_be_chosen(tmp_path, make_bundle):
    expires = Expires(*(timedelta(days=days) for days in (9, 8, 7, 6, 5, -4)))
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5)))
    init_repository(tmp_path, now=elsewhere, expires=expires)
    add_family(tmp_path, "demo", access=Access(now=NOW, expires=expires))
    publish(tmp_path, make_bundle(1), now=NOW, expires=expires)
    names = ("1.root", "2.targets", "2.demo.bundles", "2.demo.rule", "3.snapshot", "timestamp")
    for name, validity in zip(names, (9, 8, 7, 6, 5, -4), strict=True):
        assert read(tmp_path, f"{name}.json")["expires"] == f"{NOW + timedelta(days=validity):%Y-%m-%dT%H:%M:%SZ}"
    with pytest.raises(ValueError, match="must carry a time zone"):
        refresh(tmp_path, now=datetime(2026, 1, 1))


def test_a_publisher_that_stopped_half_way_left_no_mark(repository, make_bundle):
    """The next publisher replaces files of a state that no timestamp names."""
    publish(repository, make_bundle(1))
    metadata = repository / "public" / "metadata"
    (metadata / "3.demo.bundles.json").write_bytes(b"half")
    left = [place / ".seedcnn-0a.tmp" for place in (repository, metadata, metadata.parent / "targets" / "demo")]
    for path in left:
        path.write_bytes(b"half")
    publish(repository, make_bundle(2))
    assert "demo/2.bundle" in published(repository)[2]["targets"]
    assert not any(path.exists() for path in left)


def test_a_release_with_another_interface_needs_a_word(repository, make_bundle):
    publish(repository, make_bundle(1))
    before = published(repository)
    other = read_bundle(make_bundle(2))
    labels = [*other.manifest.labels[:-1], "another"]
    changed = with_manifest(make_bundle(2), lambda manifest: manifest.update(labels=labels))
    with pytest.raises(RepositoryError, match=r"release 2 .* has other labels \(.*\) than release 1 \(.*interface"):
        publish(repository, changed)
    assert published(repository) == before
    assert publish(repository, changed, changes_interface=True).release == 2
    publish(repository, with_manifest(make_bundle(3), lambda manifest: manifest.update(labels=labels)))
