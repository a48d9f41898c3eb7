"""Answers that the processes of a device have given, and their starts, in ``counted/`` of the home.

Every process adds to one file under a lock of its own, so that counters survive a reboot and kill -9, and many
processes may answer at once. A start is a file that its process holds locked until its first answer: whatever ends the
process, a crash or a power cut, the lock is gone, and the file tells that a start came to nothing. This works across
containers, where process ids say nothing.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from seedcnn.files import drop_temporaries, fsync_directory, lock_file, read_file, remove, write_file
from seedcnn.literals import parse_json

__all__ = [
    "Counts",
    "Moment",
    "Start",
    "add_counts",
    "failed_starts",
    "figures",
    "forget_counts",
    "moment",
    "read_counts",
    "shift",
]

_DIRECTORY, _FILE, _FORMAT = "counted", "counts.json", "seedcnn-counts/1"
_STARTS = "starts"
_KEPT = 4  # models
_WAIT, _PAUSE = 1.0, 0.005  # seconds
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Moment:
    """A time that no clock can move: seconds since the device was started, and which start that was."""

    boot: str
    seconds: float


def moment() -> Moment:
    """Return the present moment."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        boot = ""  # a start is then told from another by seconds that fall
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return Moment(boot, time.clock_gettime(clock))


@dataclass(frozen=True)
class Counts:
    """Counts of a model on this device.

    Attributes:
        answers: that it gave.
        bad: of them, those that were not finite or failed.
        late: of them, those that took too long.
        labels: {label: answers} of those that were finite.
        seconds: that the device was up since counting began, as far as it is recorded.
        boot, mark: the moment up to which ``seconds`` counts.
    """

    answers: int = 0
    bad: int = 0
    late: int = 0
    labels: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    boot: str = ""
    mark: float = 0.0

    def at(self, now: Moment) -> Counts:
        """Return the same counts with the seconds up to now. Of a device that was started anew, those since then."""
        known = self.boot == now.boot and self.mark <= now.seconds
        passed = now.seconds - self.mark if known else now.seconds
        return replace(self, seconds=self.seconds + passed, boot=now.boot, mark=now.seconds)

    def plus(self, other: Counts) -> Counts:
        """Return the sum of the counts of answers; the seconds stay."""
        labels = dict(self.labels)
        for label, number in other.labels.items():
            labels[label] = labels.get(label, 0) + number
        return replace(
            self,
            answers=self.answers + other.answers,
            bad=self.bad + other.bad,
            late=self.late + other.late,
            labels=labels,
        )


def shift(new: Counts, old: Counts) -> int:
    """Return the total variation distance of the labels of two models, per mille; 0 if one of them gave none."""
    total, before = sum(new.labels.values()), sum(old.labels.values())
    if not total or not before:
        return 0
    labels = {*new.labels, *old.labels}
    far = sum(abs(new.labels.get(each, 0) / total - old.labels.get(each, 0) / before) for each in labels)
    return round(500 * far)


def figures(new: Counts, old: Counts) -> dict[str, int]:
    """Return the counts of a model as fields of a journal's entry, beside those of the model before it."""
    compared = sum(old.labels.values()) if new.labels else 0
    return {
        "answers": new.answers,
        "bad": new.bad,
        "late": new.late,
        "shift": shift(new, old),
        "compared": compared,
    }


def _parse(value: Any) -> dict[str, Counts]:
    if value["format"] != _FORMAT:
        raise ValueError(f"its format is {value['format']!r:.80}, not {_FORMAT!r}")
    found = {}
    for sha256, item in value["models"].items():
        counts = Counts(**item)
        whole = (counts.answers, counts.bad, counts.late, *counts.labels.values())
        if any(type(each) is not int or each < 0 for each in whole) or not isinstance(counts.boot, str):
            raise ValueError(f"its entry {item!r:.200} is not valid")
        if any(type(each) not in (int, float) for each in (counts.seconds, counts.mark)) or counts.seconds < 0:
            raise ValueError(f"its entry {item!r:.200} is not valid")
        found[sha256] = counts
    return found


def _read(home: Path) -> dict[str, Counts]:
    path = home / _DIRECTORY / _FILE
    try:
        return _parse(parse_json(read_file(path)))
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        _LOG.warning("%s cannot be read, so counting begins anew: %s", path, error)
        return {}


@contextmanager
def _locked(home: Path) -> Iterator[Path]:
    """Hold the lock of the counts, which nobody holds for long.

    Raises:
        OSError: if the file system refuses, or somebody holds it for longer than a second.
    """
    directory = home / _DIRECTORY
    directory.mkdir(exist_ok=True)
    until = time.monotonic() + _WAIT
    while True:
        try:
            file = lock_file(directory / "lock")
            break
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(_PAUSE)
    with file:
        yield directory


