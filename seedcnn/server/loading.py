"""Read the published state of a repository and check every signature, so that nothing foreign gets signed again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from tuf.api.exceptions import RepositoryError as TufRepositoryError
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from seedcnn.errors import RepositoryError
from seedcnn.server.clock import check_clock
from seedcnn.server.keys import Keyring
from seedcnn.server.lock import exclusive
from seedcnn.server.roles import Expires
from seedcnn.server.sentences import believed, writing
from seedcnn.server.state import Repository

__all__ = ["load", "opened"]

_OLDER = (
    "{} was made by an earlier version of seedcnn, whose targets.json lists every bundle; make a new repository beside "
    "it with seedcnn repo init and add-family, publish the bundles of public/targets there, and give devices its "
    "root.json"
)


def _roots(directory: Path) -> tuple[Metadata[Root], Metadata[Root]]:
    """Return ``DIR/root.json``, and the newest root that follows from it."""
    base: Metadata[Root] = Metadata.from_bytes((directory / "root.json").read_bytes())
    base.signed.verify_delegate("root", base.signed_bytes, base.signatures)
    root = base
    while (path := directory / "public" / "metadata" / f"{root.signed.version + 1}.root.json").exists():
        following: Metadata[Root] = Metadata.from_bytes(path.read_bytes())
        for above in (root, following):
            above.signed.verify_delegate("root", following.signed_bytes, following.signatures)
        if following.signed.version != root.signed.version + 1:
            raise TufRepositoryError(f"{path.name} is version {following.signed.version}")
        root = following
    return base, root


def load(directory: Path, now: datetime, expires: Expires, keyring: Keyring, *, clock_ok: bool) -> Repository:
    """Read the published state and check every signature and the clock, so that nothing foreign gets signed again.

    Raises:
        RepositoryError: if there is no repository, it has the layout of an earlier version, something does not verify,
            or the clock is implausible (see :func:`seedcnn.server.clock.check_clock`).
    """
    metadata = directory / "public" / "metadata"
    if not (directory / "root.json").is_file() or not metadata.is_dir():
        raise RepositoryError(f"{directory} is not a repository; make one with: seedcnn repo init {directory}")
    with believed(metadata):
        base, root = _roots(directory)

        def read(name: str, role: str) -> tuple[bytes, Metadata[Any]]:
            data = (metadata / name).read_bytes()
            parsed: Metadata[Any] = Metadata.from_bytes(data)
            if parsed.signed.type != role:
                raise TufRepositoryError(f"{name} holds {parsed.signed.type}, not {role}")
            try:
                root.signed.verify_delegate(role, parsed.signed_bytes, parsed.signatures)
            except UnsignedMetadataError:
                if base.signed.version == root.signed.version:
                    raise
                # A new root was written, and the command ended before the timestamp that belongs to it.
                base.signed.verify_delegate(role, parsed.signed_bytes, parsed.signatures)
            return data, parsed

        timestamp: Metadata[Timestamp] = read("timestamp.json", "timestamp")[1]
        meta = timestamp.signed.snapshot_meta
        snapshot: Metadata[Snapshot]
        data, snapshot = read(f"{meta.version}.snapshot.json", "snapshot")
        meta.verify_length_and_hashes(data)
        version = snapshot.signed.meta["targets.json"].version
        targets: Metadata[Targets] = read(f"{version}.targets.json", "targets")[1]
        if targets.signed.version != version:
            raise TufRepositoryError(f"{version}.targets.json is version {targets.signed.version}")
    if targets.signed.delegations is None:
        raise RepositoryError(_OLDER.format(directory))
    check_clock(timestamp.signed, now, clock_ok=clock_ok)
    return Repository(directory, now, expires, keyring, base, root, targets, snapshot, timestamp)


@contextmanager
def opened(
    directory: Path, now: datetime, expires: Expires | None, keyring: Keyring | None = None, *, clock_ok: bool = False
) -> Iterator[Repository]:
    """Load a repository and keep other publishers out.

    Raises:
        RepositoryError: see :func:`load`; or another process is publishing, or the file system refuses.
    """
    if not directory.is_dir():
        raise RepositoryError(f"{directory} is not a repository; make one with: seedcnn repo init {directory}")
    with writing(directory), exclusive(directory):
        keys = keyring or Keyring([directory / "keys"])
        yield load(directory, now, expires or Expires(), keys, clock_ok=clock_ok)
