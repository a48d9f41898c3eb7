"""Metadata that is old, mixed, missing or signed by others, from a repository in memory.

Each case leaves the model and the floor as they were, says why in one sentence, and ends once the repository is right.
"""

from __future__ import annotations

import json

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import MetaFile

from seedcnn.server.repository import Expires
from tests.device.simulator import BUNDLES, LIVES, NOW, ROLES, RULE, RULE_FILE, Home, Simulator, day

DAY = 86400
LISTED = ("targets", BUNDLES, RULE)  # roles that the snapshot lists
EXPIRED = "its metadata has expired or this device's clock is wrong"
UNSIGNED = "its metadata is not signed by the keys this device trusts"
OLD = "its metadata is older than what this device has seen"
CHANGED = "a file is not what was signed"
FAR = 10**9


def roots(home: Home) -> int:
    return len(list((home.path / "metadata" / "root_history").glob("*.root.json")))


@pytest.mark.parametrize("rotations", [1, 5, 256])
def test_every_root_from_the_factory_to_the_newest(home, repository, rotations):
    repository.offer(2)
    for _ in range(rotations):
        repository.rotate("root")
    home.takes(2)
    assert roots(home) == 1 + rotations
    asked = [path for path in repository.fetched if path.endswith(".root.json")]
    assert len(asked) == rotations + (rotations < 256)
    repository.fetched.clear()
    assert not home.update().updated
    assert sum(repository.fetched.values()) == 1 + (rotations < 256)


def test_the_257th_root_after_the_factory_is_not_looked_for(home, repository):
    for _ in range(257):
        repository.rotate("root")
    repository.rotate("timestamp")
    home.refused(UNSIGNED)
    home.refused(UNSIGNED)
    fresh = Home.make(home.path.with_name("fresh"), repository)
    fresh.takes(1)


def test_a_root_in_the_middle_may_have_expired(home, repository):
    repository.signed["root"].expires = day(-1)
    repository.rotate("root")
    home.refused(rf"{EXPIRED} .*root\.json")
    repository.signed["root"].expires = day(365)
    repository.rotate("root")
    repository.offer(2)
    home.takes(2)


@pytest.mark.parametrize("side", ["old", "new"])
def test_a_root_needs_the_keys_before_it_and_its_own(home, repository, side):
    old = repository.rotate("root")
    good = repository.roots[-1]
    repository.roots[-1] = repository.metadata("root", old if side == "old" else repository.signers["root"])
    home.refused(UNSIGNED)
    repository.roots[-1] = good
    home.takes(1)


def test_a_root_that_skips_a_version(home, repository):
    repository.signed["root"].version += 1
    repository.next_root()
    home.refused(OLD)
    repository.signed["root"].version = 2
    repository.roots[-1] = repository.metadata("root")
    home.takes(1)


@pytest.mark.parametrize("answer", [b"", b"{}", b"<html>", b'{"signed": {"_type": "root"}, "signatures": []}'])
def test_a_root_that_is_none(home, repository, answer):
    repository.served["metadata/2.root.json"] = answer
    home.refused("its metadata is not valid")


def test_other_metadata_as_a_root(home, repository):
    repository.served["metadata/2.root.json"] = repository.metadata("targets")
    home.refused("its metadata is not valid")


@pytest.mark.parametrize(
    ("status", "words"), [(403, ""), (404, ""), (500, "HTTP status 500"), (410, "HTTP status 410")]
)
def test_an_answer_without_a_root_is_the_end_of_the_chain_or_of_the_update(home, repository, status, words):
    repository.served["metadata/2.root.json"] = status
    repository.offer(2)
    home.refused(words) if words else home.takes(2)


def test_a_root_larger_than_any_root(home, repository):
    repository.served["metadata/2.root.json"] = bytes(600_000)
    home.refused("sends more than the 512000 bytes allowed")


@pytest.mark.parametrize("role", ROLES)
def test_a_role_is_good_until_it_expires_and_refused_from_then_on(home, repository, role):
    repository.offer(2)
    for each in ROLES:
        repository.signed[each].expires = day(1 if each == role else 1000)
    repository.next_root()
    repository.bump(*LISTED)
    name = r"root\.json|root" if role == "root" else role
    home.refused(f"{EXPIRED} .*({name})", at=NOW + DAY)
    home.takes(2, at=NOW + DAY - 1)
    home.refused(f"{EXPIRED} .*({name})", at=NOW + DAY + 1)
    repository.signed[role].expires = day(2)
    repository.next_root()
    repository.bump(*LISTED)
    assert not home.update(at=NOW + DAY + 1).updated


