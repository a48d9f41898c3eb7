"""One publisher at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seedcnn.errors import RepositoryError

__all__ = ["exclusive"]


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold ``directory/lock``; two publishers never write at once.

    Raises:
        RepositoryError: if another process holds it.
    """
    with open(directory / "lock", "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RepositoryError(f"{directory} is locked: another process is publishing there") from None
        yield
