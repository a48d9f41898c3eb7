"""The roles of a repository: their keys, where each key is, and when their metadata expires."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from seedcnn.errors import RepositoryError
from seedcnn.server.clock import utc
from seedcnn.server.keys import Keyring
from seedcnn.server.loading import opened
from seedcnn.server.places import read_places
from seedcnn.server.roles import TOP, role_of
from seedcnn.server.state import Repository

__all__ = ["RoleKeys", "list_keys"]


@dataclass(frozen=True)
class RoleKeys:
    """A role: ``threshold`` of its ``keys`` must sign.

    Attributes:
        keys: key id -> where the key is; "" if that is not known.
        expires: of the role's metadata, in UTC.
        left: until then; negative once it has expired.
        problem: a sentence if the metadata cannot be read, else "".
    """

    role: str
    threshold: int
    keys: dict[str, str]
    expires: datetime | None
    left: timedelta
    problem: str = ""


def list_keys(directory: str | Path, *, now: datetime | None = None) -> list[RoleKeys]:
    """List root, targets, snapshot, timestamp and the families' roles.

    No key is read but those in ``DIR/keys/``, and of these no encrypted one.

    Raises:
        RepositoryError: if there is no repository, or its own metadata does not verify.
    """
    directory = Path(directory)
    with opened(directory, utc(now), None, Keyring([directory / "keys"]), clock_ok=True) as repository:
        places = read_places(directory)
        delegations = repository.targets.signed.delegations
        names = [*TOP, *((delegations.roles if delegations else None) or {})]
        return [_row(repository, name, places) for name in names]


def _row(repository: Repository, name: str, places: dict[str, str]) -> RoleKeys:
    role = role_of(repository.root.signed, repository.targets.signed, name)
    here = dict(_here(repository.keyring, name))
    keys = {keyid: here.get(keyid) or _elsewhere(places.get(keyid, "")) for keyid in role.keyids}
    try:
        expires = repository.of(name).signed.expires
    except RepositoryError as error:
        return RoleKeys(name, role.threshold, keys, None, timedelta(), str(error))
    return RoleKeys(name, role.threshold, keys, expires, expires - repository.now)


def _here(keyring: Keyring, role: str) -> Iterator[tuple[str, str]]:
    for path in keyring.files(role):
        try:
            yield keyring.load(path).public_key.keyid, f"keys/{path.name}"
        except RepositoryError:
            continue  # encrypted, or no key: the place where it was seen says more


def _elsewhere(path: str) -> str:
    return path if not path or Path(path).exists() else f"{path} (not there now)"
