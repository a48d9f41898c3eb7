"""``decide``: what counts, in any order and any number of copies, against a plain model."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from seedcnn.bundle.canonical import dump_canonical, load_json
from seedcnn.bundle.report import ENDS, FAILURES, STATES, Report
from seedcnn.bundle.rollout import bucket
from seedcnn.server.deciding import decide
from seedcnn.server.staged import Staged, percent

SALT = "00112233445566778899aabbccddeeff"
T, HOUR, DAY = 1_790_000_000, 3600, 86400
EVERY = sorted((f"cam-{number}" for number in range(3000)), key=lambda name: bucket(SALT, name))
STAGED = Staged("demo", 7, 6, 3, ((10, T),), SALT, (10, 50, 250, 1000), T, 6 * HOUR, 3 * DAY, 20, salts=(SALT,))
FIRST = [name for name in EVERY if bucket(SALT, name) < 10]


def report(device, state="COMMITTED", time=T + 60, **more):
    number = random.Random(f"{device}{state}{time}{more}").getrandbits(128)
    values = {"cohort": "", "family": "demo", "serial": 3, "release": 7, "id": f"{number:032x}", **more}
    return Report(device=device, state=state, time=time, **values)


def test_a_wave_advances_once_it_has_soaked_and_a_device_has_committed():
    late = T + 6 * HOUR
    assert len(FIRST) > 10
    good = [report(name) for name in FIRST]
    assert decide(STAGED, good, late).action == "advance"
    assert decide(STAGED, good, late).reason.endswith("the soak has passed; from 1% to 5%")
    assert decide(STAGED, good, late - 1).action == "wait"
    assert decide(STAGED, [], late).reason == "no device has committed yet"
    assert decide(STAGED, [report(FIRST[0], "PROBATION")], late).action == "wait"
    assert decide(STAGED, good, T - 1).reason == "the clock is before the beginning of the wave"
    last = replace(STAGED, rules=(*STAGED.rules, (1000, T)))
    assert decide(last, good, late).action == "done"
    assert decide(replace(STAGED, state="paused"), good, late).reason == "it is paused"
    for state in ("stopped", "done"):
        assert decide(replace(STAGED, state=state), good, late).reason == f"it has ended ({state})"


def test_one_failure_among_few_stops_and_one_among_many_does_not():
    bad = report(FIRST[0], "ROLLED_BACK", code="probe")
    decision = decide(STAGED, [bad, *(report(name) for name in FIRST[1:])], T + 61)
    assert (decision.action, decision.counts.codes) == ("stop", {"probe": 1})
    assert decision.reason == f"1 of {len(FIRST)} devices failed (0 of them by silence), more than 2%"
    wide = replace(STAGED, rules=((1000, T),))
    share = [bad, *(report(name) for name in EVERY if name != bad.device)][:50]
    assert decide(wide, share, T + 61).action == "wait"  # 1 of 50 is not above 2 %
    assert decide(wide, share[:49], T + 61).action == "stop"
    assert decide(replace(STAGED, stop_at=0), [bad], T + 61).action == "stop"
    assert decide(replace(STAGED, stop_at=1000), [bad], T + 61).action == "wait"


@pytest.mark.parametrize("state", ["ELIGIBLE", "DOWNLOAD", "PROBATION"])
def test_silence_past_the_deadline_is_a_failure(state):
    began = report(FIRST[0], state, T + HOUR)
    again = report(FIRST[0], state, T + 2 * DAY)
    at = T + HOUR + 3 * DAY
    assert decide(STAGED, [again, began], at).counts.trying == 1
    decision = decide(STAGED, [again, began], at + 1)
    assert (decision.action, decision.counts.silent) == ("stop", 1)
    # A late end counts all the same.
    assert decide(STAGED, [began, again, report(FIRST[0], time=at + 5)], at + 9).counts.committed == 1
    # A clock of 1970 does not make a device late at once: it cannot have begun before its rule was signed.
    assert decide(STAGED, [report(FIRST[0], state, 0)], T + 3 * DAY).counts.trying == 1
    assert decide(STAGED, [report(FIRST[0], "HOLD")], at + DAY).counts.silent == 0


def test_the_newest_end_counts():
    ends = [report(FIRST[0], "ROLLED_BACK", T + 9), report(FIRST[0], "COMMITTED", T + 10)]
    assert decide(STAGED, ends, T + 99).counts.committed == 1
    turned = STAGED.turned(50, T + HOUR)
    ends.append(report(FIRST[0], "REFUSED", 5, serial=4))  # a later rule, and a clock that jumped back
    assert decide(turned, ends, T + 2 * HOUR).counts.failed == 1
    both = [report(FIRST[0], "COMMITTED", T + 10), report(FIRST[0], "REFUSED", T + 10)]
    assert decide(STAGED, both, T + 99).counts.failed == 1


def test_devices_that_the_dial_has_left_are_not_waited_for():
    turned = STAGED.turned(50, T + HOUR).turned(10, T + 2 * HOUR)
    left = next(name for name in EVERY if bucket(SALT, name) >= 10)
    began = report(left, "DOWNLOAD", T + HOUR, serial=4)
    assert decide(turned, [began], T + 30 * DAY).counts.silent == 0
    assert decide(turned, [began, report(left, "REFUSED", T + HOUR, serial=4)], T + DAY).counts.failed == 1


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"family": "other"}, "it is about family 'other'"),
        ({"serial": 4}, "its rule has serial 4; those of this rollout are 3 to 3"),
        ({"device": EVERY[-1]}, "rule 3 did not select this device"),
        ({"release": 6}, "it is about release 6, not 7"),
        ({"time": T + 60 + DAY + 1}, "more than a day ahead of"),
    ],
)
def test_a_report_that_does_not_count_is_named(changes, match):
    bad = replace(report(FIRST[0], "ROLLED_BACK"), **changes)
    decision = decide(STAGED, [bad, report(FIRST[1])], T + 60)
    (sentence,) = decision.counts.ignored
    assert sentence == f"report {bad.id} of device {bad.device}: {sentence.split(': ', 1)[1]}"
    assert match in sentence
    assert (decision.counts.failures, decision.counts.committed, decision.action) == (0, 1, "wait")


def test_reports_of_earlier_rollouts_are_counted_and_not_named():
    old = [report(each, "ROLLED_BACK", serial=2) for each in FIRST[:3]]
    counts = decide(STAGED, [*old, report(FIRST[0])], T + 60).counts
    assert (counts.earlier, counts.ignored, counts.committed, counts.failures) == (3, (), 1, 0)


def test_devices_outside_may_report_the_base_or_a_hold():
    others = [report(EVERY[-1], release=6), report(EVERY[-2], "HOLD", release=6), report(EVERY[-3], "HOLD")]
    counts = decide(STAGED, others, T + 99).counts
    assert (counts.ignored, counts.committed, counts.trying) == ((), 0, 0)


def test_reports_with_one_id_count_once_and_the_most_severe_first():
    good = report(FIRST[0])
    forged = replace(good, state="ROLLED_BACK")
    other = replace(good, device=FIRST[1])
    for reports in ([good, forged, other], [other, forged, good], [forged, good, other, good]):
        counts = decide(STAGED, reports, T + 99).counts
        assert (counts.failed, counts.committed) == (1, 0)
        assert counts.ignored == (f"reports with id {good.id} differ; the most severe one counts",)
    assert decide(STAGED, [good, good], T + 99).counts.committed == 1


def test_only_a_cohort():
    lab = replace(STAGED, cohorts=("lab",))
    counts = decide(lab, [report(FIRST[0], cohort="lab"), report(FIRST[1])], T + 99).counts
    assert (counts.committed, len(counts.ignored)) == (1, 1)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"waves": ()}, "waves are missing"),
        ({"waves": (10, 50, 50)}, "waves are 1%, 5%, 5%; each must be above the one before it"),
        ({"waves": (50, 10)}, "waves are 5%, 1%; each must be above"),
        ({"waves": (10, 1001)}, "waves are 1%, 100.1%; each must be from 0.1% to 100%"),
        ({"waves": (0, 10)}, "waves are 0%, 1%; each must be from"),
        ({"soak": 0}, "soak is 0"),
        ({"deadline": -1}, "deadline is -1"),
        ({"stop_at": 1001}, "stop_at is 1001"),
        ({"on_stop": "panic"}, "on_stop is 'panic'; it must be one of revert, pause"),
        ({"state": "odd"}, "state is 'odd'"),
        ({"cohorts": ("Lab",)}, "`cohort`"),
        ({"cohorts": ("b", "a")}, "must be in ascending order"),
        ({"rules": ()}, "rules are missing"),
        ({"rules": ((1001, T),)}, "per_mille is 1001"),
        ({"family": "A"}, "`family`"),
        ({"offer": 0}, "offer is 0"),
    ],
)
def test_what_is_no_rollout_is_refused(changes, match):
    with pytest.raises(ValueError, match=match):
        replace(STAGED, **changes)
    value = {**STAGED.to_json(), **replace_json(changes)}
    with pytest.raises(ValueError, match=match):
        Staged.from_json(value)


def replace_json(changes):
    return {name: list(value) if isinstance(value, tuple) else value for name, value in changes.items()}


def test_what_is_kept_is_read():
    for each in (STAGED, STAGED.turned(50, T + 1).paused(), replace(STAGED, cohorts=("a", "b"), base=0)):
        assert Staged.from_json(load_json(dump_canonical(each.to_json()), "it")) == each
    for value in ({}, {**STAGED.to_json(), "more": 1}, {**STAGED.to_json(), "rules": [1]}):
        with pytest.raises(ValueError, match="its fields are not those of a rollout"):
            Staged.from_json(value)
    assert [percent(each) for each in (0, 1, 10, 15, 1000)] == ["0%", "0.1%", "1%", "1.5%", "100%"]


class Rollouts(RuleBasedStateMachine):
    """A rollout, devices that report, clocks that jump, an operator; the model counts anew each time, naively."""

    @initialize(bad=st.booleans(), stop=st.sampled_from(["revert", "pause"]), random=st.randoms(use_true_random=False))
    def begin(self, bad, stop, random):
        self.rollout, self.now, self.bad, self.random = replace(STAGED, on_stop=stop), T, bad, random
        self.reports = []

    def send(self, state, device, **more):
        number = self.random.getrandbits(128)
        values = {"serial": self.rollout.serial, "time": max(self.now, 0), "id": f"{number:032x}", **more}
        self.reports.append(report(device, state, **values))

    @rule(count=st.integers(1, 40))
    def devices_end(self, count):
        """Of a bad model none commits."""
        if self.rollout.state in ("running", "paused"):
            selected = [name for name in EVERY if bucket(SALT, name) < self.rollout.dial]
            for device in self.random.sample(selected, min(count, len(selected))):
                self.send("ROLLED_BACK" if self.bad else "COMMITTED", device)

    @rule(state=st.sampled_from(["ELIGIBLE", "DOWNLOAD", "PROBATION", "HOLD"]))
    def a_device_begins(self, state):
        selected = [name for name in EVERY if bucket(SALT, name) < self.rollout.dial]
        self.send(state, self.random.choice(selected))

    @rule(state=st.sampled_from(STATES), serial=st.integers(1, 9), release=st.integers(5, 8), ahead=st.booleans())
    def a_report_that_must_not_count(self, state, serial, release, ahead):
        device = self.random.choice(EVERY[-300:])
        self.send(state, device, serial=serial, release=release, time=self.now + (2 * DAY if ahead else 0))
        if bucket(SALT, device) < self.rollout.dial:
            self.reports.pop()

    @rule()
    def duplicates_in_another_order(self):
        self.reports += self.random.sample(self.reports, len(self.reports) // 2)
        self.random.shuffle(self.reports)

    @rule(seconds=st.sampled_from([60, HOUR, 6 * HOUR, 2 * DAY, 4 * DAY, -HOUR, -30 * DAY]))
    def time_passes_or_the_clock_jumps(self, seconds):
        self.now += seconds

    @rule()
    def the_server_starts_again(self):
        self.rollout = Staged.from_json(load_json(dump_canonical(self.rollout.to_json()), "it"))

    @precondition(lambda self: self.rollout.state == "running")
    @rule()
    def pause(self):
        self.rollout = self.rollout.paused()

    @precondition(lambda self: self.rollout.state == "paused")
    @rule()
    def resume(self):
        self.rollout = self.rollout.resumed(max(self.now, 0))

    @rule()
    def advance(self):
        decision = decide(self.rollout, self.reports, self.now)
        action, before = self.model(), self.rollout
        event(decision.action)
        assert decision.action == action, decision
        if action == "advance":
            self.rollout = before.turned(before.following, self.now)
            assert self.rollout.dial == before.following > before.dial
            assert not self.bad
        elif action == "done":
            self.rollout = before.ended("done")
        elif action == "stop":
            self.rollout = before.paused() if before.on_stop == "pause" else before.ended("stopped")

    @rule()
    def a_wave_passes(self):
        self.devices_end(40)
        self.now = max(self.now, self.rollout.started + 6 * HOUR)
        self.advance()

    def model(self):
        """The rules once more, without grouping, ids or helpers."""
        rollout, seen = self.rollout, {}
        for each in self.reports:
            seen[each.id] = each
        ends, began = {}, {}
        for each in sorted(seen.values(), key=lambda one: (one.serial, one.time, one.state in FAILURES)):
            known = 3 <= each.serial <= 2 + len(rollout.rules) and each.release == 7
            if (
                not known
                or each.time > self.now + DAY
                or bucket(SALT, each.device) >= rollout.rules[each.serial - 3][0]
            ):
                continue
            if each.state in ENDS:
                ends[each.device] = each.state
            elif each.state != "HOLD":
                start = max(each.time, rollout.rules[each.serial - 3][1])
                began[each.device] = min(began.get(each.device, start), start)
        silent = [name for name, at in began.items() if name not in ends and self.now > at + 3 * DAY]
        good = sum(state == "COMMITTED" for state in ends.values())
        wrong = len(ends) - good + len(silent)
        if rollout.state != "running":
            return "wait"
        if wrong and wrong / (wrong + good) > 0.02:
            return "stop"
        if self.now < rollout.started + 6 * HOUR or not good:
            return "wait"
        return "advance" if rollout.dial < 1000 else "done"

    @invariant()
    def a_bad_model_stays_in_the_first_wave(self):
        if getattr(self, "bad", False):
            assert all(per_mille == 10 for per_mille, _ in self.rollout.rules)


Rollouts.TestCase.settings = settings(
    max_examples=60, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
TestRollouts = Rollouts.TestCase
