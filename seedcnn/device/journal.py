"""The journal of update steps, which survives power cuts."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from seedcnn.bundle.ranges import LATEST
from seedcnn.files import read_file, write_file
from seedcnn.literals import parse_json

__all__ = ["STATES", "Entry", "Journal"]

STATES = (
    "CHECK",
    "HOLD",
    "ELIGIBLE",
    "DOWNLOAD",
    "VERIFY",
    "EXPAND",
    "SELFTEST",
    "SWITCH",
    "PROBATION",
    "COMMITTED",
    "REFUSED",
    "ROLLED_BACK",
    "ADAPTED",
    "UNADAPTED",
)
_FORMAT = "seedcnn-journal/2"
_KEPT = 64
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One step of an update, or of adapting.

    Attributes:
        state: one of :data:`STATES`.
        time: seconds since 1970 by the device's clock.
        release, slot: what the step concerns; 0 and "" if nothing. Of ROLLED_BACK the release that is back.
        reason: of HOLD, REFUSED and ROLLED_BACK; the sets of ADAPTED and UNADAPTED; the model before, of a SWITCH whose
            code is "probe" and of PROBATION.
        code: "probe" of a SWITCH that a probe decides; "ready" of a HOLD by that command; why something was refused or
            taken back, in a word.
        number: of the step, from 1; it rises.
        serial: of the rule; 0 for none.
        taken: of ROLLED_BACK, the release that was taken back; 0 if its record cannot be read.
        answers, bad, late: counted on probation.
        shift: how far the labels of these answers are from those of the model before: the total variation distance of
            the two distributions, per mille. It says nothing if ``compared`` is 0.
        compared: answers of the model before that ``shift`` rests on.
    """

    state: str
    time: int
    release: int = 0
    slot: str = ""
    reason: str = ""
    code: str = ""
    number: int = 0
    serial: int = 0
    taken: int = 0
    answers: int = 0
    bad: int = 0
    late: int = 0
    shift: int = 0
    compared: int = 0

    def repeats(self, other: Entry) -> bool:
        """Return whether it is the same refusal or hold as another one, apart from the time."""
        return self.state in ("REFUSED", "HOLD") and replace(self, time=other.time, number=other.number) == other


_TYPES = {each.name: {"str": str, "int": int}[str(each.type)] for each in fields(Entry)}


def _entry(item: dict[str, Any]) -> Entry:
    entry = Entry(**item)
    kinds = {name: type(value) for name, value in asdict(entry).items()}
    if kinds != _TYPES or entry.state not in STATES or not 0 <= entry.time <= LATEST:
        raise ValueError(f"its entry {item!r:.200} is not valid")
    return entry


class Journal:
    """The latest steps in one small file that is replaced as a whole. Only the holder of the lock writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def entries(self) -> tuple[Entry, ...]:
        """Return the entries, oldest first. A damaged journal is logged and counts as empty."""
        try:
            return self._entries()
        except OSError as error:
            _LOG.warning("%s cannot be read: %s", self._path, error.strerror or error)
            return ()

    def _entries(self) -> tuple[Entry, ...]:
        try:
            value: Any = parse_json(read_file(self._path))
            if value["format"] != _FORMAT:
                raise ValueError(f"its format is {value['format']!r}, not {_FORMAT!r}")
            return tuple(map(_entry, value["entries"]))
        except FileNotFoundError:
            return ()
        except (ValueError, KeyError, TypeError) as error:
            _LOG.warning("%s cannot be read, so a new journal is started: %s", self._path, error)
            return ()

    def last(self) -> Entry | None:
        """Return the newest entry, or None."""
        entries = self.entries()
        return entries[-1] if entries else None

    def hold(self, release: int, reason: str, code: str = "", serial: int = 0) -> None:
        """Record why a release waits, unless that is what was recorded last, apart from checks and refusals.

        Raises:
            OSError: if the file system refuses.
        """
        entry = Entry("HOLD", 0, release, "", reason, code)
        steps = [each for each in self.entries() if each.state not in ("CHECK", "REFUSED")]
        if not steps or not entry.repeats(replace(steps[-1], serial=0)):
            self.append("HOLD", release=release, reason=reason, code=code, serial=serial)

    def append(self, state: str, **details: Any) -> None:
        """Record a step and flush it to the medium.

        Args:
            details: fields of :class:`Entry` but the time and the number.

        Raises:
            ValueError: if the state is not one of :data:`STATES`.
            OSError: if the file system refuses.
        """
        if state not in STATES:
            raise ValueError(f"`state` (={state!r}) must be one of {', '.join(STATES)}")
        entries = list(self._entries())
        number = 1 + max((each.number for each in entries), default=0)
        entry = Entry(state, int(time.time()), number=number, **details)
        # Checks that find nothing, or the same refusal again, must not push the history out.
        if entries and entries[-1].state == state == "CHECK":
            entries.pop()
        elif len(entries) > 1 and entries[-1].state == "CHECK" and entry.repeats(entries[-2]):
            check = entries.pop()
            entries.pop()
            if entries and entries[-1].state == "CHECK":
                entries.pop()
            entries.append(check)
        entries.append(entry)
        value = {"format": _FORMAT, "entries": [asdict(entry) for entry in entries[-_KEPT:]]}
        write_file(self._path, json.dumps(value, separators=(",", ":")).encode(), mode=0o644)
