"""Reports that wait on disk, in ``reports/`` of the home, until somebody takes them.

They are made from the journal: whatever is journalled is reported once a run gets to it, so that a kill between the two
loses nothing, and a report can come twice with the same id. Together they take at most :data:`MOST` bytes: the oldest
progress goes first, then the oldest commit, and failures last. Nothing here is ever a reason to undo an update.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from seedcnn.bundle.report import CODES, FAILURES, STATES, Report
from seedcnn.device.config import Config
from seedcnn.device.journal import Entry
from seedcnn.device.slots import Slots
from seedcnn.errors import DeviceError, UpdateError
from seedcnn.files import drop_temporaries, fsync_directory, read_file, write_file

__all__ = ["MOST", "deliver", "queue_reports", "queued", "tell"]

MOST = 256 << 10
"""Bytes of all reports that wait."""

_DIRECTORY, _CURSOR = "reports", "reported"
_LONGEST = 500  # characters of a reason
_SOFT = ("transfer", "metadata", "known", "stopped")
"""Codes of refusals that are no end: they may come right by themselves, were reported before, or a signal came."""

_LOG = logging.getLogger(__name__)


def report_of(entry: Entry, config: Config) -> Report | None:
    """Return the report of a step, or None if it is not about a rule or no report tells it."""
    release = entry.taken if entry.state == "ROLLED_BACK" else entry.release
    if entry.state not in STATES or not entry.serial or not release:
        return None
    if entry.code == "superseded" or (entry.state == "REFUSED" and entry.code in _SOFT):
        return None
    explains = entry.state in (*FAILURES, "HOLD")
    code = entry.code if explains and entry.code != "ready" else ""
    text = entry.reason if explains else ""
    name = f"{config.device_id} {entry.number} {entry.serial} {entry.state} {entry.time}"
    return Report(
        hashlib.sha256(name.encode()).hexdigest()[:32],
        config.device_id,
        config.cohort,
        config.family,
        entry.serial,
        release,
        entry.state,
        entry.time,
        code if code in CODES else "other",
        text[:_LONGEST],
        entry.answers,
        entry.bad,
        entry.late,
        entry.shift,
        entry.compared,
    )


def queued(home: Path) -> list[Path]:
    """Return the files of the reports that wait, oldest first."""
    return sorted((home / _DIRECTORY).glob("*.json"))


def _cursor(directory: Path) -> int:
    try:
        return int(read_file(directory / _CURSOR))
    except (FileNotFoundError, ValueError):
        return 0


def _make_room(home: Path, size: int) -> None:
    """Drop reports, the least important first, until another one of ``size`` bytes fits."""

    def rank(path: Path) -> tuple[int, str]:
        state = path.stem.partition("-")[2]
        return (2 if state in FAILURES else state == "COMMITTED"), path.name

    waiting = {path: path.stat().st_size for path in queued(home)}
    for path in sorted(waiting, key=rank):
        if sum(waiting.values()) + size <= MOST:
            return
        _LOG.warning("the report %s is dropped: more than %d bytes of reports wait", path.name, MOST)
        del waiting[path]
        path.unlink()


def queue_reports(slots: Slots, config: Config) -> None:
    """Queue what was journalled and not reported yet. Needs the lock. A failure is logged: the next run tries again."""
    directory = slots.home / _DIRECTORY
    entries = slots.journal.entries()
    newest = entries[-1].number if entries else 0
    try:
        cursor = _cursor(directory)
        if cursor > newest:
            cursor = 0  # the journal was begun anew
        found = [(entry, report_of(entry, config)) for entry in entries if entry.number > cursor]
        if all(report is None for _, report in found):
            return
        directory.mkdir(exist_ok=True)
        drop_temporaries(directory)
        for entry, report in found:
            if report is not None:
                data = report.dump()
                _make_room(slots.home, len(data))
                write_file(directory / f"{entry.number:012}-{entry.state}.json", data, mode=0o644)
        write_file(directory / _CURSOR, str(newest).encode(), mode=0o644)
    except OSError as error:
        _LOG.warning("reports could not be queued: %s (%s)", error.strerror or error, error.filename or directory)


def deliver(home: Path, directory: Path) -> int:
    """Move the reports that wait to another directory, each to ``ID.json``, and return how many. Needs the lock.

    Each is flushed there before it is removed here, so that it arrives at least once.

    Raises:
        DeviceError: if that directory does not exist or takes no file; what was not moved goes on waiting.
    """
    moved = 0
    try:
        if not directory.is_dir():
            raise NotADirectoryError(None, "it is no directory", str(directory))
        for path in queued(home):
            data = path.read_bytes()
            try:
                name = Report.parse(data).id
            except UpdateError as error:  # it must not keep those behind it back
                _LOG.warning("%s has rotted and is dropped: %s", path, error)
                path.unlink()
                continue
            # Others write there, too, so a temporary file that a killed run left is known by its name only.
            write_file(directory / f"{name}.json", data, mode=0o644, token=name)
            path.unlink()
            moved += 1
        if moved:
            fsync_directory(home / _DIRECTORY)
    except OSError as error:
        raise DeviceError(f"reports could not be put into {directory}: {error.strerror or error}") from None
    return moved


def tell(slots: Slots, config: Config, directory: str | Path | None) -> None:
    """Queue what is to be reported and hand it over. Needs the lock. A failure is logged: the next run tries again.

    Args:
        directory: see :func:`deliver`; None leaves the reports in the home.
    """
    queue_reports(slots, config)
    if directory is not None:
        try:
            deliver(slots.home, Path(directory))
        except DeviceError as error:
            _LOG.warning("%s; they wait in the home", error)
