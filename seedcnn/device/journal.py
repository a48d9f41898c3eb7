"""The journal of update steps, which survives power cuts."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from seedcnn.bundle.ranges import LATEST
from seedcnn.files import write_file
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
    "COMMITTED",
    "REFUSED",
    "ROLLED_BACK",
    "ADAPTED",
    "UNADAPTED",
)
_FORMAT = "seedcnn-journal/1"
_KEPT = 64
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One step of an update, or of adapting.

    Attributes:
        state: one of :data:`STATES`.
        time: seconds since 1970 by the device's clock.
        release, slot: what the step concerns; 0 and "" if nothing.
        reason: of HOLD, REFUSED and ROLLED_BACK; the sets of ADAPTED and UNADAPTED; the model before, of a SWITCH whose
            code is "probe".
        code: "probe" of a SWITCH that a probe decides, and of what it took back; "ready" of a HOLD by that command.
    """

    state: str
    time: int
    release: int = 0
    slot: str = ""
    reason: str = ""
    code: str = ""

    def repeats(self, other: Entry) -> bool:
        """Return whether it is the same refusal or hold as another one, apart from the time."""
        return self.state in ("REFUSED", "HOLD") and replace(self, time=other.time) == other


def _entry(item: dict[str, Any]) -> Entry:
    entry = Entry(**item)
    kinds = [type(value) for value in asdict(entry).values()]
    if kinds != [str, int, int, str, str, str] or entry.state not in STATES or not 0 <= entry.time <= LATEST:
        raise ValueError(f"its entry {item!r:.200} is not valid")
    return entry


class Journal:
    """The latest steps in one small file that is replaced as a whole. Only the holder of the lock writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def entries(self) -> tuple[Entry, ...]:
        """Return the entries, oldest first. A damaged journal is logged and counts as empty."""
        try:
            value: Any = parse_json(self._path.read_bytes())
            if value["format"] != _FORMAT:
                raise ValueError(f"its format is {value['format']!r}, not {_FORMAT!r}")
            return tuple(map(_entry, value["entries"]))
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, KeyError, TypeError) as error:
            _LOG.warning("%s cannot be read, so a new journal is started: %s", self._path, error)
            return ()

    def last(self) -> Entry | None:
        """Return the newest entry, or None."""
        entries = self.entries()
        return entries[-1] if entries else None

    def hold(self, release: int, reason: str, code: str = "") -> None:
        """Record why a release waits, unless that is what was recorded last, apart from checks and refusals.

        Raises:
            OSError: if the file system refuses.
        """
        entry = Entry("HOLD", 0, release, "", reason, code)
        steps = [each for each in self.entries() if each.state not in ("CHECK", "REFUSED")]
        if not steps or not entry.repeats(steps[-1]):
            self.append("HOLD", release=release, reason=reason, code=code)

    def append(self, state: str, *, release: int = 0, slot: str = "", reason: str = "", code: str = "") -> None:
        """Record a step and flush it to the medium.

        Raises:
            ValueError: if the state is not one of :data:`STATES`.
            OSError: if the file system refuses.
        """
        if state not in STATES:
            raise ValueError(f"`state` (={state!r}) must be one of {', '.join(STATES)}")
        entries = list(self.entries())
        entry = Entry(state, int(time.time()), release, slot, reason, code)
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
