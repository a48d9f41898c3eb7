"""Whether a staged rollout goes on, by the reports of devices: a function of its arguments and of nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from seedcnn.bundle.report import ENDS, FAILURES, Report
from seedcnn.server.staged import Staged, percent

__all__ = ["ACTIONS", "Counts", "Decision", "count", "decide"]

ACTIONS = ("wait", "advance", "stop", "done")
_AHEAD = 86400  # seconds that a device's clock may be ahead


@dataclass(frozen=True)
class Counts:
    """Devices that have taken part.

    Attributes:
        committed: whose newest end state is COMMITTED.
        failed: whose newest end state is ROLLED_BACK or REFUSED.
        silent: that began, and reported no end state by the deadline.
        trying: that began, and have time left.
        codes: devices that failed, by the code of the reason; "" for none.
        ignored: a sentence for each report that does not count.
        earlier: reports about rules before this rollout, which do not count either.
    """

    committed: int = 0
    failed: int = 0
    silent: int = 0
    trying: int = 0
    codes: Mapping[str, int] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    earlier: int = 0

    @property
    def failures(self) -> int:
        """Devices that have failed, the silent ones among them."""
        return self.failed + self.silent


@dataclass(frozen=True)
class Decision:
    """One of :data:`ACTIONS`, why, and the counts that it rests on."""

    action: str
    reason: str
    counts: Counts


def _wrong(rollout: Staged, report: Report, now: int) -> str:
    """Return why a report does not count, as the end of a sentence, or ""."""
    if report.family != rollout.family:
        return f"it is about family {report.family!r}"
    if not rollout.first <= report.serial <= rollout.serial:
        return f"its rule has serial {report.serial}; those of this rollout are {rollout.first} to {rollout.serial}"
    if report.time > now + _AHEAD:
        return f"its time is {report.time}, more than a day ahead of {now}"
    if report.state == "HOLD":
        return ""
    if not rollout.selected(report.serial, report.device, report.cohort):
        # Devices that the dial does not reach run the base, and may say so.
        return "" if report.release == rollout.base else f"rule {report.serial} did not select this device"
    if report.release != rollout.offer:
        return f"it is about release {report.release}, not {rollout.offer}"
    return ""


def _severity(report: Report) -> tuple[bool, bool, bytes]:
    return report.state in FAILURES, report.state in ENDS, report.dump()


def _once(reports: Iterable[Report]) -> tuple[list[Report], list[str]]:
    """Return one report for each id: of those that differ a failure, whatever the order, and a sentence about it."""
    found: dict[str, Report] = {}
    differ = set()
    for report in reports:
        before = found.setdefault(report.id, report)
        if before != report:
            differ.add(report.id)
            found[report.id] = max(before, report, key=_severity)
    sentences = [f"reports with id {each} differ; the most severe one counts" for each in sorted(differ)]
    return [found[each] for each in sorted(found)], sentences


def _newest(report: Report) -> tuple[int, int, bool, str]:
    return report.serial, report.time, report.state in FAILURES, report.id


def count(rollout: Staged, reports: Iterable[Report], now: int) -> Counts:
    """Count devices by what they have reported, in any order, each report once.

    Args:
        now: the time in seconds since 1970.
    """
    every, ignored = _once(reports)
    earlier = 0
    devices: dict[str, list[Report]] = {}
    for report in every:
        if report.family == rollout.family and report.serial < rollout.first:
            earlier += 1
        elif why := _wrong(rollout, report, now):
            ignored.append(f"report {report.id} of device {report.device}: {why}")
        elif report.state != "HOLD" and report.release == rollout.offer:
            devices.setdefault(report.device, []).append(report)
    committed = failed = silent = trying = 0
    codes: dict[str, int] = {}
    for device, of_device in devices.items():
        ends = [report for report in of_device if report.state in ENDS]
        if ends:
            last = max(ends, key=_newest)
            if last.state in FAILURES:
                failed += 1
                codes[last.code] = codes.get(last.code, 0) + 1
            else:
                committed += 1
            continue
        if not rollout.selected(rollout.serial, device, of_device[-1].cohort):
            continue  # the dial was turned down before it ended
        # A device cannot have begun before its rule was signed, whatever its clock says.
        began = min(max(each.time, rollout.rules[each.serial - rollout.first][1]) for each in of_device)
        if now > began + rollout.deadline:
            silent += 1
        else:
            trying += 1
    return Counts(committed, failed, silent, trying, dict(sorted(codes.items())), tuple(ignored), earlier)


def _hours(seconds: int) -> str:
    return f"{seconds // 3600} h {seconds % 3600 // 60} min" if seconds >= 3600 else f"{seconds // 60} min"


def decide(rollout: Staged, reports: Iterable[Report], now: int) -> Decision:
    """Decide what should happen to a rollout now.

    Args:
        reports: of devices, in any order and any number of copies.
        now: the time in seconds since 1970.

    Returns:
        "stop" if more than ``stop_at`` per mille of the devices that ended, or were silent past the deadline, have
        failed; "advance" to the next wave, or "done" after the last one, if the soak has passed and a device has
        committed; else "wait".
    """
    counts = count(rollout, reports, now)
    if rollout.state == "paused":
        return Decision("wait", "it is paused", counts)
    if rollout.state != "running":
        return Decision("wait", f"it has ended ({rollout.state})", counts)
    ended = counts.failures + counts.committed
    if counts.failures * 1000 > rollout.stop_at * ended:
        share = f"{counts.failures} of {ended} devices failed ({counts.silent} of them by silence)"
        return Decision("stop", f"{share}, more than {percent(rollout.stop_at)}", counts)
    if now < rollout.started:
        return Decision("wait", "the clock is before the beginning of the wave", counts)
    if (left := rollout.started + rollout.soak - now) > 0:
        return Decision("wait", f"the soak of the wave at {percent(rollout.dial)} lasts {_hours(left)} more", counts)
    if not counts.committed:
        return Decision("wait", "no device has committed yet", counts)
    passed = f"{counts.committed} committed, {counts.failures} failed, and the soak has passed"
    if rollout.following is None:
        return Decision("done", passed, counts)
    return Decision("advance", f"{passed}; from {percent(rollout.dial)} to {percent(rollout.following)}", counts)
