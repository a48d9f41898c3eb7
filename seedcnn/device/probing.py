"""The end of a switch: a probe, then probation or the commit; or else the model before takes its place again.

Until then the journal's newest step of a model is its SWITCH or PROBATION, so that a run which was interrupted is
finished by the next one. These steps name the model before it, if it can be taken back.
"""

from __future__ import annotations

from collections.abc import Callable

from seedcnn.device.bad import bad_files
from seedcnn.device.commands import SECONDS, Ended, run_command
from seedcnn.device.counting import Counts, Moment, figures, moment, read_counts
from seedcnn.device.probation import commit, settle
from seedcnn.device.records import Active, SlotRecord
from seedcnn.device.reverting import PROBE, SETTLED, finish_back, model_before, take_back
from seedcnn.device.slots import Slots
from seedcnn.errors import RolledBackError
from seedcnn.messages import shown

__all__ = ["check_probe", "commit_or_try", "finish_interrupted", "has_trial"]


def _said(ended: Ended) -> str:
    return f"the probe {ended.problem}" + (f": {shown(ended.last_line)}" if ended.last_line else "")


def check_probe(
    slots: Slots,
    slot: str,
    record: SlotRecord,
    before: Active | None,
    probe: str,
    *,
    seconds: float = SECONDS,
    serial: int = 0,
) -> None:
    """Probe a model that was switched to. If that fails, count it as bad and go back. Needs the lock.

    Args:
        slot, record: the model.
        before: the model that was active before it.
        probe: command whose exit status says whether the model works.
        seconds: time limit of the command.
        serial: of the rule.

    Raises:
        RolledBackError: if the probe failed; the model before is active again.
        OSError: if the file system refuses. The journal still says what is due.
    """
    ended = run_command(probe, seconds=seconds)
    if ended.problem:
        times = int(ended.started)
        raise RolledBackError(
            take_back(slots, slot, record, before, _said(ended), PROBE, times=times, serial=serial), PROBE
        )


def has_trial(slots: Slots, slot: str, record: SlotRecord) -> bool:
    """Return whether the last probation that was recorded is of this model in this slot, or cannot be read."""
    try:
        trial = slots.trial()
    except ValueError:
        return True  # a look at the record takes the model back
    return trial is not None and (trial.slot, trial.artefact) == (slot, record.artefact)


def commit_or_try(slots: Slots, slot: str, record: SlotRecord, source: str, serial: int) -> bool:
    """End a switch: begin the model's probation if one was recorded, otherwise commit the model. Needs the lock.

    Args:
        slot, record: the model.
        source: of the model before it; "" for none.
        serial: of the rule.

    Returns:
        Whether it is committed.

    Raises:
        OSError: if the file system refuses.
        SlotError: if the floor cannot be read.
    """
    if not has_trial(slots, slot, record):
        commit(slots, slot, record, serial)
        return True
    slots.set_committed(slot, committed=False)
    slots.journal.append("PROBATION", release=record.release, slot=slot, reason=source, serial=serial)
    return False


def _was_bad(slots: Slots, record: SlotRecord) -> str:
    """Return why the probe has failed with this model before, or ""."""
    reasons = [each.reason for each in bad_files(slots.home) if each.sha256 == record.artefact]
    return next((each for each in reasons if each.startswith("the probe ")), "")


def finish_interrupted(
    slots: Slots,
    before: Active | None,
    probe: str | None = None,
    *,
    seconds: float = SECONDS,
    now: Callable[[], Moment] = moment,
) -> Active | None:
    """Finish a run that was interrupted after its switch, and decide on a probation. Needs the lock.

    Args:
        before: the active model.
        probe: command that decides on a model for which a probe is due; "" does without, None leaves it as it is.
        seconds: time limit of the command.
        now: for the seconds of a probation.

    Returns:
        The model that is active then.

    Raises:
        RolledBackError: if the probe or the probation failed; the model before is active again.
        OSError: if the file system refuses.
    """
    before, finished = finish_back(slots, before)
    last = next((each for each in reversed(slots.journal.entries()) if each.state in SETTLED), None)
    if before is None or finished:
        return before
    if last is None or last.slot != before.source:
        return _settled(slots, before, now)
    record = before.record
    if last.state == "SWITCH" and last.release == record.release:
        if last.code == PROBE:
            if probe is None:
                return before
            earlier = model_before(slots, last.reason)
            if probe:
                check_probe(slots, last.slot, record, earlier, probe, seconds=seconds, serial=last.serial)
            elif known := _was_bad(slots, record):
                sentence = take_back(slots, last.slot, record, earlier, known, PROBE, times=0, serial=last.serial)
                raise RolledBackError(sentence, PROBE)
        commit_or_try(slots, last.slot, record, last.reason, last.serial)
    elif last.state == "PROBATION" and last.release == record.release and not slots.has_trial():
        commit(slots, last.slot, record, last.serial, _numbers(slots, record, last.reason))
    return _settled(slots, before, now)


def _numbers(slots: Slots, record: SlotRecord, source: str) -> dict[str, int]:
    """Return the counts of a model whose record of a probation was removed, beside those of the model before it."""
    earlier = model_before(slots, source)
    old = read_counts(slots.home, earlier.record.sha256) if earlier else Counts()
    return figures(read_counts(slots.home, record.sha256), old)


def _settled(slots: Slots, active: Active, now: Callable[[], Moment]) -> Active | None:
    after, verdict = settle(slots, active, now=now)
    if verdict.action == "back":
        raise RolledBackError(verdict.reason, verdict.code)
    return after
