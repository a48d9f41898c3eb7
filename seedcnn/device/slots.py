"""Two slots for models and a pointer to the current one: at any time a reader finds the old model or the new one.

Layout of the home directory::

    root.json             factory trust anchor            config.json    repository URL and family
    metadata/             python-tuf's cache              rollout.json   last verified rollout rule
    slots/a, slots/b      model.bundle and slot.json      current        symbolic link to slots/a or slots/b
    factory.bundle        optional last resort, with its record factory.json
    floor.json            highest release ever committed  journal.json   what the updater did last
    lock                  held by the one process that changes any of this

A slot is complete when it has a ``slot.json``, which is written last, after the self-test. A complete slot is used only
once ``current`` points to it. Readers take no lock.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seedcnn.device.journal import Journal
from seedcnn.device.records import Active, Floor, SlotRecord, dump, parse
from seedcnn.errors import DeviceError, SlotError
from seedcnn.files import fsync_directory, lock_file, remove, replace_symlink, write_file

__all__ = ["MODEL", "SLOTS", "Slots"]

SLOTS = ("a", "b")
MODEL, RECORD = "model.bundle", "slot.json"
_LOG = logging.getLogger(__name__)


class Slots:
    """The home directory of a device. Call the methods that change it with the lock held."""

    def __init__(self, home: str | Path) -> None:
        self.home = Path(home)
        self.journal = Journal(self.home / "journal.json")

    def path(self, slot: str) -> Path:
        """Return the directory of slot "a" or "b"."""
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
        """Return the slot that is not current, the only one that may be written."""
        return "b" if self.current() == "a" else "a"

    def examine(self, slot: str) -> Active:
        """Read a slot ("a", "b" or "factory") and compare its bundle with its record.

        Raises:
            SlotError: if it is incomplete or damaged; the message says how.
        """
        if slot == "factory":
            model, record_path = self.home / "factory.bundle", self.home / "factory.json"
        else:
            model, record_path = self.path(slot) / MODEL, self.path(slot) / RECORD
        try:
            record = parse(SlotRecord, record_path.read_bytes())
            if (size := model.stat().st_size) != record.size:
                raise SlotError(f"{model.name} has {size} bytes; its record says {record.size}")
            data = model.read_bytes()
        except OSError as error:
            raise SlotError(f"{Path(error.filename or model).name}: {error.strerror}") from None
        except ValueError as error:
            raise SlotError(f"{record_path.name}: {error}") from None
        if (digest := hashlib.sha256(data).hexdigest()) != record.sha256:
            raise SlotError(f"{model.name} has SHA-256 {digest[:16]}..; its record says {record.sha256[:16]}..")
        return Active(slot, record, data)

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
        """Make sure that ``current`` points to a good slot or does not exist. Needs the lock.

        Returns:
            The active model, or None if there is none.
        """
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
        release = fallback.record.release if fallback else 0
        self.journal.append("ROLLED_BACK", release=release, slot=slot, reason=f"mark_bad: {reason}")
        if fallback is not None and fallback.source in SLOTS:
            replace_symlink(self.home / "current", f"slots/{fallback.source}")
        else:
            remove(self.home / "current")

    def clear(self, slot: str) -> None:
        """Empty a slot. Its record is removed first, so that it is never mistaken for complete.

        Raises:
            SlotError: if it is the current one.
        """
        if slot == self.current():
            raise SlotError(f"slot {slot} is current and cannot be cleared")
        directory = self.path(slot)
        directory.mkdir(parents=True, exist_ok=True)
        fsync_directory(directory.parent)
        remove(directory / RECORD)
        for path in directory.iterdir():
            path.unlink()
        fsync_directory(directory)

    def complete(self, slot: str, record: SlotRecord) -> None:
        """Complete a staged slot by writing its record."""
        write_file(self.path(slot) / RECORD, dump(record))

    def switch(self, slot: str) -> None:
        """Make a complete slot the current one, by one rename.

        Raises:
            SlotError: if the slot is incomplete or damaged; ``current`` is unchanged.
        """
        self.examine(slot)
        replace_symlink(self.home / "current", f"slots/{slot}")

    def floor(self) -> Floor:
        """Return the anti-rollback floor: the last commit, or a switch whose commit was not recorded."""
        stored = self._stored_floor()
        slot = self.current()
        try:
            record = parse(SlotRecord, (self.path(slot) / RECORD).read_bytes()) if slot else None
        except (OSError, ValueError):
            record = None
        if record is None:
            return stored
        lowest = max(stored.min_release, record.min_release)
        if record.release > stored.release:
            return Floor(record.release, lowest, record.artefact)
        return Floor(stored.release, lowest, stored.sha256)

    def raise_floor(self, record: SlotRecord) -> None:
        """Record a committed release. The floor never goes down."""
        stored = self._stored_floor()
        if record.release >= stored.release:
            lowest = max(stored.min_release, record.min_release)
            write_file(self.home / "floor.json", dump(Floor(record.release, lowest, record.artefact)))

    def _stored_floor(self) -> Floor:
        path = self.home / "floor.json"
        try:
            return parse(Floor, path.read_bytes())
        except FileNotFoundError:
            return Floor()
        except (OSError, ValueError) as error:
            raise SlotError(f"{path} cannot be read, so old releases cannot be told from new ones: {error}") from None
