"""The way back: a model that was switched to is taken back, and the model before becomes the current one again."""

from __future__ import annotations

import logging
from typing import Any

from seedcnn.device.bad import note_bad
from seedcnn.device.records import Active, SlotRecord
from seedcnn.device.slots import Slots
from seedcnn.errors import SlotError

__all__ = ["BACK", "PROBE", "SUPERSEDED", "model_before", "take_back"]

PROBE, SUPERSEDED = "probe", "superseded"
BACK = (PROBE, "bad-answers", "late-answers", "crash-loop", "operator", "record", SUPERSEDED)
"""Codes of a ROLLED_BACK that took a model back; damage of a slot has none."""

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
    slots.roll_back(slot, before, reason, code, taken=record.release, **details)
    slots.end_trial()
    back = f"release {before.record.release} answers again" if before else "no model is left"
    return f"release {record.release} was taken back: {reason}; {back}"