def test_a_clock_that_is_behind_accepts_no_more_than_the_newest_rule_allows(home, repository):
    """The rule was signed an hour before NOW; metadata that had expired by then are old, whatever the clock says."""
    repository.signed["timestamp"].expires = day(-1 / 24)
    repository.publish()
    home.refused(EXPIRED, at=0)
    repository.signed["timestamp"].expires = day(-1 / 24 + 0.001)
    repository.publish()
    assert not home.update(at=0).updated
    home.refused(EXPIRED, at=NOW)


@pytest.mark.parametrize("role", ROLES[1:])
def test_a_version_never_goes_back(home, repository, role):
    for _ in range(2):
        repository.bump(*({role} & set(LISTED)))
    repository.offer(2)
    home.takes(2)
    signed = repository.signed
    signed[role].version = 2
    if role in LISTED:
        repository.publish()
    elif role == "snapshot":
        signed["timestamp"].version += 1
        signed["timestamp"].snapshot_meta = MetaFile(2)
    home.refused(OLD)
    signed[role].version = 50
    if role == "timestamp":
        signed["snapshot"].version, signed["timestamp"].version = 50, 50
    repository.publish()
    assert not home.update().updated


@pytest.mark.parametrize("role", LISTED)
def test_a_role_that_vanishes_from_the_snapshot(home, repository, role):
    repository.publish()
    del repository.signed["snapshot"].meta[f"{role}.json"]
    home.refused("its metadata is not valid")
    repository.publish()
    assert not home.update().updated


@pytest.mark.parametrize(
    ("role", "key"),
    [("timestamp", "timestamp"), ("snapshot", "timestamp"), *((role, "snapshot") for role in LISTED)],
)
def test_a_version_far_ahead_holds_devices_back_until_a_key_is_replaced(home, repository, role, key):
    """The key of whoever vouches for the version: the timestamp for the snapshot, the snapshot for the lists."""
    version = repository.signed[role].version
    repository.signed[role].version = FAR
    if role == "timestamp":
        repository.signed["snapshot"].version += 1
        repository.signed["timestamp"].snapshot_meta = MetaFile(repository.signed["snapshot"].version)
    else:
        repository.publish()
    assert not home.update().updated
    repository.signed[role].version = version + 3
    repository.offer(2)
    home.refused(OLD)
    repository.rotate(key)
    home.takes(2)


def test_many_versions_at_once(home, repository):
    for release in range(2, 8):
        repository.offer(release)
        repository.bump(*LISTED)
    repository.fetched.clear()
    home.takes(7)
    assert sum(repository.fetched.values()) == 8  # root 404, timestamp, snapshot, three lists, rule, bundle


@pytest.mark.parametrize("role", ["snapshot", *LISTED])
@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"version": 99}, "HTTP status 404"),
        ({"length": 10}, "sends more than the 10 bytes allowed"),
        ({"length": 10**5}, CHANGED),
        ({"hashes": {"sha256": "0" * 64}}, CHANGED),
        ({"hashes": {"sha512": "0" * 128}}, CHANGED),
    ],
    ids=["version", "shorter", "longer", "sha256", "sha512"],
)
def test_metadata_that_is_not_what_is_named(home, repository, role, named, words):
    repository.offer(2)
    repository.bump("targets")
    said = {"version": repository.signed[role].version, **named}
    if role == "snapshot":
        repository.signed["timestamp"].snapshot_meta = MetaFile(**said)
    else:
        repository.signed["snapshot"].meta[f"{role}.json"] = MetaFile(**said)
    home.refused(words)


@pytest.mark.parametrize("role", ["snapshot", *LISTED])
def test_metadata_of_another_version_than_it_is_named(home, repository, role):
    """Yesterday's file under today's name."""
    repository.bump("targets")
    old = repository.metadata(role)
    repository.offer(2)
    repository.bump("targets")
    repository.served[repository.path(role)] = old
    home.refused(OLD)
    repository.served.clear()
    home.takes(2)


@pytest.mark.parametrize("role", [BUNDLES, RULE])
def test_metadata_under_the_name_of_another_role(home, repository, role):
    repository.offer(2)
    other = RULE if role == BUNDLES else BUNDLES
    repository.signed[other].version = repository.signed[role].version = 77
    repository.publish()
    repository.served[repository.path(role)] = repository.metadata(other)
    home.refused(UNSIGNED)


