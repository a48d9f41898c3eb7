"""The time before which a server has asked not to be asked again, kept in ``postponed.json``.

It is a courtesy to the server, not a protection: a file that is missing, damaged, past, of another repository or
further ahead than a day (the clock has jumped back) postpones nothing.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seedcnn.files import remove, write_file
from seedcnn.literals import parse_json

__all__ = ["LONGEST", "Postponement", "forget", "postpone", "postponed"]

LONGEST = 86400
"""Seconds that a server can put an update off."""

_FILE, _FORMAT = "postponed.json", "seedcnn-postponed/1"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Postponement:
    """The time until which no update asks the repository at ``url``: seconds since 1970, and why."""

    url: str
    until: int
    reason: str


def _read(home: Path) -> Postponement | None:
    path = home / _FILE
    try:
        value: Any = parse_json(path.read_bytes())
        if value.pop("format") != _FORMAT:
            raise ValueError(f"its format is not {_FORMAT!r}")
        found = Postponement(**value)
        if [type(item) for item in asdict(found).values()] != [str, int, str]:
            raise ValueError("a value has a wrong type")
        return found
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _LOG.warning("%s cannot be read and is ignored: %s", path, error)
        return None


def postponed(home: Path, now: float, url: str | None = None) -> Postponement | None:
    """Return the postponement that is valid at ``now`` (seconds since 1970), or None.

    Args:
        url: of the repository that is to be asked; None for whichever it is about.
    """
    found = _read(home)
    if found is None or url not in (None, found.url) or not 0 < found.until - now <= LONGEST:
        return None
    return found


def postpone(home: Path, url: str, seconds: float, reason: str, now: float) -> None:
    """Put the next update off, at most by :data:`LONGEST` seconds from ``now``.

    Raises:
        OSError: if the file system refuses.
    """
    until = int(now + min(max(seconds, 0.0), LONGEST - 1)) + 1
    value = {"format": _FORMAT, **asdict(Postponement(url, until, reason))}
    write_file(home / _FILE, json.dumps(value).encode(), mode=0o644)


def forget(home: Path) -> None:
    """Remove the postponement, if there is one. Nothing is written if there is none."""
    if (home / _FILE).exists():
        remove(home / _FILE)
