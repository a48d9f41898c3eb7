"""One publisher at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seedcnn.errors import RepositoryError
from seedcnn.files import lock_file

__all__ = ["exclusive"]


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold ``directory/lock``, so that no two publishers write at the same time.

    Raises:
        RepositoryError: if another process holds it.
    """
    try:
        file = lock_file(directory / "lock")
    except BlockingIOError:
        raise RepositoryError(f"{directory} is locked: another process is publishing there") from None
    with file:
        yield
