"""Probation: a new model is committed after the answers and seconds that its rule wants, or taken back.

``probation.json`` is written before the switch; it says which model is on probation and by which limits. A model is on
probation as long as that file names what the current slot holds. The limits are those of the rule by which the device
switched; a later rule with another dial does not change them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from seedcnn.device.bad import TRIES
from seedcnn.device.counting import Counts, Moment, add_counts, failed_starts, figures, moment, read_counts
from seedcnn.device.records import Active, SlotRecord, Trial
from seedcnn.device.reverting import SETTLED, finish_back, model_before, take_back
from seedcnn.device.slots import Slots

__all__ = ["CRASHES", "Verdict", "commit", "end", "judge", "settle", "trial_of", "verdict_on"]

CRASHES = 3
"""Starts of a model without an answer after which it is taken back."""

_STEP = 60  # seconds of probation that a power cut may lose


@dataclass(frozen=True)
class Verdict:
    """The state of a probation.

    Attributes:
        action: "wait", "commit" or "back"; "" if no model is on probation.
        reason: the counts, or why it is taken back.
        code: of a model that is taken back, one of :data:`seedcnn.device.reverting.BACK`.
    """

    action: str = ""
    reason: str = ""
    code: str = ""


def trial_of(slots: Slots, active: Active | None) -> Trial | None:
    """Return the probation of the active model, or None if it is not on probation.

    Raises:
        ValueError: if the record of a probation cannot be read.
    """
    if active is None or active.source != slots.current():
        return None
    trial = slots.trial()
    return trial if trial is not None and trial.is_of(active) else None


def judge(trial: Trial, counts: Counts, failed: int) -> Verdict:
    """Decide on a probation.

    Late answers are a share of those that were given, or of those that are wanted while they are more, so that one
    late answer at the beginning does not decide.

    Args:
        counts: with the seconds up to now.
        failed: starts without an answer.
    """
    if failed >= CRASHES:
        return Verdict("back", f"{failed} starts without an answer", "crash-loop")
    if counts.bad > trial.max_bad:
        reason = f"{counts.bad} of {counts.answers} answers were not finite or failed; {trial.max_bad} may"
        return Verdict("back", reason, "bad-answers")
    among = max(counts.answers, trial.answers)
    if trial.latency_ms and counts.late * 1000 > trial.max_late_per_mille * among:
        share = f"{trial.max_late_per_mille / 10:g} %"
        reason = f"{counts.late} of {counts.answers} answers took over {trial.latency_ms} ms; {share} may"
        return Verdict("back", reason, "late-answers")
    progress = f"{counts.answers} of {trial.answers} answers, {int(counts.seconds)} of {trial.seconds} s"
    short = counts.answers < trial.answers or counts.seconds < trial.seconds
    return Verdict("wait" if short else "commit", progress)


def verdict_on(home: Path, trial: Trial, *, now: Callable[[], Moment] = moment) -> Verdict:
    """Decide on a probation by what the home knows. Nothing is written but locks.

    Raises:
        OSError: if the file system refuses.
    """
    return judge(trial, read_counts(home, trial.sha256).at(now()), failed_starts(home, trial.sha256))


def _up_to_now(home: Path, trial: Trial, now: Callable[[], Moment]) -> Counts:
    """Return the counts up to now, and write the seconds down if many have passed or the device was started anew."""
    counts, at = read_counts(home, trial.sha256), now()
    later = counts.at(at)
    if later.seconds - counts.seconds >= _STEP or counts.boot != at.boot or counts.mark > at.seconds:
        return add_counts(home, trial.sha256, Counts(), now=now)
    return later


def commit(slots: Slots, slot: str, record: SlotRecord, serial: int, numbers: dict[str, int] | None = None) -> None:
    """Commit the current model. Needs the lock.

    Args:
        serial: of the rule that it came by.
        numbers: of its probation, see :func:`seedcnn.device.counting.figures`.

    Raises:
        OSError: if the file system refuses. The next run commits it.
        SlotError: if the floor cannot be read.
    """
    slots.end_trial()
    slots.set_committed(slot, committed=True)
    slots.raise_minimum(record)
    slots.journal.append("COMMITTED", release=record.release, slot=slot, serial=serial, **(numbers or {}))


def settle(slots: Slots, active: Active | None, *, now: Callable[[], Moment] = moment) -> tuple[Active | None, Verdict]:
    """Commit the active model or take it back, if its probation has come to an end. Needs the lock.

    A way back that was interrupted is finished first.
    A probation whose record cannot be read ends with the model before: nothing says any more what the new one must do.

    Returns:
        The model that is active then, and the verdict. The reason of "back" is the sentence that says what happened.

    Raises:
        OSError: if the file system refuses.
        SlotError: if the floor cannot be read.
    """
    active, _ = finish_back(slots, active)
    try:
        trial = trial_of(slots, active)
    except ValueError as error:
        return _without_record(slots, active, str(error))
    if trial is None or active is None:
        _drop_leftover(slots)
        return active, Verdict()
    counts = _up_to_now(slots.home, trial, now)
    verdict = judge(trial, counts, failed_starts(slots.home, trial.sha256))
    if verdict.action == "commit":
        commit(slots, trial.slot, active.record, trial.serial, _numbers(slots.home, trial, counts))
    if verdict.action != "back":
        return active, verdict
    return end(slots, active, trial, verdict, counts)


def _drop_leftover(slots: Slots) -> None:
    """Remove the record of a probation that has ended, or whose switch never came, if the journal says so."""
    last = next((each for each in reversed(slots.journal.entries()) if each.state in SETTLED), None)
    if last is not None and last.state in ("COMMITTED", "ROLLED_BACK"):
        slots.end_trial()


def _numbers(home: Path, trial: Trial, counts: Counts) -> dict[str, int]:
    return figures(counts, read_counts(home, trial.compared) if trial.compared else Counts())


def end(
    slots: Slots, active: Active, trial: Trial, verdict: Verdict, counts: Counts, *, times: int = TRIES
) -> tuple[Active | None, Verdict]:
    """Take a model on probation back. Needs the lock. Result and errors as of :func:`settle`.

    Args:
        times: that its file counts as bad.
    """
    before, numbers = model_before(slots, trial.before), _numbers(slots.home, trial, counts)
    sentence = take_back(
        slots,
        trial.slot,
        active.record,
        before,
        verdict.reason,
        verdict.code,
        times=times,
        serial=trial.serial,
        **numbers,
    )
    return before, Verdict("back", sentence, verdict.code)


def _without_record(slots: Slots, active: Active | None, reason: str) -> tuple[Active | None, Verdict]:
    """Deal with a record of a probation that cannot be read."""
    steps = [each for each in slots.journal.entries() if each.state in ("SWITCH", "PROBATION", "COMMITTED")]
    if active is None or not steps or steps[-1].state != "PROBATION" or steps[-1].slot != active.source:
        slots.end_trial()  # it was of an earlier model
        return active, Verdict()
    before = model_before(slots, steps[-1].reason)
    serial = steps[-1].serial
    sentence = take_back(slots, active.source, active.record, before, reason, "record", times=0, serial=serial)
    return before, Verdict("back", sentence, "record")
