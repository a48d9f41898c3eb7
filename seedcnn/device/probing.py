"""The end of a switch: the new model is committed, or a probe fails and the model before takes its place again.

Until then the journal's newest step of a model is its SWITCH, so that a run which was interrupted is finished by the
next one. The step names the model before it, if a probe decides.
"""

from __future__ import annotations

import logging
from pathlib import Path

from seedcnn.device.bad import bad_files, note_bad
from seedcnn.device.commands import SECONDS, Ended, run_command
from seedcnn.device.records import Active, SlotRecord
from seedcnn.device.slots import Slots
from seedcnn.errors import RolledBackError, SlotError

__all__ = ["CODE", "check_probe", "finish_interrupted"]

CODE = "probe"
_SETTLED = ("SWITCH", "COMMITTED", "ROLLED_BACK")
_LOG = logging.getLogger(__name__)


def _said(ended: Ended) -> str:
    return f"the probe {ended.problem}" + (f": {ended.last_line}" if ended.last_line else "")


def check_probe(
    slots: Slots, slot: str, record: SlotRecord, before: Active | None, probe: str, *, seconds: float = SECONDS
) -> None:
    """Probe a model that was switched to. If that fails, count it as bad and go back. Needs the lock.

    Args:
        slot, record: the model.
        before: the model that was active before it.
        probe: command whose exit status says whether the model works.
        seconds: time limit of the command.

    Raises:
        RolledBackError: if the probe failed; the model before is active again.
        OSError: if the file system refuses. The journal still says what is due.
    """
    ended = run_command(probe, seconds=seconds)
    if ended.problem:
        _take_back(slots, slot, record, before, _said(ended), counts=ended.started)


def _take_back(
    slots: Slots, slot: str, record: SlotRecord, before: Active | None, reason: str, *, counts: bool
) -> None:
    # In this order: killed in between, the next run finds the SWITCH and a bad file, or a ROLLED_BACK that is not done.
    if counts:
        note_bad(slots.home, record.artefact, record.release, reason)
    slots.roll_back(slot, before, reason, CODE)
    back = f"release {before.record.release} answers again" if before else "no model is left"
    raise RolledBackError(f"release {record.release} was taken back: {reason}; {back}")


def _model_before(slots: Slots, source: str) -> Active | None:
    """Return the model that a switch has replaced, else the factory model, else None."""
    for each in (source, "factory"):
        try:
            if each:
                return slots.examine(each)
        except SlotError as error:
            _LOG.warning("%s cannot take its place again: %s", each, error)
    return None


def _was_bad(home: Path, record: SlotRecord) -> str:
    """Return why the probe has failed with this model before, or ""."""
    reasons = [each.reason for each in bad_files(home) if each.sha256 == record.artefact]
    return next((each for each in reasons if each.startswith("the probe ")), "")


def finish_interrupted(
    slots: Slots, before: Active | None, probe: str | None = None, *, seconds: float = SECONDS
) -> Active | None:
    """Finish a run that was interrupted after its switch. Needs the lock.

    Args:
        before: the active model.
        probe: command that decides on a model for which a probe is due; "" commits it, None leaves it as it is.
        seconds: time limit of the command.

    Returns:
        The model that is active then.

    Raises:
        RolledBackError: if the probe failed; the model before is active again.
        OSError: if the file system refuses.
    """
    steps = [entry for entry in slots.journal.entries() if entry.state in _SETTLED]
    last = steps[-1] if steps else None
    if before is None or last is None or last.slot != before.source:
        return before
    if last.state == "ROLLED_BACK" and last.code == CODE:
        earlier = _model_before(slots, steps[-2].reason if len(steps) > 1 else "")
        slots.point(earlier)
        return earlier
    if last.state == "SWITCH" and last.release == before.record.release:
        if last.code == CODE:
            if probe is None:
                return before
            earlier = _model_before(slots, last.reason)
            if probe:
                check_probe(slots, last.slot, before.record, earlier, probe, seconds=seconds)
            elif known := _was_bad(slots.home, before.record):
                _take_back(slots, last.slot, before.record, earlier, known, counts=False)
        slots.raise_minimum(before.record)
        slots.journal.append("COMMITTED", release=last.release, slot=last.slot)
    return before
