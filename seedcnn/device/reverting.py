"""The way back: a model that was switched to is taken back, and the model before becomes the current one again."""

from __future__ import annotations

import logging
from typing import Any

from seedcnn.device.bad import note_bad
from seedcnn.device.journal import Entry
from seedcnn.device.records import Active, SlotRecord
from seedcnn.device.slots import SLOTS, Slots
from seedcnn.errors import SlotError

__all__ = ["BACK", "PROBE", "SETTLED", "SUPERSEDED", "finish_back", "model_before", "take_back"]

PROBE, SUPERSEDED = "probe", "superseded"
BACK = (PROBE, "bad-answers", "late-answers", "crash-loop", "operator", "record", SUPERSEDED)
"""Codes of a ROLLED_BACK that took a model back; damage of a slot has none."""

SETTLED = ("SWITCH", "PROBATION", "COMMITTED", "ROLLED_BACK")
"""Steps that say which model a device should have."""

_LOG = logging.getLogger(__name__)


def model_before(slots: Slots, source: str) -> Active | None:
    """Return the model that a switch has replaced, else the factory model, else None."""
    for each in (source, "factory"):
        try:
            if each:
                return slots.examine(each)
        except SlotError as error:
            _LOG.warning("%s cannot take its place again: %s", each, error)
    return None


def finish_back(slots: Slots, active: Active | None) -> tuple[Active | None, Entry | None]:
    """Finish a way back that was journalled when the run was interrupted. Needs the lock.

    Returns:
        The model that is active then, and the step that was finished, if there was one.

    Raises:
        OSError: if the file system refuses. The journal still says what is due.
    """
    last = next((each for each in reversed(slots.journal.entries()) if each.state in SETTLED), None)
    if active is None or last is None or (last.state, last.slot) != ("ROLLED_BACK", active.source):
        return active, None
    if last.code not in BACK:
        return active, None
    before = _of_release(slots, last.release, active.source)
    slots.set_committed(last.slot, committed=False)
    slots.point(before)
    slots.end_trial()
    return before, last


def _of_release(slots: Slots, release: int, without: str) -> Active | None:
    """Return the model of a release, else the factory model, else None; the slot ``without`` is left out."""
    for source in SLOTS:
        if source == without or not release:
            continue
        try:
            found = slots.examine(source)
        except SlotError as error:
            _LOG.warning("%s cannot take its place again: %s", source, error)
            continue
        if found.record.release == release:
            return found
    return model_before(slots, "") if release else None


def take_back(
    slots: Slots,
    slot: str,
    record: SlotRecord,
    before: Active | None,
    reason: str,
    code: str,
    *,
    times: int,
    **details: Any,
) -> str:
    """Make the model ``before`` the current one instead of ``record`` in ``slot``. Needs the lock.

    Args:
        before: None leaves no model.
        code: one of :data:`BACK`.
        times: that the file counts as bad, see :func:`seedcnn.device.bad.note_bad`; 0 for no fault of its own.
        details: more fields of :class:`seedcnn.device.journal.Entry`.

    Returns:
        What happened, as a sentence.

    Raises:
        OSError: if the file system refuses. The journal still says what is due.
    """
    # In this order: killed in between, the next run finds a bad file, or a ROLLED_BACK that is not done.
    if times:
        note_bad(slots.home, record.artefact, record.release, reason, times=times)
    release = before.record.release if before else 0
    details |= {"release": release, "slot": slot, "reason": reason, "code": code, "taken": record.release}
    slots.journal.append("ROLLED_BACK", **details)
    slots.set_committed(slot, committed=False)
    slots.point(before)
    slots.end_trial()
    back = f"release {before.record.release} answers again" if before else "no model is left"
    return f"release {record.release} was taken back: {reason}; {back}"
