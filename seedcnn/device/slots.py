"""Two slots for models and a pointer to the current one: at any time a reader finds the old model or the new one.

Layout of the home directory::

    root.json             factory trust anchor            config.json    repository URL and family
    metadata/             python-tuf's cache              rollout.json   last verified rollout rule
    slots/a, slots/b      symbolic links into models/     current        symbolic link to slots/a or slots/b
    models/1, 2, 3        model.bundle and slot.json      lock           held by the process that changes any of this
    factory.bundle        optional last resort, with its record factory.json
    floor.json            newest rule and lowest release  journal.json   what the updater did last
    adapted.json          norm statistics of this place, of the active bundle
    download/             the file that is being downloaded, as far as it has come
    bad.json              files that failed here         postponed.json  until when the server asked to wait
    probation.json        model that may be taken back   counted/        answers and starts of the models
    reports/              what is to be reported

The slots point to two of the three places in ``models``. An update is staged in the third, so that a refused one leaves
both slots as they were. A place is complete when it has a ``slot.json``, which is written last, after the self-test.
Then one rename points the slot that is not current to it, and a second one points ``current`` to that slot. Readers
take no lock.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from seedcnn.device.journal import Journal
from seedcnn.device.records import Active, Floor, SlotRecord, Trial, dump, parse
from seedcnn.errors import DeviceError, SlotError
from seedcnn.files import drop_temporaries, fsync_directory, lock_file, read_file, remove, replace_symlink, write_file

__all__ = ["MODEL", "SLOTS", "Slots"]

SLOTS = ("a", "b")
PLACES = ("1", "2", "3")
MODEL, RECORD, _TRIAL = "model.bundle", "slot.json", "probation.json"
_UNCOMMITTED = "uncommitted"  # in a place whose model was taken back, or has never ended a probation
_LOG = logging.getLogger(__name__)


def _examine(source: str, model: Path, record_path: Path) -> Active:
    """Read a bundle and compare it with its record; raise SlotError if it is incomplete or damaged."""
    try:
        record = parse(SlotRecord, read_file(record_path))
        if (size := model.stat().st_size) != record.size:
            raise SlotError(f"{model.name} has {size} bytes; its record says {record.size}")
        data = read_file(model)
    except OSError as error:
        raise SlotError(f"{Path(error.filename or model).name}: {error.strerror}") from None
    except ValueError as error:
        raise SlotError(f"{record_path.name}: {error}") from None
    if (digest := hashlib.sha256(data).hexdigest()) != record.sha256:
        raise SlotError(f"{model.name} has SHA-256 {digest[:16]}..; its record says {record.sha256[:16]}..")
    return Active(source, record, data)


def _raised(floor: Floor, record: SlotRecord) -> Floor:
    return replace(floor, min_release=max(floor.min_release, record.min_release))


class Slots:
    """The home directory of a device. Call the methods that change it with the lock held."""

    def __init__(self, home: str | Path) -> None:
        self.home = Path(home)
        self.journal = Journal(self.home / "journal.json")

    def path(self, slot: str) -> Path:
        """Return the path of slot "a" or "b"; it exists once a model was installed there."""
        if slot not in SLOTS:
            raise ValueError(f"`slot` (={slot!r}) must be 'a' or 'b'")
        return self.home / "slots" / slot

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock, so that no other process changes this home.

        Raises:
            DeviceError: if another process holds it, or the home cannot be written.
        """
        try:
            file = lock_file(self.home / "lock")
        except BlockingIOError:
            raise DeviceError(f"{self.home} is locked: another update is running") from None
        except OSError as error:
            raise DeviceError(f"{self.home} cannot be locked: {error.strerror}") from None
        with file:
            yield

    def current(self) -> str | None:
        """Return the slot that ``current`` points to, or None before the first update."""
        try:
            target = os.readlink(self.home / "current")
        except OSError:
            return None
        name = target.removeprefix("slots/")
        return name if name in SLOTS and target == f"slots/{name}" else None

    def staging(self) -> str:
        """Return the slot that is not current, the only one that may be replaced."""
        return "b" if self.current() == "a" else "a"

    @property
    def models(self) -> Path:
        """The directory of the three places."""
        return self.home / "models"

    def _place(self, slot: str) -> Path | None:
        """Return the place that a slot points to, or None if it points to none."""
        try:
            target = os.readlink(self.path(slot))
        except OSError:
            return None
        name = target.removeprefix("../models/")
        return self.models / name if name in PLACES and target == f"../models/{name}" else None

    def examine(self, slot: str) -> Active:
        """Read a slot ("a", "b" or "factory") and compare its bundle with its record.

        Raises:
            SlotError: if it is incomplete or damaged; the message says how.
        """
        if slot == "factory":
            return _examine(slot, self.home / "factory.bundle", self.home / "factory.json")
        # Resolved once: an update that replaces the slot meanwhile must not mix two models.
        directory = self._place(slot) or self.path(slot)
        return _examine(slot, directory / MODEL, directory / RECORD)

    def active(self) -> Active:
        """Return the active model: the current slot, else the other slot, else the factory model.

        A damaged current slot is logged and, if the home can be locked and written, journalled and replaced as the
        current one (mark_bad).

        Raises:
            SlotError: if no model is usable.
        """
        while True:
            slot = self.current()
            if slot is None:
                return self._factory("no update has been installed")
            try:
                return self.examine(slot)
            except SlotError as error:
                if self.current() != slot:
                    continue
                reason = f"slot {slot} is bad: {error}"
            fallback = self._fallback(slot, reason)
            _LOG.warning("%s; using %s", reason, fallback.source)
            self._try_mark_bad(slot, fallback, reason)
            return fallback

    def repair(self) -> Active | None:
        """Let ``current`` point to a good slot or not exist, and drop what killed writers left. Needs the lock.

        Returns:
            The active model, or None if there is none.
        """
        for directory in (self.home, self.home / "slots", *(self.models / name for name in PLACES)):
            drop_temporaries(directory)
        self.discard()
        slot = self.current()
        try:
            return self._factory("no update has been installed") if slot is None else self.examine(slot)
        except SlotError as error:
            if slot is None:
                return None
            reason = f"slot {slot} is bad: {error}"
        try:
            fallback = self._fallback(slot, reason)
        except SlotError:
            fallback = None
        _LOG.warning("%s; using %s", reason, fallback.source if fallback else "no model")
        self._mark_bad(slot, fallback, reason)
        return fallback

    def _factory(self, reason: str) -> Active:
        try:
            active = self.examine("factory")
        except SlotError as error:
            raise SlotError(f"{self.home} has no usable model: {reason}, and no factory model ({error})") from None
        if active.record.release < self.floor().min_release:
            raise SlotError(
                f"{self.home} has no usable model: {reason}, and the factory model's release "
                f"{active.record.release} is below the minimum release {self.floor().min_release}"
            )
        return active

    def _fallback(self, bad: str, reason: str) -> Active:
        other = "b" if bad == "a" else "a"
        try:
            active = self.examine(other)
            if not self.is_committed(other):
                raise SlotError(f"release {active.record.release} was taken back, or has not ended its probation")
            if active.record.release < self.floor().min_release:
                raise SlotError(f"release {active.record.release} is below the minimum {self.floor().min_release}")
            return active
        except SlotError as error:
            return self._factory(f"{reason}; slot {other}: {error}")

    def _try_mark_bad(self, slot: str, fallback: Active, reason: str) -> None:
        try:
            with self.lock():
                if self.current() == slot and not self._is_good(slot):
                    self._mark_bad(slot, fallback, reason)
        except (DeviceError, OSError) as error:
            _LOG.warning("slot %s could not be marked bad: %s", slot, error)

    def _is_good(self, slot: str) -> bool:
        try:
            self.examine(slot)
        except SlotError:
            return False
        return True

    def _mark_bad(self, slot: str, fallback: Active | None, reason: str) -> None:
        """Journal that a slot is bad, and make the model ``fallback`` the current one; None for no model."""
        release = fallback.record.release if fallback else 0
        self.journal.append("ROLLED_BACK", release=release, slot=slot, reason=reason)
        self.point(fallback)

    def point(self, fallback: Active | None) -> None:
        """Make a model that was examined the current one: one of the slots, or the factory model or None."""
        if fallback is not None and fallback.source in SLOTS:
            replace_symlink(self.home / "current", f"slots/{fallback.source}")
        else:
            remove(self.home / "current")

    def discard(self) -> None:
        """Remove every place that no slot points to. Nothing is written if there is none."""
        used = {self._place(slot) for slot in SLOTS}
        unused = [place for place in (self.models / name for name in PLACES) if place not in used and place.is_dir()]
        for place in unused:
            for path in place.iterdir():
                path.unlink()
            place.rmdir()
        if unused:
            fsync_directory(self.models)

    def fresh(self) -> Path:
        """Return an empty place that no slot points to, for staging.

        Raises:
            SlotError: if a slot is no symbolic link, because another version of seedcnn made this home.
        """
        for path in map(self.path, SLOTS):
            if path.exists() and not path.is_symlink():
                raise SlotError(f"{path} must be a symbolic link; another version made {self.home}: initialise it anew")
        self.discard()
        used = {self._place(slot) for slot in SLOTS}
        place = next(self.models / name for name in PLACES if self.models / name not in used)
        place.mkdir()
        fsync_directory(self.models)
        return place

    def complete(self, place: Path, record: SlotRecord) -> None:
        """Complete a staged model by writing its record."""
        write_file(place / RECORD, dump(record), mode=0o644)

    def switch(self, slot: str, place: Path) -> None:
        """Exchange a slot for a complete staged model and make it the current one.

        Raises:
            SlotError: if the staged model is incomplete or damaged, or the slot is current. Both slots are unchanged.
            OSError: if the file system refuses. Both slots are unchanged.
        """
        if slot == self.current():
            raise SlotError(f"slot {slot} is current and cannot be replaced")
        _examine(slot, place / MODEL, place / RECORD)
        before = self._place(slot)
        replace_symlink(self.path(slot), f"../models/{place.name}")
        try:
            replace_symlink(self.home / "current", f"slots/{slot}")
        except BaseException as error:
            if self.current() != slot:
                if before is None:
                    remove(self.path(slot))
                else:
                    replace_symlink(self.path(slot), f"../models/{before.name}")
                raise
            if not isinstance(error, OSError):
                raise
            _LOG.warning("the switch to slot %s may be lost in a power cut: %s", slot, error)

    def turn(self, slot: str) -> None:
        """Make the slot that is not current, which holds a whole model, the current one.

        Raises:
            SlotError, OSError: if its model is damaged, the slot is current, or the file system refuses: all stays.
        """
        if slot == self.current():
            raise SlotError(f"slot {slot} is current already")
        self.examine(slot)
        try:
            replace_symlink(self.home / "current", f"slots/{slot}")
        except OSError as error:
            if self.current() != slot:
                raise
            _LOG.warning("the switch to slot %s may be lost in a power cut: %s", slot, error)

    def floor(self) -> Floor:
        """Return the anti-rollback floor, with the minimum release of a model whose commit was not recorded.

        A model on probation does not count yet.

        Raises:
            SlotError: if it cannot be read.
        """
        stored = self._stored_floor()
        slot = self.current()
        try:
            record = parse(SlotRecord, (self.path(slot) / RECORD).read_bytes()) if slot else None
        except (OSError, ValueError):
            record = None
        return stored if record is None or self._is_on_trial(record) else _raised(stored, record)

    def trial(self) -> Trial | None:
        """Return the record of the last probation, if it was not removed at its end.

        Raises:
            ValueError: if it cannot be read.
        """
        path = self.home / _TRIAL
        try:
            return parse(Trial, read_file(path))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from None

    def is_committed(self, slot: str) -> bool:
        """Return whether the model of a slot may answer where no rule and no probation looks after it."""
        return not (self.path(slot) / _UNCOMMITTED).exists()

    def set_committed(self, slot: str, committed: bool) -> None:
        """Note whether the model of a slot may do so."""
        mark = self.path(slot) / _UNCOMMITTED
        if not committed:
            write_file(mark, b"", mode=0o644)
        elif mark.exists():
            remove(mark)

    def has_trial(self) -> bool:
        """Return whether a probation was recorded whose end was not."""
        return (self.home / _TRIAL).exists()

    def begin_trial(self, trial: Trial) -> None:
        """Record, before a switch, that the model which it brings is on probation."""
        write_file(self.home / _TRIAL, dump(trial), mode=0o644)

    def end_trial(self) -> None:
        """Remove the record of a probation."""
        if self.has_trial():
            remove(self.home / _TRIAL)

    def _is_on_trial(self, record: SlotRecord) -> bool:
        try:
            trial = self.trial()
        except ValueError:
            return True  # it may be, and then it must not close the way back
        return trial is not None and trial.artefact == record.artefact

    def raise_minimum(self, record: SlotRecord) -> None:
        """Record the minimum release of a committed model. It never goes down."""
        stored = self._stored_floor()
        if (floor := _raised(stored, record)) != stored:
            self.write_floor(floor)

    def follow(self, floor: Floor) -> None:
        """Record that a newer rule was seen. The minimum release stays that of the models that were committed."""
        self.write_floor(replace(floor, min_release=self._stored_floor().min_release))

    def write_floor(self, floor: Floor) -> None:
        """Replace the floor."""
        write_file(self.home / "floor.json", dump(floor), mode=0o644)

    def _stored_floor(self) -> Floor:
        path = self.home / "floor.json"
        try:
            return parse(Floor, read_file(path))
        except FileNotFoundError:
            return Floor()
        except (OSError, ValueError) as error:
            raise SlotError(f"{path} cannot be read, so old rules cannot be told from new ones: {error}") from None