@pytest.mark.parametrize("role", ROLES[1:])
def test_a_file_of_metadata_that_is_missing(home, repository, role):
    repository.offer(2)
    repository.bump("targets")
    repository.served[repository.path(role)] = 404
    home.refused("HTTP status 404")
    repository.served.clear()
    home.takes(2)


@pytest.mark.parametrize("name", [RULE_FILE, "demo/2.bundle"])
@pytest.mark.parametrize(
    ("answer", "words"), [(404, "HTTP status 404"), (b"{}", CHANGED), (bytes(10**5), "sends more")]
)
def test_a_target_that_is_missing_or_other(home, repository, name, answer, words):
    repository.offer(2)
    repository.served[repository.path_of(name)] = answer
    # A rule that was read counts, also if its release cannot be fetched.
    home.refused(words, serial=None if name == RULE_FILE else repository.serial)
    repository.served.clear()
    home.takes(2)


def test_a_check_that_finds_nothing_asks_for_two_files(home, repository):
    repository.fetched.clear()
    assert not home.update().updated
    assert dict(repository.fetched) == {"metadata/2.root.json": 1, "metadata/timestamp.json": 1}
    assert repository.asked["Accept-Encoding"] == "gzip"


def stranger(repository: Simulator, role: str) -> None:
    repository.signers[role] = [CryptoSigner.generate_ed25519()]


def nobody(repository: Simulator, role: str) -> None:
    repository.signers[role] = []


def another_role(repository: Simulator, role: str) -> None:
    repository.signers[role] = repository.signers["snapshot" if role != "snapshot" else "timestamp"]


def one_of_two(repository: Simulator, role: str) -> None:
    repository.rotate(role, count=2, threshold=2)
    repository.signers[role].pop()


def one_of_two_and_a_stranger(repository: Simulator, role: str) -> None:
    one_of_two(repository, role)
    repository.signers[role].append(CryptoSigner.generate_ed25519())


def an_old_key(repository: Simulator, role: str) -> None:
    repository.signers[role] = repository.rotate(role)


WRONG = [stranger, nobody, another_role, one_of_two, one_of_two_and_a_stranger, an_old_key]


@pytest.mark.parametrize("role", ROLES[1:])
@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_signatures_that_do_not_count(home, repository, role, wrong):
    wrong(repository, role)
    repository.offer(2)
    repository.bump("targets")
    home.refused(UNSIGNED)


@pytest.mark.parametrize("role", ROLES)
def test_one_signature_twice_is_not_two(home, repository, role):
    repository.rotate(role, count=2, threshold=2)
    repository.offer(2)
    repository.bump("targets")
    path = repository.path(role)
    good = json.loads(repository.roots[-1] if role == "root" else repository.metadata(role))
    own = next(each for each in good["signatures"] if each["keyid"] == repository.signers[role][0].public_key.keyid)
    repository.served[path] = json.dumps({**good, "signatures": [own, own]}).encode()
    home.refused("its metadata is not valid .*")
    repository.served.clear()
    home.takes(2)


@pytest.mark.parametrize("role", ROLES)
def test_one_key_twice_in_a_role_is_refused(home, repository, role):
    """Two names of a key would make a threshold of two out of one key."""
    parent = "targets" if role in (BUNDLES, RULE) else "root"
    said = json.loads(repository.metadata(parent))
    roles = said["signed"]["roles"] if parent == "root" else said["signed"]["delegations"]["roles"]
    keys = roles[role] if parent == "root" else next(each for each in roles if each["name"] == role)
    keys["keyids"] *= 2
    repository.bump("targets")
    path = "metadata/2.root.json" if parent == "root" else repository.path("targets")
    repository.served[path] = json.dumps(said).encode()
    home.refused("its metadata is not valid")


@pytest.mark.parametrize("role", ROLES[1:])
def test_a_signature_of_a_stranger_beside_the_right_one_does_no_harm(home, repository, role):
    repository.signers[role].append(CryptoSigner.generate_ed25519())
    repository.offer(2)
    repository.bump("targets")
    home.takes(2)


@pytest.mark.parametrize("role", ROLES)
def test_two_of_two_keys_are_enough(home, repository, role):
    repository.rotate(role, count=2, threshold=2)
    repository.offer(2)
    home.takes(2)


def test_the_lives_are_those_of_a_repository():
    assert {role: Expires().of(role).days for role in ROLES} == LIVES
