"""Files that were what was signed and yet could not be used, kept in ``bad.json``, so that they are not fetched again.

A file counts by its SHA-256. Only its own fault counts: it does not open, expand or pass its self-test, or is of
another family or release. A transfer that fails, a full disk or a lack of memory does not count. An entry is valid for
the software that made it: newer software may read what an older one could not.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from seedcnn.device.choice import installed_runtimes
from seedcnn.errors import BundleError, DeviceError, SelfTestError, UpdateError
from seedcnn.files import read_file, write_file
from seedcnn.literals import parse_json
from seedcnn.terminal import version

__all__ = ["TRIES", "Bad", "bad_files", "find_bad", "forget_bad", "is_own_fault", "note_bad"]

TRIES = 2
"""Times that one file is tried."""

_FILE, _FORMAT, _KEPT, _LONGEST = "bad.json", "seedcnn-bad/1", 16, 500
_SHORTEST = 8
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bad:
    """A file that could not be used.

    Attributes:
        sha256: of the published file, in hexadecimal.
        release: of which it is.
        count: how often it failed.
        time: of the last failure, in seconds since 1970 by the device's clock.
        reason: of the last failure.
        software: versions of seedcnn and the runtimes with which it failed.
    """

    sha256: str
    release: int
    count: int
    time: int
    reason: str
    software: str


def is_own_fault(error: BaseException) -> bool:
    """Return whether a failure to open, expand or self-test a verified file is that file's own fault."""
    if not isinstance(error, (BundleError, SelfTestError, UpdateError)):
        return False
    # The runtimes report a lack of memory like every other failure.
    return not any(
        words in str(error).lower() for words in ("bad_alloc", "bad allocation", "allocate", "out of memory")
    )


def _software() -> str:
    versions = {"seedcnn": version(), **installed_runtimes()}
    return ", ".join(f"{name} {number}" for name, number in versions.items())


def bad_files(home: Path) -> tuple[Bad, ...]:
    """Return what this home and this software know, oldest failure first. A damaged list is logged and is empty."""
    try:
        return _read(home)
    except OSError as error:
        _LOG.warning("%s cannot be read: %s", home / _FILE, error.strerror or error)
        return ()


def _read(home: Path) -> tuple[Bad, ...]:
    path = home / _FILE
    try:
        value: Any = parse_json(read_file(path))
        if value["format"] != _FORMAT:
            raise ValueError(f"its format is {value['format']!r:.80}, not {_FORMAT!r}")
        found = tuple(Bad(**item) for item in value["files"])
        for each in found:
            if [type(item) for item in asdict(each).values()] != [str, int, int, int, str, str]:
                raise ValueError(f"its entry {each!r:.200} is not valid")
    except FileNotFoundError:
        return ()
    except (ValueError, KeyError, TypeError) as error:
        _LOG.warning("%s cannot be read, so a new list is started: %s", path, error)
        return ()
    software = _software()
    return tuple(each for each in found if each.software == software)


def find_bad(home: Path, sha256: str) -> Bad | None:
    """Return the entry of a file that has failed :data:`TRIES` times, or None if it may be tried."""
    return next((each for each in bad_files(home) if each.sha256 == sha256 and each.count >= TRIES), None)


def _write(home: Path, files: Sequence[Bad]) -> None:
    value = {"format": _FORMAT, "files": [asdict(each) for each in files[-_KEPT:]]}
    write_file(home / _FILE, json.dumps(value).encode(), mode=0o644)


def note_bad(home: Path, sha256: str, release: int, reason: str, *, times: int = 1) -> None:
    """Count a failure. Needs the lock.

    Args:
        times: that it counts; :data:`TRIES` for a file that must not be tried again.

    Raises:
        OSError: if the file system refuses.
    """
    known = _read(home)
    count = times + max((each.count for each in known if each.sha256 == sha256), default=0)
    entry = Bad(sha256, release, count, int(time.time()), reason[:_LONGEST], _software())
    _write(home, [*(each for each in known if each.sha256 != sha256), entry])


def forget_bad(home: Path, digest: str) -> Bad:
    """Remove one entry, so that its file is tried again. Needs the lock.

    Args:
        digest: the file's SHA-256 in hexadecimal, or its first eight digits or more.

    Raises:
        DeviceError: if no entry, or more than one, begins with it, or the list cannot be written.
    """
    known = bad_files(home)
    found = [each for each in known if each.sha256.startswith(digest.lower())]
    if len(digest) < _SHORTEST or len(found) != 1:
        names = ", ".join(each.sha256 for each in known) or "none"
        raise DeviceError(
            f"{digest!r:.80} is not the SHA-256 of one bad file, nor {_SHORTEST} or more of its first digits; "
            f"{home} knows {names}"
        )
    try:
        _write(home, [each for each in known if each != found[0]])
    except OSError as error:
        raise DeviceError(f"{home} cannot forget {digest}: {error.strerror}") from None
    return found[0]
