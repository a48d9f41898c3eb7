"""The moments at which a device asks its repository, so that the devices of a fleet do not ask in the same second."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta

from seedcnn.literals import parse_duration

__all__ = ["Schedule", "check_interval", "parse_interval"]

_SHORTEST, _LONGEST = timedelta(seconds=1), timedelta(days=7)
_FIRST = 60 * 10**9  # nanoseconds after the start within which the first check begins


def check_interval(every: timedelta) -> timedelta:
    """Return the interval.

    Raises:
        ValueError: if it is below a second or above 7 days.
    """
    if not _SHORTEST <= every <= _LONGEST:
        raise ValueError(f"`every` (={every}) must be from 1 second to 7 days")
    return every


def parse_interval(text: str) -> timedelta:
    """Parse an interval such as 15m or 6h.

    Raises:
        ValueError: if it is no duration, or not from 1s to 7d.
    """
    try:
        every = parse_duration(text)
    except ValueError as error:
        raise ValueError(f"{text!r:.80}: {error}") from None
    if not _SHORTEST <= every <= _LONGEST:
        raise ValueError(f"{text!r:.80}: it must be from 1s to 7d")
    return every


@dataclass(frozen=True)
class Schedule:
    """The schedule of a device, in nanoseconds of the monotonic clock, which no change of the date moves.

    Attributes:
        every: the interval.
        phase: when it asks, from 0 to below ``every``.
    """

    every: int
    phase: int

    @classmethod
    def of(cls, device_id: str, every: timedelta) -> Schedule:
        """Return the schedule of a device: its phase is the SHA-256 of its name, modulo the interval.

        The digest is read as a big-endian integer. The phases of many devices are spread evenly over the interval.

        Raises:
            ValueError: see :func:`check_interval`.
        """
        nanoseconds = check_interval(every) // timedelta(microseconds=1) * 1000
        digest = hashlib.sha256(device_id.encode()).digest()
        return cls(nanoseconds, int.from_bytes(digest, "big") % nanoseconds)

    def first(self, now: int) -> int:
        """Return the moment of the first check: the phase again, in a minute or the interval if that is shorter."""
        return now + self.phase * min(self.every, _FIRST) // self.every

    def next(self, now: int) -> int:
        """Return the first moment after ``now`` at which the clock is at the phase."""
        return now + self.every - (now - self.phase) % self.every