def _write(directory: Path, models: Mapping[str, Counts]) -> None:
    drop_temporaries(directory)
    kept = list(models.items())[-_KEPT:]
    value = {"format": _FORMAT, "models": {sha256: asdict(counts) for sha256, counts in kept}}
    write_file(directory / _FILE, json.dumps(value, separators=(",", ":")).encode(), mode=0o644)


def read_counts(home: Path, sha256: str) -> Counts:
    """Return what this home knows of a bundle. A file that cannot be read is logged and counts as empty."""
    try:
        return _read(home).get(sha256, Counts())
    except OSError as error:
        _LOG.warning("%s cannot be read: %s", home / _DIRECTORY / _FILE, error.strerror or error)
        return Counts()


def add_counts(home: Path, sha256: str, more: Counts, *, now: Callable[[], Moment] = moment) -> Counts:
    """Add the counts of a process to those of the device, and return their sum.

    Raises:
        OSError: if the file system refuses; nothing is added.
    """
    with _locked(home) as directory:
        models = _read(home)
        at = now()
        counts = models.pop(sha256, None) or Counts(boot=at.boot, mark=at.seconds)
        models[sha256] = counts = counts.plus(more).at(at)
        _write(directory, models)
        return counts


def forget_counts(home: Path, sha256: str, *, now: Callable[[], Moment] = moment) -> None:
    """Begin to count a model anew, with no answers, no seconds and no starts.

    Raises:
        OSError: if the file system refuses.
    """
    with _locked(home) as directory:
        models, at = _read(home), now()
        models.pop(sha256, None)
        models[sha256] = Counts(boot=at.boot, mark=at.seconds)
        _write(directory, models)
        for path, _ in _abandoned(directory):
            remove(path)


def _abandoned(directory: Path, sha256: str = "") -> Iterator[tuple[Path, BinaryIO]]:
    """Yield the starts of a model, or of all, whose process is gone, each locked. Needs the lock of the counts."""
    for path in sorted((directory / _STARTS).glob(f"{sha256[:16]}*")):
        try:
            file = lock_file(path)
        except BlockingIOError:
            continue  # its process is alive
        with file:
            yield path, file


def failed_starts(home: Path, sha256: str) -> int:
    """Return how many times processes have opened a model and ended before an answer, since one has answered.

    Processes that were alive together count once, and not while one of them is alive.

    Raises:
        OSError: if the file system refuses.
    """
    if not (home / _DIRECTORY / _STARTS).is_dir():
        return 0
    with _locked(home) as directory:
        dead = {_group(path) for path, _ in _abandoned(directory, sha256)}
        return len(dead - _alive(directory, sha256))


def _group(path: Path) -> str:
    """Return the group of a start: of those that were alive together, as the processes of one application are."""
    return path.name.split(".")[1]


def _alive(directory: Path, sha256: str) -> set[str]:
    """Return the groups of the starts whose process is alive. Needs the lock of the counts."""
    found = set()
    for path in (directory / _STARTS).glob(f"{sha256[:16]}.*"):
        try:
            lock_file(path).close()
        except BlockingIOError:
            found.add(_group(path))
    return found


class Start:
    """The start of a model in this process, until its first answer.

    Raises:
        OSError: if the file system refuses.
    """

    def __init__(self, home: Path, sha256: str) -> None:
        self._home, self._sha256 = home, sha256
        self._file: BinaryIO | None = None
        with _locked(home) as directory:
            (directory / _STARTS).mkdir(exist_ok=True)
            fsync_directory(directory)
            group = min(_alive(directory, sha256), default=secrets.token_hex(8))
            self._path = directory / _STARTS / f"{sha256[:16]}.{group}.{secrets.token_hex(8)}"
            self._file = lock_file(self._path)
            fsync_directory(self._path.parent)

    def answered(self) -> None:
        """Record an answer: this start has succeeded, and earlier ones that came to nothing count no more.

        Raises:
            OSError: if the file system refuses.
        """
        with _locked(self._home) as directory:
            for path, _ in _abandoned(directory, self._sha256):
                remove(path)
            self._remove()

    def close(self) -> None:
        """Take the start back, because its process lets go of the model on purpose.

        Raises:
            OSError: if the file system refuses.
        """
        if self._file is not None:
            with _locked(self._home):
                self._remove()

    def _remove(self) -> None:
        if self._file is not None:
            with self._file:
                self._file = None
                remove(self._path)
