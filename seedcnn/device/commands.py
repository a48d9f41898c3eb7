"""Commands of the operator that an update asks: may it begin (``--ready``), and does the new model work (``--probe``).

A command runs without a shell, in a session of its own. Nothing that it does can hang an update or fill its memory:
its time is limited, its output is kept up to a limit and dropped beyond, and what it leaves running is killed.
"""

from __future__ import annotations

import os
import selectors
import shlex
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass

__all__ = ["KEPT", "SECONDS", "Ended", "check_command", "is_missing", "run_command"]

SECONDS = 60.0
"""Time limit of a command."""

KEPT = 64 << 10
"""Bytes of output that are kept."""

_PAUSE = 0.05  # seconds between two looks at a command that writes nothing


@dataclass(frozen=True)
class Ended:
    """The end of a command.

    Attributes:
        problem: "" if its exit status was 0; otherwise how it ended.
        output: the first :data:`KEPT` bytes of stdout and stderr.
        started: whether it could be started at all.
    """

    problem: str
    output: bytes = b""
    started: bool = True

    @property
    def last_line(self) -> str:
        """The last line of the output with anything in it, at most 200 characters."""
        lines = [line.strip() for line in self.output.decode("utf-8", "replace").splitlines()]
        return next((line[:200] for line in reversed(lines) if line), "")


def check_command(command: str) -> str:
    """Return ``command`` if it can be split into words as a shell would.

    Raises:
        ValueError: if it is empty or a quotation does not end.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"`command` (={command!r:.200}) cannot be split into words: {error}") from None
    if not words or "\0" in command:
        raise ValueError(f"`command` (={command!r:.200}) must name a program")
    return command


def is_missing(command: str) -> bool:
    """Return whether no program of the command's first word can be run."""
    return shutil.which(shlex.split(command)[0]) is None


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Return whether the process has ended, without reaping it: until then its group cannot become another's."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _read(descriptor: int, kept: bytearray, most: int) -> bool:
    """Read what is there, keep at most ``most`` bytes in all, and return whether there can be more."""
    try:
        data = os.read(descriptor, 1 << 16)
    except BlockingIOError:
        return True
    kept += data[: max(0, most - len(kept))]
    return bool(data)


def _follow(process: subprocess.Popen[bytes], descriptor: int, deadline: float, kept: bytearray, most: int) -> bool:
    """Read the output until the process ends; return False if it has not ended at the deadline."""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        is_open = True
        while not _has_ended(process):
            if (left := deadline - time.monotonic()) <= 0:
                return False
            if not is_open:
                time.sleep(min(left, _PAUSE))
            elif selector.select(min(left, _PAUSE)):
                is_open = _read(descriptor, kept, most)
                if not is_open:
                    selector.unregister(descriptor)
        # What it wrote last; its children may keep the pipe open, and write for ever.
        while is_open and len(kept) < most and selector.select(0):
            is_open = _read(descriptor, kept, most)
    return True


def run_command(command: str, *, seconds: float = SECONDS, most: int = KEPT) -> Ended:
    """Run a command to its end, or kill it and its process group.

    Args:
        command: program and arguments, as a shell would split them.
        seconds: time limit.
        most: bytes of output that are kept.

    Raises:
        ValueError: see :func:`check_command`.
    """
    words, deadline = shlex.split(check_command(command)), time.monotonic() + seconds
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        return Ended(f"cannot be run: {error.strerror or error}", started=False)
    kept, ended = bytearray(), False
    try:
        if process.stdout is None:
            raise ValueError("the command has no output")
        os.set_blocking(process.stdout.fileno(), False)
        ended = _follow(process, process.stdout.fileno(), deadline, kept, most)
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            process.kill()  # its group is gone, or is somebody else's by setuid
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
    if not ended:
        return Ended(f"did not end within {seconds:g} s", bytes(kept))
    if process.returncode < 0:
        return Ended(f"was killed by signal {-process.returncode}", bytes(kept))
    return Ended(f"ended with exit status {process.returncode}" if process.returncode else "", bytes(kept))
