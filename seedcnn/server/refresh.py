"""``seedcnn repo refresh``: sign anew what expires, once or at intervals. It changes nothing that is published."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event

from seedcnn.errors import RepositoryError, SeedCNNError
from seedcnn.server.clock import utc
from seedcnn.server.keys import MissingKeysError
from seedcnn.server.loading import opened
from seedcnn.server.roles import TOP, Expires
from seedcnn.server.state import Repository

__all__ = ["Refreshed", "refresh", "refresh_forever"]

_SOON = timedelta(minutes=5)


@dataclass(frozen=True)
class Refreshed:
    """The roles signed again, and a sentence for each due role that could not be."""

    roles: tuple[str, ...]
    due: tuple[str, ...] = ()


def refresh(
    directory: str | Path, *, clock_ok: bool = False, now: datetime | None = None, expires: Expires | None = None
) -> Refreshed:
    """Sign the timestamp again, and every other role once half of its validity has passed.

    What is valid for longer than its role allows, because a clock was ahead, is renewed, too. Run it at least daily,
    since the timestamp is valid for three days. Files that were superseded for two timestamp lives are removed.

    Raises:
        RepositoryError: if there is no repository, the snapshot or timestamp key is missing, the clock is implausible
            (see :func:`seedcnn.server.repository.publish`), or the directory cannot be written.
    """
    with opened(Path(directory), utc(now), expires, clock_ok=clock_ok) as repository:
        delegations = repository.targets.signed.delegations
        due = []
        for role in [*((delegations.roles if delegations else None) or {}), "targets", "root", "snapshot"]:
            try:
                if sentence := _renew(repository, role):
                    due.append(sentence)
            except RepositoryError as error:
                if role in TOP:
                    raise
                due.append(f"{role} cannot be renewed: {error}")
        return Refreshed(tuple(repository.commit(whole=True)), tuple(due))


def _renew(repository: Repository, role: str) -> str:
    """Mark a role for signing if it is due; return a sentence if its keys are missing, else ""."""
    expires, allowed = repository.of(role).signed.expires, repository.expires.of(role)
    left = expires - repository.now
    if allowed / 2 < left <= allowed:
        return ""
    try:
        repository.signers(role)
    except MissingKeysError:
        late = f", later than it may ({allowed.days} days)" if left > allowed else ""
        where = repository.directory
        return (
            f"{role} expires {expires:%Y-%m-%d}{late} and its keys are not in {where / 'keys'}; renew it with: "
            f"seedcnn repo export {where} {role} > todo.json; seedcnn repo sign todo.json --key KEY.pem; "
            f"seedcnn repo import {where} todo.json"
        )
    repository.edit(role)
    return ""


def refresh_forever(
    directory: str | Path,
    every: timedelta,
    stop: Event,
    say: Callable[[str], None],
    *,
    clock_ok: bool = False,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    soon: timedelta = _SOON,
) -> None:
    """Refresh at intervals until ``stop`` is set; a failure is said and tried again.

    Args:
        every: the interval.
        say: receives a line each time.
        clock: returns the time of signing.
        soon: the interval after a failure, if it is shorter.
    """
    while not stop.is_set():
        moment, wait = clock(), every
        try:
            done = refresh(directory, clock_ok=clock_ok, now=moment)
        except (SeedCNNError, OSError) as error:
            wait = min(every, soon)
            say(f"{moment:%Y-%m-%d %H:%M:%S} not signed, trying again: {error}")
        else:
            say(f"{moment:%Y-%m-%d %H:%M:%S} signed anew: {', '.join(done.roles)}")
            for sentence in done.due:
                say(f"Attention: {sentence}")
        stop.wait(wait.total_seconds())
