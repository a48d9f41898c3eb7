"""Turn what the file system refuses, and what does not verify, into sentences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tuf.api.exceptions import RepositoryError as TufRepositoryError

from seedcnn.errors import RepositoryError

__all__ = ["believed", "writing"]


@contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Turn what the file system refuses into a sentence."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise RepositoryError(f"{directory} cannot be written: {error.strerror or error}{where}") from None


@contextmanager
def believed(metadata: Path) -> Iterator[None]:
    """Turn what does not verify into a sentence."""
    try:
        yield
    except (OSError, KeyError, TufRepositoryError) as error:
        sentence = f"{metadata} holds metadata that was not signed by this repository's keys: {error}"
        raise RepositoryError(sentence) from None
