"""One update from start to finish: CHECK, DOWNLOAD, VERIFY, EXPAND, SELFTEST, SWITCH, COMMITTED, or else REFUSED.

The current slot answers until the new one has passed its self-test. Every step is journalled before it starts, which
distinguishes a power cut from a refusal; a check that finds nothing new writes nothing, and a refusal that is repeated
is journalled once a day. numpy and the runtime are imported only after a bundle has been verified.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from seedcnn.bundle import check_family
from seedcnn.device.adapted import FILE
from seedcnn.device.bad import find_bad, is_own_fault, note_bad
from seedcnn.device.config import Config, check_url, dump_config, read_config
from seedcnn.device.journal import Entry
from seedcnn.device.part import drop_parts, is_disk_full
from seedcnn.device.postponed import Postponement, forget, postpone, postponed
from seedcnn.device.records import Active, SlotRecord, dump
from seedcnn.device.slots import MODEL, Slots
from seedcnn.device.trial import try_bundle
from seedcnn.errors import BundleError, DeviceError, PostponedError, SeedCNNError, SlotError, UpdateError
from seedcnn.files import fsync_directory, remove, write_file
from seedcnn.runtime.names import check_runtime

if TYPE_CHECKING:
    from seedcnn.device.fetcher import DownloadLimits
    from seedcnn.device.updater import Offer, Source, Target

__all__ = ["UpdateResult", "finish_interrupted", "init", "open_home", "update"]

_DAY = 86400
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class UpdateResult:
    """The result of an update: whether anything was installed, and the releases now and before (0 for none)."""

    updated: bool
    release: int
    previous: int
    message: str


def open_home(home: str | Path) -> Slots:
    """Open the slots of an initialised home.

    Raises:
        DeviceError: if ``init`` has not been run there.
    """
    if not os.path.isfile(Path(home) / "config.json"):
        raise DeviceError(f"{home} is not initialised; run: seedcnn-device --home {home} init")
    return Slots(home)


def init(
    home: str | Path,
    root_json: str | Path,
    url: str,
    family: str,
    *,
    factory: str | Path | None = None,
    runtime: str = "onnxruntime",
) -> None:
    """Prepare a home: set the trust anchor, the repository, the family, and optionally a model to start with.

    Args:
        root_json: the repository's ``root.json``, obtained over a channel you trust.
        url: base URL of the repository's public half; ``URL/metadata/timestamp.json`` must exist.
        factory: a bundle that answers while no slot can. It is trusted without a signature and must pass its self-test.
        runtime: "onnxruntime", "openvino", or "auto" for the faster one, measured for each new model.

    Raises:
        DeviceError: if the home is already initialised or cannot be written, or a file cannot be read.
        UpdateError: if ``root_json`` is not root metadata signed by its own keys.
        BundleError, SelfTestError: if the factory bundle does not open or expand, or fails its self-test.
        ValueError: if ``url``, ``family`` or ``runtime`` is not allowed.
        MissingExtraError: if a factory bundle is given and the runtime is not installed.
    """
    from seedcnn.device.updater import check_root

    config = Config(check_url(url), check_family(family), check_runtime(runtime, auto=True))
    slots = Slots(home)
    try:
        root = Path(root_json).read_bytes()
        check_root(root)
        for directory in (slots.home / "slots", slots.models, slots.home / "metadata"):
            directory.mkdir(parents=True, exist_ok=True)
        with slots.lock():
            if (slots.home / "config.json").exists():
                raise DeviceError(f"{home} is already initialised; remove it to start again")
            # A factory model without config.json is left over from an initialisation that was interrupted.
            remove(slots.home / "factory.json")
            remove(slots.home / "factory.bundle")
            if factory is not None:
                data = Path(factory).read_bytes()
                record = try_bundle(slots, config, data, 0, lambda _: None)
                write_file(slots.home / "factory.bundle", data, mode=0o644)
                write_file(slots.home / "factory.json", dump(record), mode=0o644)
                slots.raise_floor(record)
            write_file(slots.home / "root.json", root, mode=0o644)
            write_file(slots.home / "config.json", dump_config(config), mode=0o644)
    except OSError as error:
        raise DeviceError(f"{home} cannot be initialised: {error.strerror} ({error.filename})") from None


def finish_interrupted(slots: Slots, before: Active | None) -> None:
    """Record the commit of a run that was interrupted after its switch. Needs the lock.

    Args:
        before: the active model.
    """
    last = slots.journal.last()
    if before and last and (last.state, last.slot, last.release) == ("SWITCH", before.source, before.record.release):
        slots.raise_floor(before.record)
        slots.journal.append("COMMITTED", release=last.release, slot=last.slot)


@dataclass
class _Attempt:
    """One run of :func:`update`. ``slot`` is empty until staging begins; ``way`` reports on the delta, if any.

    A check that finds nothing is not journalled, so that it writes nothing: ``begun`` is whether there is more.
    """

    slots: Slots
    config: Config
    release: int = 0
    slot: str = ""
    place: Path = Path()
    way: str = ""
    begun: bool = False

    def step(self, state: str, reason: str = "") -> None:
        if not self.begun:
            self.begun = True
            self.slots.journal.append("CHECK")
        self.slots.journal.append(state, release=self.release, slot=self.slot, reason=reason)

    def run(self, source: Source, before: Active | None) -> UpdateResult:
        offer = source.check(self.config.family, before.record.content if before else "")
        self.release = offer.artefact.release
        forget(self.slots.home)
        if before is not None and before.record.artefact == offer.sha256:
            drop_parts(self.slots.home)
            return UpdateResult(False, self.release, self.release, f"nothing new: release {self.release} is installed")
        self.check_floor(offer)
        if bad := find_bad(self.slots.home, offer.sha256):
            raise UpdateError(
                f"release {self.release} was refused: its bundle {bad.sha256} has failed {bad.count} times and is not "
                f"fetched again, unless seedcnn-device forget-bad is given that digest; the reason: {bad.reason}"
            )
        record = self.stage(source, offer, before)
        self.step("SWITCH")
        self.slots.switch(self.slot, self.place)
        self.commit(record)
        previous = before.record.release if before else 0
        message = f"release {self.release} is installed in slot {self.slot} (before: {previous or 'none'}{self.way})"
        return UpdateResult(True, self.release, previous, message)

    def check_floor(self, offer: Offer) -> None:
        floor, what = self.slots.floor(), f"release {offer.artefact.release} of {offer.artefact.family!r} was refused"
        if self.release < floor.min_release:
            raise UpdateError(f"{what}: an installed model requires release {floor.min_release} or later")
        if self.release < floor.release:
            raise UpdateError(f"{what}: this device has had release {floor.release} and never goes back")
        if self.release == floor.release and floor.sha256 and offer.sha256 != floor.sha256:
            raise UpdateError(f"{what}: this device has had that release with different content")

    def stage(self, source: Source, offer: Offer, before: Active | None) -> SlotRecord:
        slots = self.slots
        self.slot = slots.staging()
        self.place = slots.fresh()
        data, part = self.patched(source, offer, before), None
        if data is None:
            data, part = self.whole(source, offer)
        try:
            record = try_bundle(slots, self.config, data, self.release, self.step, offer.sha256)
        except Exception as error:
            self.note_bad(offer.sha256, error)
            raise
        if part is None:
            write_file(self.place / MODEL, data, mode=0o644)
        else:
            part.rename(self.place / MODEL)
            fsync_directory(self.place)
        drop_parts(slots.home)
        slots.complete(self.place, record)
        return record

    def note_bad(self, sha256: str, error: Exception) -> None:
        """Count a failure that is the file's own fault, and drop the file."""
        if not is_own_fault(error):
            return
        try:
            note_bad(self.slots.home, sha256, self.release, _sentence(error) or "")
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
        data, path = self.fetched(source, offer.target)
        if hashlib.sha256(data).hexdigest() != offer.sha256:
            raise UpdateError(f"release {self.release} was refused: the file changed after it was verified")
        return data, path

    def patched(self, source: Source, offer: Offer, before: Active | None) -> bytes | None:
        """Make the new bundle from the old one and a delta; return None if there is no delta or it fails."""
        if before is None or offer.delta is None:
            return None
        digest = source.digest(offer.delta)
        try:
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
        self.way = f"; its delta failed: {error}"
        _LOG.warning("the delta to release %d failed, so the whole bundle is fetched: %s", self.release, error)

    def commit(self, record: SlotRecord) -> None:
        try:
            self.slots.raise_floor(record)
            self.step("COMMITTED")
        except (OSError, SlotError) as error:
            # The switch is done; until the next run records the commit, the slot's own record keeps the floor up.
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

    def refuse(self, reason: str, error: BaseException) -> None:
        """Free the space and journal the reason. A failure in here must not hide that reason."""
        try:
            if is_disk_full(error) or is_disk_full(error.__cause__):
                drop_parts(self.slots.home)
            if self.slot:
                self.slots.discard()
            entry, last = Entry("REFUSED", int(time.time()), self.release, self.slot, reason), self.slots.journal.last()
            if self.begun or last is None or not entry.repeats(last) or not 0 <= entry.time - last.time < _DAY:
                self.step("REFUSED", reason)
        except OSError as problem:
            _LOG.warning("the refusal could not be journalled: %s", problem)


