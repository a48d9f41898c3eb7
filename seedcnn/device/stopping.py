"""SIGTERM and SIGINT as the wish of a user or supervisor to end a process that runs for good."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Stopped", "Stopping"]

_NUMBERS = (signal.SIGTERM, signal.SIGINT)


class Stopped(KeyboardInterrupt):
    """A signal has ended the work; the message names it."""


class Stopping:
    """The two signals, in the main thread: they end a sleep at once, and work only where it may be interrupted."""

    def __init__(self) -> None:
        self.name = ""  # of the signal that has come
        self._interruptible = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals, and restore what handled them before.

        Raises:
            ValueError: if this is not the main thread.
        """
        # A pipe, because the signal may reach another thread, and an Event that is set in a handler can deadlock.
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        earlier = {}
        wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        try:
            for number in _NUMBERS:
                earlier[number] = signal.signal(number, self._handle)
            yield
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(wakeup)
            os.close(self._reader)
            os.close(self._writer)

    def _handle(self, number: int, _: FrameType | None) -> None:
        self.name = signal.Signals(number).name
        if self._interruptible:
            raise self._stopped()

    def _stopped(self) -> Stopped:
        return Stopped(f"the update could not finish, because {self.name} ended it")

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let a signal raise :class:`Stopped` wherever the work inside is."""
        self._interruptible = True
        try:
            if self.name:
                raise self._stopped()
            yield
        finally:
            self._interruptible = False

    def sleep_until(self, moment: int) -> bool:
        """Sleep until ``time.monotonic_ns()`` has reached ``moment``, or a signal comes.

        Returns:
            Whether no signal has come.
        """
        while not self.name and (left := moment - time.monotonic_ns()) > 0:
            readable, _, _ = select.select([self._reader], [], [], left / 1e9)
            if readable:
                os.read(self._reader, 4096)
        return not self.name
