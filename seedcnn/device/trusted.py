"""Which rules a device may still follow, and which time it may rely on without a clock of its own.

The serial of the newest rule that was seen is the floor: an older rule is never followed again. The time is the latest
of the clock, the release of this software, and the newest rule's time of signing. Floors belong to the keys that signed
them: new keys of a role start them anew, so that a thief cannot leave devices stuck in the future.
"""

from __future__ import annotations

from dataclasses import dataclass

from seedcnn.bundle import Rollout
from seedcnn.device.records import Floor
from seedcnn.errors import UpdateError

__all__ = ["BUILT", "SLACK", "Seen", "followed", "is_clock_behind", "trusted_now"]

BUILT = 1796083200
"""Release of this software in seconds since 1970 (2026-12-01); no device that runs it can be earlier."""

SLACK = 86400
"""Seconds that a clock may be behind without being called wrong."""


@dataclass(frozen=True)
class Seen:
    """A rule that the repository has signed now.

    Attributes:
        rollout: the rule.
        sha256: of its bytes, in hexadecimal.
        keys: ids of the keys of the role that signs the rule.
        timekeepers: ids of the keys of the timestamp role.
        until: time at which the first of the metadata expires, in seconds since 1970.
    """

    rollout: Rollout
    sha256: str
    keys: str
    timekeepers: str
    until: int


def trusted_now(clock: float, floor: Floor, timekeepers: str) -> float:
    """Return the time in seconds since 1970, or a time that has certainly passed if the clock is behind it.

    Args:
        clock: seconds since 1970 by the device's clock.
        timekeepers: ids of the keys of the timestamp role. The floor's time counts only if they vouched for it.
    """
    return max(clock, BUILT, floor.signed_at if floor.timekeepers == timekeepers else 0)


def is_clock_behind(clock: float, floor: Floor) -> bool:
    """Return whether the clock says a time that has certainly passed, so that the age of metadata is not known."""
    return clock + SLACK < max(BUILT, floor.signed_at)


def followed(floor: Floor, seen: Seen) -> Floor:
    """Return the floor of a device that has seen a rule. It is ``floor`` itself if nothing has changed.

    The time rises to the rule's time of signing, but stays below ``seen.until``, so that a holder of the rule's key
    cannot make a device believe that everything has expired.

    Raises:
        UpdateError: if the rule is older than one that was seen, or another one of the same serial.
    """
    what, serial = f"the rollout rule of {seen.rollout.family!r} was refused", seen.rollout.serial
    same_keys = floor.keys == seen.keys
    if same_keys and serial < floor.serial:
        raise UpdateError(
            f"{what}: its serial is {serial}; this device has seen serial {floor.serial} and never follows an older one"
        )
    if same_keys and serial == floor.serial and floor.rule != seen.sha256:
        raise UpdateError(f"{what}: this device has seen serial {serial} with different content")
    same_time = floor.timekeepers == seen.timekeepers
    if same_keys and same_time and serial == floor.serial:
        return floor
    signed_at = min(seen.rollout.signed_at, seen.until - 1)
    if same_keys and same_time:
        signed_at = max(signed_at, floor.signed_at)
    return Floor(serial, seen.sha256, seen.keys, signed_at, seen.timekeepers, floor.min_release)
