"""The publisher's clock. The timestamp metadata says when it was signed, and the next signing must follow it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tuf.api.metadata import Timestamp

from seedcnn.errors import RepositoryError

__all__ = ["check_clock", "note_clock", "utc"]

_SIGNED_AT = "x-seedcnn-signed-at"  # seconds since 1970; TUF keeps fields that it does not know
_LONGEST_REST = timedelta(days=7)


def utc(now: datetime | None) -> datetime:
    """Return the current time, or ``now`` in UTC.

    Raises:
        ValueError: if ``now`` carries no time zone.
    """
    if now is None:
        return datetime.now(UTC)
    if now.tzinfo is None:
        raise ValueError(f"`now` (={now.isoformat()}) must carry a time zone")
    return now.astimezone(UTC)


def note_clock(timestamp: Timestamp, now: datetime) -> None:
    """Write the time of signing into ``timestamp``."""
    timestamp.unrecognized_fields[_SIGNED_AT] = int(now.timestamp())


def check_clock(timestamp: Timestamp, now: datetime, *, clock_ok: bool) -> None:
    """Refuse to sign at a time that a wrong clock would explain.

    Devices believe what is signed: metadata of a clock that is years ahead would stay valid for years.

    Args:
        timestamp: of the last signing.
        now: of this one.
        clock_ok: the publisher has looked at the clock; refuse nothing.

    Raises:
        RepositoryError: if ``now`` is before the last signing, or more than seven days after it.
    """
    last = timestamp.unrecognized_fields.get(_SIGNED_AT)
    if clock_ok or type(last) is not int:
        return
    before = datetime.fromtimestamp(last, UTC)
    if now < before.replace(microsecond=0):
        wrong = "before"
    elif now > before + _LONGEST_REST:
        wrong = f"more than {_LONGEST_REST.days} days after"
    else:
        return
    raise RepositoryError(
        f"this machine's clock says {now:%Y-%m-%d %H:%M} UTC, {wrong} the last signing ({before:%Y-%m-%d %H:%M} UTC); "
        "set the clock, or if it is right, sign with --clock-ok"
    )
