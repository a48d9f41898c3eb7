"""Rules, floors, digests, deltas and clocks, from a repository in memory."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest
from tuf.api.metadata import TargetFile

from seedcnn.bundle import Artefact, read_bundle, write_delta
from seedcnn.device.outbox import queued
from seedcnn.errors import UpdateError
from tests.device.bundles import make_bundle
from tests.device.simulator import BUNDLES, NOW, RULE, RULE_FILE, Simulator, artefact_of, day

DAY = 86400
LARGEST = 2**53 - 1
ONE, TWO = artefact_of(make_bundle(1)), artefact_of(make_bundle(2))
NOWHERE = Artefact("demo", 7, "0" * 64, {})


def hold(repository: Simulator, release: int, **options: int) -> Artefact:
    """Sign a release that no rule offers."""
    bundle = make_bundle(release, **options)
    repository.add(BUNDLES, f"demo/{release}.bundle", bundle)
    return artefact_of(bundle)


def bundles(repository: Simulator) -> int:
    """How many bundles were asked for."""
    return sum(number for path, number in repository.fetched.items() if path.endswith(".bundle"))


@pytest.mark.parametrize(
    ("offer", "changes", "words"),
    [
        (TWO, {"family": "other"}, "about family 'other'"),
        (TWO, {"artefact": "demo/1.bundle"}, r"artefact is 'demo/1\.bundle'; release 2 is"),
        (TWO, {"serial": 0}, "serial is 0"),
        (NOWHERE, {}, r"demo/7\.bundle is not a signed target"),
        (TWO, {"base": NOWHERE.to_json()}, r"demo/7\.bundle is not a signed target"),
    ],
    ids=["family", "name", "serial", "unsigned", "unsigned base"],
)
def test_a_signed_rule_that_is_refused(home, repository, offer, changes, words):
    hold(repository, 2)
    repository.rule(offer, changes)
    home.refused(words)
    repository.rule(TWO)
    home.takes(2)


def test_a_rule_over_the_cap(home, repository):
    repository.add(RULE, RULE_FILE, b" " * 65537)
    home.refused("sends more than the 65536 bytes allowed")


def test_a_bundle_signed_by_the_rules_key_is_not_signed(home, repository):
    repository.add(RULE, "demo/2.bundle", make_bundle(2))
    repository.rule(TWO)
    home.refused(r"demo/2\.bundle is not a signed target")


def test_a_rule_signed_by_the_teams_key_is_not_signed(home, repository):
    hold(repository, 2)
    repository.rule(TWO)
    rule = repository.signed[RULE].targets.pop(RULE_FILE)
    repository.add(BUNDLES, RULE_FILE, repository.files[rule.path])
    repository.bump(RULE)
    home.refused("has published nothing for family 'demo'")


@pytest.mark.parametrize("paths", [None, ["rollout/other.json"], ["*"]])
def test_a_role_speaks_for_the_paths_that_are_delegated_to_it(home, repository, paths):
    """``*`` reaches no file in a directory."""
    delegations = repository.signed["targets"].delegations
    if paths is None:
        del delegations.roles[RULE]
    else:
        delegations.roles[RULE].paths = paths
    repository.offer(2)
    repository.bump("targets")
    home.refused("has published nothing for family 'demo'")


def test_a_rule_in_the_top_list_counts_first(home, repository):
    """Whoever has the offline keys can put it there; serials start anew, because these are other keys."""
    hold(repository, 2)
    repository.rule(ONE, serial=50)
    assert not home.update().updated
    data = repository.files[RULE_FILE]
    repository.rule(TWO, serial=3)
    repository.signed["targets"].targets[RULE_FILE] = TargetFile.from_data(RULE_FILE, repository.files[RULE_FILE])
    repository.bump("targets")
    repository.serial = 3
    home.takes(2)
    assert data != repository.files[RULE_FILE]


def test_a_serial_never_goes_back_and_has_one_content(home, repository):
    hold(repository, 2)
    repository.rule(TWO, serial=LARGEST)
    assert home.update().release == 2
    assert home.floor.serial == LARGEST
    repository.rule(ONE, serial=LARGEST - 1)
    home.refused(f"its serial is {LARGEST - 1}; this device has seen serial {LARGEST}")
    repository.rule(ONE, serial=LARGEST)
    home.refused(f"this device has seen serial {LARGEST} with different content")


@pytest.mark.parametrize("number", [1, 2])
def test_a_lower_serial_counts_after_the_rules_key_is_replaced(home, repository, number):
    hold(repository, 2)
    repository.rule(ONE, serial=LARGEST)
    assert not home.update().updated
    for _ in range(number):
        repository.rotate(RULE)
    repository.serial = 2
    repository.rule(TWO)
    home.takes(2)


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "root", BUNDLES])
def test_a_lower_serial_does_not_count_after_another_key_is_replaced(home, repository, role):
    hold(repository, 2)
    repository.rule(ONE, serial=50)
    assert not home.update().updated
    repository.rotate(role)
    repository.rule(TWO, serial=49)
    home.refused("its serial is 49; this device has seen serial 50")


def test_the_minimum_release_outlives_every_key(home, repository):
    repository.offer(5, min_release=4)
    home.takes(5)
    for role in (RULE, BUNDLES, "targets", "snapshot", "timestamp", "root"):
        repository.rotate(role)
    repository.rule(ONE, serial=1)
    home.refused("release 1 of 'demo' was refused: a model .* requires release 4 or later", serial=1)
    assert home.floor.min_release == 4


def test_a_rule_signed_in_the_future_moves_no_device_beyond_its_metadata(home, repository):
    repository.rule(ONE, signed_at=int(NOW) + 1000 * DAY)
    assert not home.update().updated
    assert home.floor.signed_at == int(day(3).timestamp()) - 1  # the timestamp expires then
    repository.offer(2)
    home.takes(2)
    repository.signed["timestamp"].expires = day(2.9)
    repository.publish()
    home.refused("expired or this device's clock is wrong")
    repository.rotate("timestamp")
    assert home.update().release == 2
    assert home.floor.signed_at < NOW


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"per_mille": 275}, "not selected: the dial is at 275 per mille"),
        ({"cohorts": ("lab",)}, "not selected: the rule is for the cohorts lab"),
        ({"not_before": int(NOW) + 60}, "before its start at "),
    ],
    ids=["dial", "cohort", "start"],
)
def test_a_hold_moves_the_floor_and_not_the_model(home, repository, fields, words):
    hold(repository, 2)
    repository.rule(TWO, **fields)
    result = home.update()
    assert not result.updated
    assert words in result.message
    assert (home.release, home.floor.serial) == (1, repository.serial)
    assert home.slots.journal.last().state == "HOLD"
    assert bundles(repository) == 0
    repository.rule(TWO, per_mille=276, not_before=int(NOW))
    home.takes(2)


def test_a_device_outside_the_dial_takes_the_base(home, repository):
    hold(repository, 2)
    repository.rule(hold(repository, 3), base=TWO, per_mille=0)
    assert home.update().release == 2
    assert home.release == 2


def test_the_way_back_fetches_no_bundle(home, repository):
    repository.offer(2)
    home.takes(2)
    repository.fetched.clear()
    repository.rule(ONE)
    home.takes(1)
    assert bundles(repository) == 0


def test_a_report_that_nobody_takes_undoes_nothing(home, repository, tmp_path):
    place = tmp_path / "share"
    repository.offer(2)
    assert home.update(reports=place).release == 2
    waiting = [path.read_bytes() for path in queued(home.path)]
    assert len(waiting) >= 2
    assert (home.release, home.slots.journal.last().state) == (2, "COMMITTED")
    place.mkdir()
    assert not home.update(reports=place).updated
    assert sorted(path.read_bytes() for path in place.iterdir()) == sorted(waiting)
    assert list(queued(home.path)) == []


@pytest.mark.parametrize("name", [RULE_FILE, "demo/2.bundle"])
def test_a_target_that_is_signed_with_sha512_only_is_refused_on_purpose(home, repository, name):
    repository.offer(2)
    repository.only_sha512(RULE if name == RULE_FILE else BUNDLES, name)
    serial = None if name == RULE_FILE else repository.serial
    home.refused(f"{name} was refused: it is signed without a SHA-256 digest", serial=serial)
    assert bundles(repository) == 0
    repository.add(RULE if name == RULE_FILE else BUNDLES, name, repository.files[name])
    home.takes(2)


def test_a_target_that_is_signed_with_both_digests_needs_both(home, repository):
    data = repository.offer(2)
    target = TargetFile.from_data("demo/2.bundle", data, ["sha256", "sha512"])
    target.hashes["sha512"] = "0" * 128
    repository.signed[BUNDLES].targets[target.path] = target
    repository.bump(BUNDLES)
    home.refused("a file is not what was signed", serial=repository.serial)
    repository.signed[BUNDLES].targets[target.path] = TargetFile.from_data(target.path, data, ["sha512", "sha256"])
    repository.bump(BUNDLES)
    home.takes(2)


DELTA = "demo/2.from-1.delta"


def offer_by_delta(repository: Simulator, delta: bytes | None = None) -> bytes:
    """Release 2 and a delta to it from release 1."""
    child = make_bundle(2, parent=1)
    made = write_delta(read_bundle(make_bundle(1)), read_bundle(child))
    repository.add(BUNDLES, DELTA, made if delta is None else delta)
    return repository.offer(2, parent=1, deltas={ONE.content: DELTA})


def test_a_delta_brings_the_release(home, repository):
    offer_by_delta(repository)
    assert "by a delta of " in home.takes(2).message
    assert bundles(repository) == 0


@pytest.mark.parametrize(
    ("answer", "words"),
    [(404, "HTTP status 404"), (b"", "not what was signed"), (bytes(10**5), "sends more than")],
    ids=["missing", "empty", "longer"],
)
def test_a_delta_that_fails_gives_way_to_the_bundle(home, repository, answer, words):
    offer_by_delta(repository)
    repository.served[repository.path_of(DELTA)] = answer
    message = home.takes(2).message
    assert "; its delta failed: " in message
    assert words in message
    assert bundles(repository) == 1


@pytest.mark.parametrize("delta", [b"{}", make_bundle(1)[:500]], ids=["short", "no delta"])
def test_a_signed_delta_that_is_none_gives_way_to_the_bundle(home, repository, delta):
    offer_by_delta(repository, delta)
    assert "; its delta failed: " in home.takes(2).message
    assert bundles(repository) == 1


@pytest.mark.parametrize("why", ["unsigned", "as large as the bundle", "from another parent"])
def test_a_delta_that_is_not_looked_at(home, repository, why):
    size = len(make_bundle(2, parent=1))
    offer_by_delta(repository, bytes(size) if why.startswith("as large") else None)
    if why == "unsigned":
        del repository.signed[BUNDLES].targets[DELTA]
        repository.bump(BUNDLES)
    if why == "from another parent":
        repository.rule(artefact_of(make_bundle(2, parent=1), {"0" * 64: DELTA}))
    assert "delta" not in home.takes(2).message
    assert (bundles(repository), sum(path.endswith(".delta") for path in repository.fetched)) == (1, 0)


def test_releases_that_were_skipped_need_no_chain(home, repository):
    offer_by_delta(repository)
    repository.offer(3)
    home.takes(3)
    assert bundles(repository) == 1


CLOCKS = {
    "1970": 0.0,
    "2000": datetime(2000, 1, 1, tzinfo=UTC).timestamp(),
    "a day behind": NOW - DAY,
    "two days ahead": NOW + 2 * DAY,
    "four days ahead": NOW + 4 * DAY,
    "2038": datetime(2038, 1, 20, tzinfo=UTC).timestamp(),
    "2106": datetime(2106, 2, 8, tzinfo=UTC).timestamp(),
}


@pytest.mark.parametrize("clock", CLOCKS)
def test_whatever_the_clock_says_the_right_one_brings_the_release(home, repository, clock):
    """The timestamp is good for three days."""
    repository.offer(2)
    if CLOCKS[clock] > NOW + 3 * DAY:
        home.refused("expired or this device's clock is wrong", at=CLOCKS[clock])
    else:
        home.takes(2, at=CLOCKS[clock])
    home.takes(2)


@pytest.mark.parametrize("reading", [1, 2, 3])
@pytest.mark.parametrize("clock", ["1970", "2106"])
def test_a_clock_that_jumps_during_an_update(home, repository, clock, reading):
    """It is read for a postponement, then for the age of metadata, then for the start of the rule."""
    repository.offer(2)
    readings = itertools.count(1)

    def jumping() -> float:
        return CLOCKS[clock] if next(readings) >= reading else NOW

    if clock == "2106" and reading < 3:
        with pytest.raises(UpdateError, match="expired or this device's clock is wrong"):
            home.update(clock=jumping)
        assert (home.release, home.floor.serial) == (1, 1)
    else:
        assert home.update(clock=jumping).release == 2
    assert next(readings) > reading
    home.takes(2)
    assert home.floor.signed_at == int(NOW) - 3600
