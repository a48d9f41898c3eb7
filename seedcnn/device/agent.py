"""The device's home and its updates: ``init`` prepares the one, ``update`` does what the rollout rule requires."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from seedcnn.device.attempt import Attempt, Commands, UpdateResult
from seedcnn.device.bad import TRIES, find_bad
from seedcnn.device.commands import SECONDS, check_command
from seedcnn.device.config import Config, check_config, check_url, dump_config, read_config
from seedcnn.device.counting import Moment, figures, moment, read_counts
from seedcnn.device.outbox import tell
from seedcnn.device.postponed import Postponement, postpone, postponed
from seedcnn.device.probation import trial_of
from seedcnn.device.probing import finish_interrupted
from seedcnn.device.records import Active, dump
from seedcnn.device.reverting import finish_back, model_before, take_back
from seedcnn.device.sentences import sentence_of
from seedcnn.device.slots import SLOTS, Slots
from seedcnn.device.trial import try_bundle
from seedcnn.errors import DeviceError, PostponedError, UpdateError
from seedcnn.files import remove, write_file

if TYPE_CHECKING:
    from seedcnn.device.fetcher import DownloadLimits, Pool

__all__ = ["UpdateResult", "init", "open_home", "rollback", "update"]

_LOG = logging.getLogger(__name__)


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
    device_id: str | None = None,
    cohort: str = "",
) -> None:
    """Prepare a home: set the trust anchor, the repository, the family, and optionally a model to start with.

    Args:
        root_json: the repository's ``root.json``, obtained over a channel you trust.
        url: base URL of the repository's public half; ``URL/metadata/timestamp.json`` must exist.
        factory: a bundle that answers while no slot can. It is trusted without a signature and must pass its self-test.
        runtime: "onnxruntime", "openvino", or "auto" for the faster one, measured for each new model.
        device_id: the device's name, by which a rollout rule selects it; None for 32 hexadecimal digits of chance.
        cohort: the devices that it belongs with, which a rule can select from; "" for none.

    Raises:
        DeviceError: if the home is already initialised or cannot be written, or a file cannot be read.
        UpdateError: if ``root_json`` is not root metadata signed by its own keys.
        BundleError, SelfTestError: if the factory bundle does not open or expand, or fails its self-test.
        ValueError: if ``url``, ``family``, ``runtime``, ``device_id`` or ``cohort`` is not allowed.
        MissingExtraError: if a factory bundle is given and the runtime is not installed.
    """
    from seedcnn.device.updater import check_root

    config = check_config(
        Config(url, family, runtime, secrets.token_hex(16) if device_id is None else device_id, cohort)
    )
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
                slots.raise_minimum(record)
            write_file(slots.home / "root.json", root, mode=0o644)
            write_file(slots.home / "config.json", dump_config(config), mode=0o644)
    except OSError as error:
        raise DeviceError(f"{home} cannot be initialised: {error.strerror} ({error.filename})") from None


def update(
    home: str | Path,
    url: str | None = None,
    *,
    limits: DownloadLimits | None = None,
    now: bool = False,
    ready: str = "",
    probe: str = "",
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.time,
    passed: Callable[[], Moment] = moment,
    reports: str | Path | None = None,
    pool: Pool | None = None,
) -> UpdateResult:
    """Install what the repository's rollout rule wants of this device, or leave everything unchanged.

    Args:
        url: repository to ask instead of the home's own. The family is always the home's own.
        limits: when to give up a download.
        now: ask even if the repository has asked to wait.
        ready: command that is run before anything is fetched or switched; unless its exit status is 0, the release is
            held. "" for none.
        probe: command that is run after the switch; unless its exit status is 0, the model before becomes active again
            and the file counts as bad. "" for none. Both are split into words as by a shell, and run without one.
        seconds: time limit of each of the two.
        clock: seconds since 1970. Where it is behind a time that has certainly passed, that time counts.
        passed: for the seconds of a probation.
        reports: directory that reports are put into; None leaves them in the home. If it takes none, that is logged.
        pool: sends the requests and is cleared at the end; None for HTTP.

    Raises:
        ValueError: if ``url`` is not an http or https URL, or a command cannot be split into words.
        DeviceError: if the home is not initialised, or another update is running.
        UpdateError: if the update was refused or could not finish. The message and the journal say why, and the
            previous model stays active.
        RolledBackError: if the probe of this or an interrupted update failed, or the probation of an earlier one.
        PostponedError: if the repository asks to wait beyond the deadline. Until then, a day at most, nothing is done.
        ModuleNotFoundError: if python-tuf or the runtime is not installed.
    """
    if url is not None:
        check_url(url)
    for command in filter(None, (ready, probe)):
        check_command(command)
    slots = open_home(home)
    config = read_config(slots.home)
    url = check_url(url or config.url)
    with slots.lock():
        attempt = Attempt(slots, config, Commands(ready, probe, seconds), clock, passed, reports)
        try:
            return _asked(attempt, url, limits, pool, now=now)
        except BaseException as error:
            sentence = sentence_of(error)
            if isinstance(error, PostponedError):
                _put_off(slots.home, url, error, clock())
            attempt.refuse(sentence or f"{type(error).__name__}: {error}", error)
            if sentence is None or isinstance(error, UpdateError):
                raise
            raise UpdateError(sentence) from error
        finally:
            tell(slots, config, reports)


def rollback(home: str | Path, *, reports: str | Path | None = None) -> str:
    """Take the active model back: the model before it answers again, and its file is not installed again.

    Only a rule that offers another release, or ``forget-bad``, changes that. Repeated after an interruption, it
    finishes the same way back, and never goes back to a model that was taken back itself.

    Args:
        reports: directory that the report is put into; None leaves it in the home.

    Returns:
        What happened, as a sentence.

    Raises:
        DeviceError: if the home is not initialised, another update is running, there is no model to go back to, or the
            file system refuses; repeated, it completes.
        SlotError: if the floor cannot be read.
    """
    slots = open_home(home)
    config = read_config(slots.home)
    with slots.lock():
        try:
            active, finished = finish_back(slots, slots.repair())
            if finished is not None:  # this command, or a run that was taking the same model back, was interrupted
                return f"release {finished.taken} was taken back: {finished.reason}"
            if active is None or active.source not in SLOTS:
                raise DeviceError(f"{home} has no model that an update has installed, so there is none to take back")
            return _taken_back(slots, active)
        except OSError as error:
            raise DeviceError(f"the way back could not finish: {error.strerror} ({error.filename or home})") from error
        finally:
            tell(slots, config, reports)


def _taken_back(slots: Slots, active: Active) -> str:
    """Take the active model back because an operator wants it; return what happened."""
    home = slots.home
    try:
        trial = trial_of(slots, active)
    except ValueError as error:
        _LOG.warning("%s", error)  # the record goes with the way back
        trial = None
    before = model_before(slots, trial.before if trial else slots.staging())
    if before is None:
        raise DeviceError(f"{home} has no model to go back to: release {active.record.release} is its only one")
    if before.source in SLOTS and not slots.is_committed(before.source):
        raise DeviceError(
            f"{home} cannot go back to release {before.record.release}: it was taken back itself, or has not ended its "
            "probation here"
        )
    if bad := find_bad(home, before.record.artefact):
        raise DeviceError(
            f"{home} cannot go back to release {before.record.release}: its bundle {bad.sha256} has failed or was "
            f"taken back; seedcnn-device forget-bad {bad.sha256[:8]} lets it answer again; the reason: {bad.reason}"
        )
    if before.record.release < (lowest := slots.floor().min_release):
        raise DeviceError(
            f"{home} cannot go back to release {before.record.release}: a model that was installed here requires "
            f"release {lowest} or later"
        )
    numbers = figures(read_counts(home, active.record.sha256), read_counts(home, before.record.sha256))
    return take_back(
        slots,
        active.source,
        active.record,
        before,
        "an operator wanted it",
        "operator",
        times=TRIES,
        serial=slots.floor().serial,
        **numbers,
    )


def _asked(attempt: Attempt, url: str, limits: DownloadLimits | None, pool: Pool | None, *, now: bool) -> UpdateResult:
    """Finish what was interrupted, and ask the repository if it may be asked."""
    from seedcnn.device.fetcher import DownloadLimits
    from seedcnn.device.updater import Source

    slots, commands = attempt.slots, attempt.commands
    before = finish_interrupted(slots, slots.repair(), commands.probe, seconds=commands.seconds, now=attempt.passed)
    if not now and (wait := postponed(slots.home, attempt.clock(), url)):
        return _waiting(wait, before)
    root = (slots.home / "root.json").read_bytes()
    with closing(Source(slots.home, url, root, limits or DownloadLimits(), pool)) as source:
        return attempt.run(source, before)


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
