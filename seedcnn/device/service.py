"""Updates for good: ``seedcnn-device run`` asks at a phase of the interval that is the device's own.

One update after another runs in the main thread. A failure is a line in the log, and the next phase tries again.
"""

from __future__ import annotations

import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from seedcnn.device.agent import UpdateResult, open_home, update
from seedcnn.device.commands import SECONDS, check_command
from seedcnn.device.config import read_config
from seedcnn.device.schedule import Schedule
from seedcnn.device.slots import Slots
from seedcnn.device.stopping import Stopped, Stopping
from seedcnn.device.supervisor import Supervisor
from seedcnn.errors import DeviceError, SeedCNNError, missing_extra
from seedcnn.messages import shown

__all__ = ["Request", "longest_update", "run_forever"]

_LOCKED = 10.0  # seconds until the next try while another process holds the lock
_TRIAL = 600.0  # seconds beyond downloads and commands in which an update must end, or the watchdog takes it for hung
_SLACK = 30.0  # seconds by which a sleep may be late
_AGAIN = 86400.0  # seconds after which a failure that repeats is logged again
_NANO = 10**9


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())


@dataclass
class _Log:
    """The lines for people: changes on stdout; failures on stderr, with the time. What repeats is said once."""

    home: Path
    last: str = ""
    failed: bool = False
    moment: float = 0.0
    number: int = field(init=False)

    def __post_init__(self) -> None:
        self.number = self._newest()

    def _newest(self) -> int:
        last = Slots(self.home).journal.last()
        return last.number if last else 0

    def result(self, result: UpdateResult) -> None:
        """Print what an update has changed."""
        message, known = shown(result.message), self.number
        self.number = self._newest()
        if self.number > known and not result.updated:
            self._steps(known)
        quiet = message.startswith("nothing new") and not self.failed
        if result.updated or (message != self.last and not quiet):
            print(message, flush=True)
        self.last, self.failed = message, False

    def _steps(self, known: int) -> None:
        """Print the end of a probation, which may have come about in another process."""
        for entry in Slots(self.home).journal.entries():
            if entry.number > known and entry.state == "COMMITTED":
                print(f"release {entry.release} is committed", flush=True)
            elif entry.number > known and entry.state == "ROLLED_BACK":
                print(shown(f"release {entry.taken} was taken back: {entry.reason}"), flush=True)

    def failure(self, sentence: str) -> None:
        """Log why an update failed: at once, and again a day later if it stays the same."""
        sentence, now = shown(sentence), time.monotonic()
        if not self.failed or sentence != self.last or now - self.moment >= _AGAIN:
            print(f"seedcnn-device: {_now()} {sentence}", file=sys.stderr, flush=True)
            self.moment = now
        self.last, self.failed, self.number = sentence, True, self._newest()


@dataclass(frozen=True)
class Request:
    """The arguments of each update, see :func:`seedcnn.device.agent.update`."""

    ready: str = ""
    probe: str = ""
    reports: Path | None = None


def _is_locked(error: Exception) -> bool:
    """Return whether another process holds the lock."""
    return type(error) is DeviceError and isinstance(error.__context__, BlockingIOError)


def _once(home: Path, request: Request, stopping: Stopping, log: _Log) -> bool:
    """Update once; return whether that was not possible because another process holds the lock.

    Raises:
        Stopped: if a signal has come.
    """
    try:
        with stopping.interruptible():
            result = update(home, ready=request.ready, probe=request.probe, reports=request.reports)
    except ModuleNotFoundError as error:
        if (missing := missing_extra(error)) is None:
            raise
        log.failure(str(missing))
    except (SeedCNNError, OSError, MemoryError) as error:
        log.failure(str(error) or "the update needs more memory than this device has")
        return _is_locked(error)
    else:
        log.result(result)
    return False


def longest_update() -> float:
    """Return the seconds of the deadline of downloads, the time limits of all commands, and 10 minutes for the rest."""
    from seedcnn.device.fetcher import DownloadLimits

    return DownloadLimits().deadline + 3 * SECONDS + _TRIAL


def run_forever(
    home: str | Path,
    every: timedelta,
    request: Request = Request(),
    *,
    supervisor: Supervisor | None = None,
    allowed: float | None = None,
    pause: float = _LOCKED,
) -> None:
    """Keep a device up to date until SIGTERM or SIGINT comes. Call it in the main thread.

    A signal ends a sleep at once. An update is given up where it is: its next run completes it, as after a power cut.

    Args:
        every: the interval, from 1 s to 7 days.
        supervisor: hears of the state; by default whoever the environment names.
        allowed: seconds in which an update must have ended; beyond, the watchdog is not fed. None for
            :func:`longest_update`.
        pause: seconds until the next try while another process holds the lock.

    Raises:
        ValueError: if ``every`` is not in its limits, a command cannot be split into words, or this is not the main
            thread.
        DeviceError: if the home is not initialised.
    """
    schedule = Schedule.of(read_config(open_home(home).home).device_id, every)
    for command in filter(None, (request.ready, request.probe)):
        check_command(command)
    allowed = longest_update() if allowed is None else allowed
    stopping, log = Stopping(), _Log(Path(home))
    with stopping.listening(), closing(supervisor or Supervisor.from_environment()) as notified:
        moment = schedule.first(time.monotonic_ns())
        notified.start((moment - time.monotonic_ns()) / _NANO + _SLACK)
        try:
            while stopping.sleep_until(moment):
                notified.expect(allowed)
                locked = _once(log.home, request, stopping, log)
                moment = schedule.next(now := time.monotonic_ns())
                if locked:
                    moment = min(moment, now + int(pause * _NANO))
                notified.expect((moment - now) / _NANO + _SLACK)
                notified.status(f"{_now()} {log.last}")
        except Stopped:
            pass
