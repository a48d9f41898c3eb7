"""One update from start to finish: CHECK, ELIGIBLE, DOWNLOAD, VERIFY, EXPAND, SELFTEST, SWITCH, PROBATION, COMMITTED.

Or else HOLD, REFUSED or ROLLED_BACK. A rule without a probation commits at once. The current slot answers until the new
one has passed its self-test. Every step is journalled before it starts, which distinguishes a power cut from a refusal;
a check that finds nothing new writes nothing, a hold is journalled once, and a refusal that is repeated once a day.
numpy and the runtime are imported only after a bundle has been verified.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seedcnn.bundle.rollout import Probation
from seedcnn.device.adapted import FILE
from seedcnn.device.bad import find_bad, is_own_fault, note_bad
from seedcnn.device.commands import SECONDS, is_missing, run_command
from seedcnn.device.config import Config
from seedcnn.device.counting import Moment, forget_counts, read_counts
from seedcnn.device.journal import Entry
from seedcnn.device.outbox import tell
from seedcnn.device.part import drop_parts, is_disk_full
from seedcnn.device.postponed import forget
from seedcnn.device.probation import Verdict, end, trial_of, verdict_on
from seedcnn.device.probing import check_probe, commit_or_try, has_trial
from seedcnn.device.records import Active, SlotRecord, Trial
from seedcnn.device.reverting import PROBE, SUPERSEDED, model_before
from seedcnn.device.selection import probation_of, unselected
from seedcnn.device.sentences import code_of, sentence_of
from seedcnn.device.slots import MODEL, SLOTS, Slots
from seedcnn.device.trial import try_bundle
from seedcnn.device.trusted import Seen, followed, trusted_now
from seedcnn.errors import BundleError, PostponedError, RolledBackError, SlotError, UpdateError
from seedcnn.files import fsync_directory, remove, write_file

if TYPE_CHECKING:
    from seedcnn.device.updater import Offer, Source, Target

__all__ = ["Attempt", "Commands", "UpdateResult"]

_DAY = 86400
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class UpdateResult:
    """The result of an update: whether anything was installed, and the releases now and before (0 for none)."""

    updated: bool
    release: int
    previous: int
    message: str


@dataclass(frozen=True)
class Commands:
    """Commands that an update asks, "" for none, and how many seconds each of them may take."""

    ready: str = ""
    probe: str = ""
    seconds: float = SECONDS


@dataclass
class Attempt:
    """One run of :func:`seedcnn.device.agent.update`.

    ``slot`` is empty until staging begins; ``way`` reports on the delta, if any. A check that finds nothing is not
    journalled, so that it writes nothing: ``begun`` is whether there is more. ``passed`` is for the seconds of a
    probation. ``reports`` is the directory that reports are put into, if any.
    """

    slots: Slots
    config: Config
    commands: Commands
    clock: Callable[[], float]
    passed: Callable[[], Moment]
    reports: str | Path | None = None
    release: int = 0
    serial: int = 0
    slot: str = ""
    place: Path | None = None
    way: str = ""
    begun: bool = False

    def step(self, state: str, reason: str = "", code: str = "") -> None:
        """Journal a step."""
        if not self.begun:
            self.begun = True
            self.slots.journal.append("CHECK")
        self.slots.journal.append(
            state, release=self.release, slot=self.slot, reason=reason, code=code, serial=self.serial
        )

    def run(self, source: Source, before: Active | None) -> UpdateResult:
        """Obey the rule.

        Args:
            before: the active model.

        Raises:
            SeedCNNError, OSError, MemoryError: if the update was refused or could not finish.
        """
        seen, now = self.see(source)
        rollout, home = seen.rollout, self.slots.home
        wanted = rollout.wanted(self.config.device_id, self.config.cohort, int(now))
        self.release, self.serial = rollout.offer.release, rollout.serial
        held = unselected(seen, self.config, now)
        if wanted is None:
            drop_parts(home)
            return self.hold(held, before)
        offer = source.offer(wanted, before.record.content if before else "")
        if before is not None and before.record.artefact == offer.sha256:
            drop_parts(home)
            if held:
                return self.hold(held, before)
            return UpdateResult(False, self.release, self.release, self.has(before, offered=wanted == rollout.offer))
        if before is None and rollout.base and wanted == rollout.offer and find_bad(home, offer.sha256):
            wanted = rollout.base  # a device that had no model before is not left without one
            offer = source.offer(wanted)
        self.release = wanted.release
        self.check_offer(offer)
        for option, command in (("--ready", self.commands.ready), ("--probe", self.commands.probe)):
            if command and is_missing(command):
                raise UpdateError(
                    f"release {self.release} could not be installed: {option} (={command!r:.200}) names no program "
                    "that can be run"
                )
        ready = self.commands.ready
        if ready and (problem := run_command(ready, seconds=self.commands.seconds).problem):
            return self.hold(f"the command of --ready {problem}", before, "ready")
        before = self.without_trial(before, offer)
        self.step("ELIGIBLE")
        tell(self.slots, self.config, self.reports)
        return self.install(source, offer, before, probation_of(rollout, wanted))

    def trial_of(self, active: Active | None) -> Trial | None:
        """Return the probation of the active model, or None."""
        try:
            return trial_of(self.slots, active)
        except ValueError as error:  # the run has begun with a look at it, so this is new
            raise SlotError(str(error)) from None

    def has(self, active: Active, *, offered: bool) -> str:
        """Say that the device has what the rule wants, and how far its probation is.

        A release that was committed by an earlier rule and is offered again is journalled once for each rule, so that
        whoever counts this rollout hears of it.
        """
        trial = self.trial_of(active)
        if trial is None:
            told = [each.serial for each in self.slots.journal.entries() if each.state == "COMMITTED"]
            if offered and active.source in SLOTS and self.serial not in told:
                self.slot = active.source
                self.step("COMMITTED")
            return f"nothing new: release {self.release} is installed"
        progress = verdict_on(self.slots.home, trial, now=self.passed).reason
        return f"nothing new: release {self.release} is on probation: {progress}"

    def without_trial(self, active: Active | None, offer: Offer) -> Active | None:
        """Let go of a model on probation that another release follows, so that the known good one is not replaced.

        If the model before is what is offered, it is only switched to.
        """
        trial = self.trial_of(active)
        if trial is None or active is None:
            return active
        before = model_before(self.slots, trial.before)
        if before is None or before.record.artefact == offer.sha256:
            return active
        reason = f"release {self.release} came before its probation had ended"
        counts = read_counts(self.slots.home, trial.sha256)
        return end(self.slots, active, trial, Verdict("back", reason, SUPERSEDED), counts, times=0)[0]

    def see(self, source: Source) -> tuple[Seen, float]:
        """Read the rule, make sure that no older one is followed again, and return it and the time."""
        floor = self.slots.floor()
        seen = source.check(self.config.family, lambda keys: trusted_now(self.clock(), floor, keys))
        forget(self.slots.home)
        new = followed(floor, seen)
        if new is not floor:
            self.slots.follow(new)
        return seen, trusted_now(self.clock(), new, seen.timekeepers)

    def hold(self, reason: str, before: Active | None, code: str = "") -> UpdateResult:
        """Keep what the device has, and journal why, once."""
        self.slots.journal.hold(self.release, reason, code, self.serial)
        has = before.record.release if before else 0
        stays = f"release {has} stays" if before else "nothing is installed"
        return UpdateResult(False, has, has, f"release {self.release} is held: {reason}; {stays}")

    def check_offer(self, offer: Offer) -> None:
        """Refuse a release below the minimum, or that has failed here."""
        lowest = self.slots.floor().min_release
        if self.release < lowest:
            raise UpdateError(
                f"release {self.release} of {offer.artefact.family!r} was refused: a model that was installed here "
                f"requires release {lowest} or later"
            )
        if bad := find_bad(self.slots.home, offer.sha256):
            raise UpdateError(
                f"release {self.release} was refused: its bundle {bad.sha256} has failed or was taken back here and is "
                f"not fetched again, unless seedcnn-device forget-bad is given that digest; the reason: {bad.reason}",
                "known",
            )

    def install(self, source: Source, offer: Offer, before: Active | None, probation: Probation | None) -> UpdateResult:
        """Bring a release to the slot that is not current, switch to it, and commit it or begin its probation."""
        record = self.kept(offer) or self.stage(source, offer, before)
        self.prepare_trial(record, before, probation)
        earlier = before.source if before else ""
        self.step("SWITCH", earlier, PROBE if self.commands.probe else "")
        if self.place is None:
            self.slots.turn(self.slot)
        else:
            self.slots.switch(self.slot, self.place)
        if self.commands.probe:
            seconds = self.commands.seconds
            check_probe(self.slots, self.slot, record, before, self.commands.probe, seconds=seconds, serial=self.serial)
        tried = not self.commit(record, earlier)
        previous = before.record.release if before else 0
        message = f"release {self.release} is installed in slot {self.slot} (before: {previous or 'none'}{self.way})"
        return UpdateResult(True, self.release, previous, message + "; on probation" * tried)

    def prepare_trial(self, record: SlotRecord, before: Active | None, probation: Probation | None) -> None:
        """Record the probation that begins with the switch, or that there is none.

        The record of a model that is on probation now stays until the switch, so that it is not taken for committed.
        """
        source, compared = (before.source, before.record.sha256) if before else ("", "")
        names = (record.artefact, record.sha256, record.release, self.slot, source, compared, self.serial)
        if probation is not None:
            forget_counts(self.slots.home, record.sha256, now=self.passed)
            self.slots.begin_trial(Trial(*names, **asdict(probation)))
        elif has_trial(self.slots, self.slot, record):
            self.slots.end_trial()

    def kept(self, offer: Offer) -> SlotRecord | None:
        """Try the model of the slot that is not current, if it is the one offered; return None if it is not."""
        slot = self.slots.staging()
        try:
            found = self.slots.examine(slot)
        except SlotError:
            return None
        if found.record.artefact != offer.sha256:
            return None
        self.slot, self.way = slot, "; the slot still held it"
        self.tried(found.data, offer)
        drop_parts(self.slots.home)
        return found.record

    def tried(self, data: bytes, offer: Offer) -> SlotRecord:
        """Open, expand and self-test a bundle; count a failure that is its own."""
        wanted = offer.artefact.content
        try:
            record = try_bundle(self.slots, self.config, data, self.release, self.step, offer.sha256)
            if record.content != wanted:
                raise UpdateError(
                    f"the bundle was refused: its content is {record.content}, but was announced as {wanted}", "bundle"
                )
            return record
        except Exception as error:
            self.note_bad(offer.sha256, error)
            raise

    def stage(self, source: Source, offer: Offer, before: Active | None) -> SlotRecord:
        """Fetch a release and try it, in a place that no slot points to."""
        slots = self.slots
        self.slot = slots.staging()
        self.place = place = slots.fresh()
        data, part = self.patched(source, offer, before), None
        if data is None:
            data, part = self.whole(source, offer)
        record = self.tried(data, offer)
        if part is None:
            write_file(place / MODEL, data, mode=0o644)
        else:
            part.rename(place / MODEL)
            fsync_directory(place)
        drop_parts(slots.home)
        slots.complete(place, record)
        return record

    def note_bad(self, sha256: str, error: Exception) -> None:
        """Count a failure that is the file's own fault, and drop the file."""
        if not is_own_fault(error):
            return
        try:
            note_bad(self.slots.home, sha256, self.release, sentence_of(error) or "")
            drop_parts(self.slots.home)
        except OSError as problem:
            _LOG.warning("the bad file %s could not be noted: %s", sha256, problem)

    def fetched(self, source: Source, target: Target) -> tuple[bytes, Path]:
        """Download a file, verified, to where it stays until it is installed or turns out to be bad."""
        part = source.part(target)
        for last in (False, True):
            self.step("DOWNLOAD")
            source.download(target, part)
            self.step("VERIFY")
            resumed = part.resumed
            try:
                source.verify(target, part)
                break
            except UpdateError:
                # Bytes of several transfers may be of several servers: the file is fetched anew, once.
                if last or not resumed:
                    raise
        return part.path.read_bytes(), part.path

    def whole(self, source: Source, offer: Offer) -> tuple[bytes, Path]:
        """Fetch the whole bundle."""
        data, path = self.fetched(source, offer.target)
        if hashlib.sha256(data).hexdigest() != offer.sha256:
            raise UpdateError(f"release {self.release} was refused: the file changed after it was verified")
        return data, path

    def patched(self, source: Source, offer: Offer, before: Active | None) -> bytes | None:
        """Make the new bundle from the old one and a delta; return None if there is no delta or it fails."""
        if before is None or offer.delta is None:
            return None
        try:
            digest = source.digest(offer.delta)
            if bad := find_bad(self.slots.home, digest):
                raise UpdateError(f"it has failed {bad.count} times and is not fetched again: {bad.reason}")
            stored, _ = self.fetched(source, offer.delta)
        except PostponedError:
            raise
        except UpdateError as error:
            self.without_delta(error)
            return None
        try:
            from seedcnn.bundle import apply_delta, read_bundle, read_delta

            delta = read_delta(stored)
            if delta.result != offer.artefact.content:
                raise UpdateError(
                    f"it makes content {delta.result}; the rollout rule requires {offer.artefact.content}"
                )
            data = apply_delta(read_bundle(before.data), delta)
        except (UpdateError, BundleError) as error:
            self.note_bad(digest, error)
            self.without_delta(error)
            return None
        self.way = f"; by a delta of {offer.delta.length} bytes"
        return data

    def without_delta(self, error: Exception) -> None:
        """Note that the delta failed."""
        self.way = f"; its delta failed: {error}"
        _LOG.warning("the delta to release %d failed, so the whole bundle is fetched: %s", self.release, error)

    def commit(self, record: SlotRecord, earlier: str) -> bool:
        """Record the commit, or that the probation begins, and remove what is not needed any more.

        The switch is done, so failures are only logged, and the next run goes on.

        Returns:
            Whether the model needs no probation.
        """
        done = True
        try:
            done = commit_or_try(self.slots, self.slot, record, earlier, self.serial)
        except (OSError, SlotError) as error:
            # Until the next run records the commit, the slot's own record keeps the minimum up.
            _LOG.warning("release %d is active, but its commit could not be recorded: %s", self.release, error)
        try:
            self.slots.discard()
        except OSError as error:
            _LOG.warning("release %d is active, but what it replaced could not be removed: %s", self.release, error)
        try:
            remove(self.slots.home / FILE)
        except OSError as error:
            # Nothing else: the sets name their bundle, and no other one takes them.
            _LOG.warning(
                "release %d is active, but the sets of the one before could not be removed: %s", self.release, error
            )
        return done

    def refuse(self, reason: str, error: BaseException) -> None:
        """Free the space and journal the reason. A failure in here must not hide that reason."""
        try:
            if is_disk_full(error) or is_disk_full(error.__cause__):
                drop_parts(self.slots.home)
            if self.slot:
                self.slots.discard()
            if isinstance(error, RolledBackError):
                return  # journalled already
            code, last = code_of(error), self.slots.journal.last()
            entry = Entry("REFUSED", int(time.time()), self.release, self.slot, reason, code, serial=self.serial)
            if self.begun or last is None or not entry.repeats(last) or not 0 <= entry.time - last.time < _DAY:
                self.step("REFUSED", reason, code)
        except OSError as problem:
            _LOG.warning("the refusal could not be journalled: %s", problem)
