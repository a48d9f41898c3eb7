"""Staged rollouts of a static repository: start, dial, pause, resume, revert, advance, and what each refuses."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from seedcnn.bundle import Probation
from seedcnn.bundle.report import Report
from seedcnn.bundle.rollout import bucket
from seedcnn.errors import RepositoryError
from seedcnn.server.families import Access, add_family
from seedcnn.server.kept import FORMAT
from seedcnn.server.lock import exclusive
from seedcnn.server.repository import init_repository, prune, publish
from seedcnn.server.rollouts import Plan, advance, dial, pause, resume, revert, start, status
from seedcnn.server.verify import verify
from tests.server.client import Client

# Clients check expiry against the real clock.
NOW = datetime.now(UTC).replace(microsecond=0)
T, HOUR, DAY = int(NOW.timestamp()), 3600, 86400
SALTS = [f"{number:032x}" for number in range(9)]
PLAN = Plan((10, 50, 1000), 6 * HOUR, 3 * DAY, 20)


def at(seconds):
    return Access(now=NOW + timedelta(seconds=seconds))


@pytest.fixture(scope="module")
def made(tmp_path_factory, make_bundle):
    """Release 1 is offered to all; 2 and 3 are held."""
    directory = tmp_path_factory.mktemp("made") / "r"
    init_repository(directory, now=NOW)
    add_family(directory, "demo", access=at(0))
    publish(directory, make_bundle(1), now=NOW)
    for release in (2, 3):
        publish(directory, make_bundle(release, parent=1), hold=True, now=NOW)
    return directory


@pytest.fixture
def repository(made, tmp_path):
    return shutil.copytree(made, tmp_path / "r")


@pytest.fixture
def client(repository, tmp_path):
    return Client(repository, tmp_path / "home")


def begin(repository, release=2, plan=PLAN, salt=SALTS[1], seconds=1):
    return start(repository, "demo", release, plan, salt=salt, access=at(seconds))


def devices(salt, per_mille):
    return [name for name in (f"cam-{number}" for number in range(2000)) if bucket(salt, name) < per_mille]


def write(directory, *rows):
    directory.mkdir(exist_ok=True)
    for device, serial, state, seconds in rows:
        number = len(os.listdir(directory))
        report = Report(f"{number:032x}", device, "", "demo", serial, 2, state, T + seconds, "")
        (directory / f"{number}.json").write_bytes(report.dump())


def everything(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.name != "lock"}


def test_start_offers_to_the_first_wave_and_needs_only_the_rules_key(repository, client, tmp_path):
    (repository / "keys" / "demo.bundles.pem").rename(tmp_path / "team.pem")
    plan = replace(PLAN, cohorts=("b", "a", "b"), probation=Probation(answers=9, latency_ms=50, max_late_per_mille=100))
    begun = begin(repository, plan=plan)
    rule = client.look()
    assert (rule.offer.release, rule.base.release, rule.serial, rule.per_mille) == (2, 1, 2, 10)
    assert (rule.salt, rule.signed_at, rule.cohorts, rule.probation) == (SALTS[1], T + 1, ("a", "b"), plan.probation)
    assert rule.deadline == T + 1 + 3 * 6 * HOUR + 3 * DAY
    assert list(rule.offer.deltas.values()) == ["demo/2.from-1.delta"]
    assert (begun.first, begun.serial, begun.state, begun.salts) == (2, 2, "running", (SALTS[1],))
    found = status(repository, "demo")
    assert (found.rollout, found.rule) == (begun, rule)
    assert verify(repository, now=NOW) == []
    kept = repository / "rollouts" / "demo.json"
    assert [path.stat().st_mode & 0o777 for path in (kept, kept.parent)] == [0o600, 0o700]
    assert not any("rollouts" in str(path.relative_to(repository)) for path in (repository / "public").rglob("*"))


def test_the_dial_keeps_the_salt(repository, client):
    begin(repository)
    assert dial(repository, "demo", 20, access=at(2)).state == "running"
    rule = client.look()
    assert (rule.per_mille, rule.serial, rule.salt, rule.signed_at) == (20, 3, SALTS[1], T + 2)
    for share, down, match in (
        (20, False, "the dial of 'demo' is at 2% already"),
        (10, False, "a dial of 1% is below the present 2%, and sends devices back to the base; .* add --down"),
        (30, True, "a dial of 3% is above the present 2%: no --down"),
        (1001, False, "a dial of 100.1% is not possible"),
    ):
        with pytest.raises(RepositoryError, match=match):
            dial(repository, "demo", share, down=down, access=at(3))
    assert dial(repository, "demo", 0, down=True, access=at(4)).wave == 0
    assert client.look().per_mille == 0
    assert dial(repository, "demo", 1000, access=at(5)).state == "done"
    rule = client.look()
    assert (rule.offer.release, rule.base.release, rule.per_mille, rule.serial) == (2, 1, 1000, 5)
    assert dial(repository, "demo", 50, down=True, access=at(6)).state == "running"


def test_pause_and_resume(repository, client, tmp_path):
    write(tmp_path / "in", (devices(SALTS[1], 10)[0], 2, "COMMITTED", 60))
    begin(repository)
    before = client.look()
    assert pause(repository, "demo", access=at(60)).state == "paused"
    decision, _ = advance(repository, "demo", tmp_path / "in", access=at(DAY))
    assert (decision.action, decision.reason, client.look()) == ("wait", "it is paused", before)
    with pytest.raises(RepositoryError, match="is paused; only a running one can be paused"):
        pause(repository, "demo", access=at(60))
    assert resume(repository, "demo", access=at(DAY)).started == T + DAY
    with pytest.raises(RepositoryError, match="is running; only a paused one can be resumed"):
        resume(repository, "demo", access=at(DAY))
    assert advance(repository, "demo", tmp_path / "in", access=at(DAY + 6 * HOUR - 1))[0].action == "wait"
    assert advance(repository, "demo", tmp_path / "in", access=at(DAY + 6 * HOUR))[0].action == "advance"
    assert client.look().per_mille == 50


def test_a_good_release_goes_through_its_waves(repository, client, tmp_path, make_bundle):
    begin(repository)
    write(tmp_path / "in", *((name, 2, "COMMITTED", 60) for name in devices(SALTS[1], 10)))
    seen = []
    for hour in (1, 6, 7, 12, 13, 18, 24):
        decision, _ = advance(repository, "demo", tmp_path / "in", access=at(hour * HOUR + 1))
        seen.append((decision.action, client.look().per_mille))
    walk = [("wait", 10), ("advance", 50), ("wait", 50), ("advance", 1000), ("wait", 1000), ("done", 1000)]
    assert seen == [*walk, ("wait", 1000)]
    assert status(repository, "demo").rollout.state == "done"
    with pytest.raises(RepositoryError, match="release 2 of 'demo' is what all devices are offered already"):
        begin(repository, salt=SALTS[2], seconds=DAY + HOUR)
    begin(repository, 3, salt=SALTS[2], seconds=DAY + HOUR)
    rule = client.look()
    assert (rule.offer.release, rule.base.release, rule.serial) == (3, 2, 5)
    assert status(repository, "demo").rollout.salts == (SALTS[1], SALTS[2])


@pytest.mark.parametrize("on_stop", ["revert", "pause"])
def test_a_bad_release_stops(repository, client, tmp_path, on_stop):
    begin(repository, plan=replace(PLAN, on_stop=on_stop))
    write(tmp_path / "in", (devices(SALTS[1], 10)[0], 2, "ROLLED_BACK", 60))
    decision, rollout = advance(repository, "demo", tmp_path / "in", access=at(61))
    assert (decision.action, rollout) == ("stop", status(repository, "demo").rollout)
    rule = client.look()
    if on_stop == "pause":
        assert (rollout.state, rule.offer.release, rule.per_mille) == ("paused", 2, 10)
        resume(repository, "demo", access=at(62))
        assert advance(repository, "demo", tmp_path / "in", access=at(63))[0].action == "stop"
        assert revert(repository, "demo", access=at(64)) == 1
        rule = client.look()
    assert (rule.offer.release, rule.base, rule.per_mille, rule.serial, rule.cohorts) == (1, None, 1000, 3, ())
    assert status(repository, "demo").rollout.state == "stopped"
    assert advance(repository, "demo", tmp_path / "in", access=at(65))[0].reason == "it has ended (stopped)"
    for call in (pause, resume, lambda *given, access: dial(*given, 50, access=access)):
        with pytest.raises(RepositoryError, match=r"has ended \(stopped\), and the rule in force offers release 1"):
            call(repository, "demo", access=at(66))
    with pytest.raises(RepositoryError, match="has no base; name a release with --to"):
        revert(repository, "demo", access=at(67))


def test_revert_to_an_older_release_with_and_without_a_rollout(repository, client, make_bundle):
    publish(repository, make_bundle(4), now=NOW)
    assert client.release() == 4
    assert revert(repository, "demo", to=2, access=at(1)) == 2
    rule = client.look()
    # The delta that leads to it stays signed, though its parent, release 1, does not.
    assert (rule.offer.release, rule.serial, list(rule.offer.deltas.values())) == (2, 3, ["demo/2.from-1.delta"])
    for to, match in ((2, "release 2 is not below 2"), (1, r"release 1 of 'demo' is not signed \(signed: 2, 3, 4\)")):
        with pytest.raises(RepositoryError, match=match):
            revert(repository, "demo", to=to, access=at(2))
    begin(repository, 4, seconds=3)
    assert revert(repository, "demo", to=3, access=at(4)) == 3
    assert (client.look().serial, status(repository, "demo").rollout.state) == (5, "stopped")


def test_a_release_below_min_release_is_refused(repository, client, make_bundle):
    publish(repository, make_bundle(4, min_release=2), hold=True, keep=9, now=NOW)
    before = everything(repository)
    with pytest.raises(RepositoryError, match="could not be reverted: its base 1 is below 2, the min_release of rel"):
        begin(repository, 4)
    with pytest.raises(RepositoryError, match="could not be reverted"):
        begin(repository, 2)
    assert everything(repository) == before
    begin(repository, 4, plan=replace(PLAN, on_stop="pause"))
    with pytest.raises(RepositoryError, match="release 1 of 'demo' is below 2, the min_release of release 4"):
        revert(repository, "demo", access=at(3))
    assert revert(repository, "demo", to=3, access=at(3)) == 3
    publish(repository, make_bundle(5, min_release=4), hold=True, keep=9, now=NOW + timedelta(seconds=4))
    with pytest.raises(RepositoryError, match="release 2 of 'demo' is below 4, the min_release of release 5"):
        begin(repository, 2, salt=SALTS[2], seconds=5)


def test_the_first_release_has_no_base(made, tmp_path, make_bundle):
    directory = tmp_path / "r"
    init_repository(directory, now=NOW)
    add_family(directory, "demo", access=at(0))
    publish(directory, make_bundle(1), hold=True, now=NOW)
    with pytest.raises(RepositoryError, match="it has no base; start it with --on-stop pause"):
        begin(directory, 1)
    with pytest.raises(RepositoryError, match="there is no rollout of 'demo'; start one with"):
        status(directory, "demo")
    with pytest.raises(RepositoryError, match="'demo' has no rule yet"):
        revert(directory, "demo", access=at(1))
    begin(directory, 1, plan=replace(PLAN, on_stop="pause"))
    rule = Client(directory, tmp_path / "home").look()
    assert (rule.base, rule.serial, rule.per_mille) == (None, 1, 10)
    with pytest.raises(RepositoryError, match="has no base; name a release with --to"):
        revert(directory, "demo", access=at(2))


def test_base_of_a_rule_for_some_is_the_base(repository, client):
    """The others run release 1, so a rollout of 3 after one of 2 for a cohort does not bring 2 to all."""
    begin(repository, plan=replace(PLAN, cohorts=("lab",)))
    dial(repository, "demo", 1000, access=at(2))
    begin(repository, 3, salt=SALTS[2], seconds=3)
    assert (client.look().offer.release, client.look().base.release) == (3, 1)


def test_publishing_to_all_waits_for_the_end_of_a_rollout(repository, client, make_bundle):
    begin(repository)
    where = f"{repository} demo"
    sentence = f"is running; see it with: seedcnn rollout status {where}, end it with: seedcnn rollout revert {where}"
    with pytest.raises(RepositoryError, match="a rollout of release 2 of 'demo' " + sentence):
        publish(repository, make_bundle(4), now=NOW + timedelta(seconds=2))
    pause(repository, "demo", access=at(2))
    with pytest.raises(RepositoryError, match="is paused"):
        publish(repository, make_bundle(3, parent=1), now=NOW + timedelta(seconds=2))
    with pytest.raises(RepositoryError, match="is paused"):
        begin(repository, 3, salt=SALTS[2], seconds=2)
    done = publish(repository, make_bundle(4), hold=True, keep=1, now=NOW + timedelta(seconds=2))
    assert done.withdrawn == (3,)  # what rule and rollout name stays
    prune(repository, keep=0, now=NOW + timedelta(seconds=3))
    assert client.look().artefacts == status(repository, "demo").rule.artefacts
    assert verify(repository, now=NOW) == []
    revert(repository, "demo", access=at(4))
    publish(repository, make_bundle(5), now=NOW + timedelta(seconds=5))
    assert (client.look().offer.release, client.look().serial) == (5, 4)
    with pytest.raises(RepositoryError, match=r"has ended \(stopped\), and the rule in force offers release 5"):
        pause(repository, "demo", access=at(6))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"plan": {"waves": (50, 10)}}, "waves are 5%, 1%; each must be above the one before it"),
        ({"plan": {"waves": (10, 10)}}, "each must be above the one before it"),
        ({"plan": {"waves": (10, 2000)}}, "waves are 1%, 200%; each must be from 0.1% to 100%"),
        ({"plan": {"waves": ()}}, "waves are missing"),
        ({"plan": {"soak": 0}}, "soak is 0"),
        ({"plan": {"deadline": 0}}, "deadline is 0"),
        ({"plan": {"stop_at": 1001}}, "stop_at is 1001"),
        ({"plan": {"on_stop": "x"}}, "on_stop is 'x'"),
        ({"plan": {"cohorts": ("A b",)}}, r"`cohort` \(='A b'\) must be 1 to 64"),
        ({"release": 9}, r"release 9 of 'demo' is not signed \(signed: 1, 2, 3\); sign it with: seedcnn repo publish"),
        ({"release": 1}, "release 1 of 'demo' is what all devices are offered already"),
        ({"salt": "x"}, "salt is 'x'; it must be 32 lower-case"),
        ({"family": "other"}, "has no family 'other'"),
    ],
)
def test_a_start_that_breaks_a_rule_writes_nothing(repository, changes, match):
    before = everything(repository)
    given = {"family": "demo", "release": 2, "salt": SALTS[1], **changes}
    plan = replace(PLAN, **given.pop("plan", {}))
    with pytest.raises(RepositoryError, match=match):
        start(repository, given["family"], given["release"], plan, salt=given["salt"], access=at(1))
    assert everything(repository) == before
    assert not (repository / "rollouts").exists()


def test_a_salt_serves_once(repository, client):
    begin(repository)
    revert(repository, "demo", access=at(2))
    with pytest.raises(RepositoryError, match=r"salt '0+1' was used before; the same devices would be the first ones"):
        begin(repository, 3, seconds=3)
    assert start(repository, "demo", 3, PLAN, access=at(3)).salts[0] == SALTS[1]
    assert len(client.look().salt) == 32


def test_two_operators_at_once(repository, tmp_path):
    begin(repository)
    (tmp_path / "in").mkdir()
    with exclusive(repository):
        for call in (
            lambda: begin(repository, 3),
            lambda: dial(repository, "demo", 50, access=at(2)),
            lambda: pause(repository, "demo", access=at(2)),
            lambda: revert(repository, "demo", access=at(2)),
            lambda: advance(repository, "demo", tmp_path / "in", access=at(2)),
        ):
            with pytest.raises(RepositoryError, match="is locked: another process is publishing there"):
                call()


def test_metadata_must_live_as_long_as_the_rollout(repository, tmp_path):
    long = replace(PLAN, soak=10 * DAY)
    before = everything(repository)
    away = (repository / "keys" / "demo.rule.pem").rename(tmp_path / "rule.pem")
    access = replace(at(1), keys=(away,))
    with pytest.raises(
        RepositoryError, match=r"demo\.rule expires .* before the rollout's deadline .* no refresh could"
    ):
        start(repository, "demo", 2, long, access=access)
    with pytest.raises(RepositoryError, match=r"demo\.rule needs 1 of its keys; 0 at hand"):
        start(repository, "demo", 2, PLAN, access=at(1))
    with pytest.raises(RepositoryError, match=r"does not sign demo\.rule"):
        start(repository, "demo", 2, PLAN, access=replace(at(1), keys=(repository / "keys" / "snapshot.pem",)))
    away.rename(repository / "keys" / "demo.rule.pem")
    assert everything(repository) == before
    (repository / "keys" / "demo.bundles.pem").rename(tmp_path / "team.pem")
    with pytest.raises(RepositoryError, match=r"demo\.bundles expires .* before the rollout's deadline"):
        begin(repository, plan=replace(PLAN, soak=40 * DAY))
    begin(repository, plan=long)


def test_reports_that_are_forged_or_half_written_are_named(repository, tmp_path):
    begin(repository)
    place = tmp_path / "in"
    write(place, (devices(SALTS[1], 10)[0], 2, "COMMITTED", 60), ("cam-0", 2, "ROLLED_BACK", 60))
    assert bucket(SALTS[1], "cam-0") >= 10
    (place / "half").write_bytes((place / "0.json").read_bytes()[:99])
    (place / "long").write_bytes(b" " * 5000)
    (place / "\x1b[2J").write_bytes(b"")
    (place / "folder").mkdir()
    (place / "link").symlink_to(place / "0.json")
    os.mkfifo(place / "pipe")
    decision, _ = advance(repository, "demo", place, access=at(61))
    assert (decision.action, decision.counts.committed, decision.counts.failed) == ("wait", 1, 0)
    words = ["'\\x1b[2J'", "'folder': it is no regular file", "'half': the report was refused", "'link': Too many"]
    words += ["'long': the report was refused: it has 4097 bytes", "'pipe': it is no regular file", "cam-0: rule 2 did"]
    assert len(decision.counts.ignored) == len(words)
    for word, sentence in zip(words, decision.counts.ignored, strict=True):
        assert word in sentence
    for name in ("absent", "in/half"):
        with pytest.raises(RepositoryError, match=r"reports in .* cannot be read: No"):
            advance(repository, "demo", tmp_path / name, access=at(61))


def test_the_same_inputs_give_the_same_bytes(repository, tmp_path):
    other = shutil.copytree(repository, tmp_path / "copy")
    for place in (repository, other):
        begin(place)
        dial(place, "demo", 50, access=at(2))
        revert(place, "demo", access=at(3))
    first, second = (
        {path.relative_to(each): data for path, data in everything(each).items()} for each in (repository, other)
    )
    assert first == second


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b"", "is not JSON"),
        (b"{}", "its format is None"),
        (b'{"format": "seedcnn-staged/1", "entries": []}', "it holds no rollout of 'demo'"),
        (b'{"format": "seedcnn-staged/1", "entries": [{"rule": "", "rollout": {}}]}', "its fields are not those"),
        (b'{"format": "seedcnn-staged/1"}', "entries"),
    ],
)
def test_a_damaged_memory_is_a_sentence(repository, text, match, make_bundle):
    begin(repository)
    assert FORMAT == "seedcnn-staged/1"
    (repository / "rollouts" / "demo.json").write_bytes(text)
    for call in (lambda: status(repository, "demo"), lambda: publish(repository, make_bundle(4), now=at(2).now)):
        with pytest.raises(RepositoryError, match=rf"demo\.json is damaged \(.*{match}.*\); restore it from a copy"):
            call()
    (repository / "rollouts" / "demo.json").unlink()
    assert revert(repository, "demo", access=at(3)) == 1


def test_a_rule_that_was_signed_elsewhere_stops_everything(repository, tmp_path, made):
    begin(repository)
    dial(repository, "demo", 20, access=at(2))
    kept = (repository / "rollouts" / "demo.json").read_bytes()
    revert(repository, "demo", access=at(3))
    (repository / "rollouts" / "demo.json").write_bytes(kept)
    with pytest.raises(
        RepositoryError, match="is not one of its rollout's, which has serial 3: it was signed elsewhere"
    ):
        dial(repository, "demo", 30, access=at(4))


@pytest.mark.parametrize(
    ("probation", "match"),
    [
        ({"answers": 3, "max_bad": 3}, "max_bad is 3; it must be below the 3 answers that are wanted"),
        ({"answers": 3, "latency_ms": 50}, "latency_ms is 50 and max_late 100%; give both"),
        ({"answers": 3, "max_late_per_mille": 10}, "latency_ms is 0 and max_late 1%; give both"),
        ({"seconds": 9, "latency_ms": 50, "max_late_per_mille": 10}, "answers is 0; late answers are a share"),
        ({"seconds": 3 * DAY}, "deadline is 259200 s; it must be longer than the 259200 s of the probation"),
    ],
)
def test_a_probation_that_nothing_or_everything_fails_is_refused(repository, probation, match):
    before = everything(repository)
    with pytest.raises(RepositoryError, match=match):
        begin(repository, plan=replace(PLAN, probation=Probation(**probation)))
    assert everything(repository) == before