def _sentence(error: BaseException) -> str | None:
    """Describe an expected failure in a sentence; return None for a defect or an interruption, which propagates."""
    if isinstance(error, BundleError):
        return f"the bundle was refused: {error}"
    if isinstance(error, SeedCNNError):
        return str(error)
    if isinstance(error, MemoryError):
        return "the update needs more memory than this device has"
    if isinstance(error, OSError):
        return f"the update could not finish: {error.strerror or error} ({error.filename or 'home'})"
    return None


def update(
    home: str | Path,
    url: str | None = None,
    *,
    limits: DownloadLimits | None = None,
    now: bool = False,
    clock: Callable[[], float] = time.time,
) -> UpdateResult:
    """Install what the repository's rollout rule requires, or leave everything unchanged.

    Args:
        url: repository to ask instead of the home's own. The family is always the home's own.
        limits: when to give up a download.
        now: ask even if the repository has asked to wait.
        clock: seconds since 1970, for such a wait.

    Raises:
        ValueError: if ``url`` is not an http or https URL.
        DeviceError: if the home is not initialised, or another update is running.
        UpdateError: if the update was refused or could not finish. The message and the journal say why, and the
            previous model stays active.
        PostponedError: if the repository asks to wait beyond the deadline. Until then, a day at most, an update does
            nothing and says so.
        ModuleNotFoundError: if python-tuf or the runtime is not installed.
    """
    from seedcnn.device.fetcher import DownloadLimits
    from seedcnn.device.updater import Source

    if url is not None:
        check_url(url)
    slots = open_home(home)
    config = read_config(slots.home)
    url = check_url(url or config.url)
    with slots.lock():
        attempt = _Attempt(slots, config)
        try:
            before = slots.repair()
            finish_interrupted(slots, before)
            if not now and (wait := postponed(slots.home, clock(), url)):
                return _waiting(wait, before)
            root = (slots.home / "root.json").read_bytes()
            with closing(Source(slots.home, url, root, limits or DownloadLimits())) as source:
                return attempt.run(source, before)
        except BaseException as error:
            sentence = _sentence(error)
            if isinstance(error, PostponedError):
                _put_off(slots.home, url, error, clock())
            attempt.refuse(sentence or f"{type(error).__name__}: {error}", error)
            if sentence is None or isinstance(error, UpdateError):
                raise
            raise UpdateError(sentence) from error


def _waiting(wait: Postponement, before: Active | None) -> UpdateResult:
    date = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(wait.until))
    release = before.record.release if before else 0
    return UpdateResult(
        False, release, release, f"nothing is asked before {date}, because {wait.url} wants it so; --now asks at once"
    )


def _put_off(home: Path, url: str, error: PostponedError, now: float) -> None:
    try:
        postpone(home, url, error.seconds, str(error), now)
    except OSError as problem:
        _LOG.warning("the next update could not be put off: %s", problem)
