"""``verify`` finds whatever is wrong; ``list_keys`` says where keys are and what expires."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from seedcnn.bundle import Artefact, Rollout
from seedcnn.errors import RepositoryError
from seedcnn.server.families import Access, add_family
from seedcnn.server.inventory import list_keys
from seedcnn.server.keys import generate_key
from seedcnn.server.repository import init_repository, publish
from seedcnn.server.verify import verify
from tests.device.attacker import Thief


@pytest.fixture
def repository(tmp_path, make_bundle):
    init_repository(tmp_path / "r")
    add_family(tmp_path / "r", "demo")
    publish(tmp_path / "r", make_bundle(1))
    publish(tmp_path / "r", make_bundle(2, parent=1))
    assert verify(tmp_path / "r") == []
    return tmp_path / "r"


def change(path, data=None):
    path.write_bytes(path.read_bytes()[:-1] + b"\0" if data is None else data)


@pytest.mark.parametrize(
    ("part", "match"),
    [
        ("targets/demo/*.2.bundle", r"\.2\.bundle is not what was signed: "),
        ("targets/demo/*.delta", r"\.2\.from-1\.delta is not what was signed"),
        ("targets/rollout/*.json", "demo.json is not what was signed"),
        ("metadata/3.demo.bundles.json", r"demo\.bundles is not what was signed"),
        ("metadata/3.demo.rule.json", r"demo\.rule is not what was signed"),
        ("metadata/1.root.json", "1.root.json does not lead devices to the next root"),
    ],
)
@pytest.mark.parametrize("how", ["changed", "gone"])
def test_a_damaged_file_is_found(repository, part, match, how):
    paths = sorted((repository / "public").glob(part), key=lambda path: path.stat().st_mtime_ns)
    if how == "changed":
        change(paths[-1])
    else:
        paths[-1].unlink()
    problems = verify(repository)
    assert any(re.search(match, sentence) for sentence in problems), problems


def test_damage_above_the_families_ends_it(repository):
    change(repository / "public" / "metadata" / "timestamp.json")
    with pytest.raises(RepositoryError, match="holds metadata that was not signed by this repository's keys"):
        verify(repository)


def test_expired_roles_are_named(repository):
    now = datetime.now(UTC)
    for days, roles in ((4, {"timestamp"}), (31, {"timestamp", "snapshot", "demo.rule"})):
        found = verify(repository, now=now + timedelta(days=days))
        assert {sentence.split(" has expired on ")[0] for sentence in found} == roles


def rule(offer):
    return Rollout(offer, 9, None, "0" * 32, 1000, 0).dump()


def test_a_rule_must_name_signed_files_of_its_content(repository):
    thief = Thief(repository)
    thief.add("demo.rule", "rollout/demo.json", rule(Artefact("demo", 9, "0" * 64, {})))
    thief.publish()
    assert verify(repository) == ["the rule of 'demo' names demo/9.bundle, which is not signed"]
    thief = Thief(repository)
    thief.add("demo.rule", "rollout/demo.json", rule(Artefact("demo", 2, "0" * 64, {"1" * 64: "demo/2.from-9.delta"})))
    thief.publish()
    assert verify(repository) == [
        "the rule of 'demo' names demo/2.from-9.delta, which is not signed",
        "the rule of 'demo' names another content than demo/2.bundle has",
    ]


def test_where_keys_are_and_what_expires(tmp_path):
    now, word = datetime(2026, 1, 1, tzinfo=UTC), b"open sesame"
    access = Access(tmp_path / "stick", passphrase=lambda _: word, now=now)
    init_repository(tmp_path / "r", offline_keys=tmp_path / "stick", passphrase=word, now=now)
    team = generate_key(tmp_path / "team.pem").public_key.keyid
    add_family(tmp_path / "r", "demo", [tmp_path / "team.pem"], access=access)
    rows = {row.role: row for row in list_keys(tmp_path / "r", now=now)}
    assert list(rows) == ["root", "targets", "snapshot", "timestamp", "demo.bundles", "demo.rule"]
    assert [row.threshold for row in rows.values()] == [2, 2, 1, 1, 1, 1]
    assert set(rows["root"].keys.values()) == {str(tmp_path / "stick" / f"root-{number}.pem") for number in (1, 2, 3)}
    assert rows["demo.bundles"].keys == {team: str(tmp_path / "team.pem")}
    assert list(rows["demo.rule"].keys.values()) == ["keys/demo.rule.pem"]
    assert [row.left.days for row in rows.values()] == [365, 180, 7, 3, 90, 30]
    (tmp_path / "stick").rename(tmp_path / "away")
    (tmp_path / "r" / "keys" / "demo.rule.pem").unlink()
    (tmp_path / "r" / "public" / "metadata" / "1.demo.bundles.json").unlink()
    rows = {row.role: row for row in list_keys(tmp_path / "r", now=now + timedelta(days=4))}
    assert all(place.endswith(".pem (not there now)") for place in rows["targets"].keys.values())
    assert list(rows["demo.rule"].keys.values()) == [""]
    assert rows["timestamp"].left == timedelta(days=-1)
    assert "was not signed" in rows["demo.bundles"].problem
