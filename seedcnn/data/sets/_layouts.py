"""Messages of the loaders for a directory with an unexpected layout."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from seedcnn.errors import DataError

__all__ = ["found_in", "missing_layout", "some_of"]


def some_of(items: Iterable[str], most: int = 10) -> str:
    """The first few items, and the number of the remaining ones."""
    listed = list(items)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return (", ".join(listed[:most]) + more) or "nothing"


def found_in(directory: Path) -> str:
    """The first few names in a directory, in alphabetical order."""
    return some_of(sorted(path.name for path in directory.iterdir()))


def missing_layout(what: str, root: Path, expected: str) -> DataError:
    """The error for a directory without the expected layout; it names both the layout and what was found."""
    if not root.is_dir():
        state = "is not a directory" if root.exists() else "does not exist"
        return DataError(f"the data directory {root} {state}. Expected for {what}: {expected}")
    return DataError(f"the data directory {root} holds no {what}. Expected: {expected}. Found: {found_in(root)}")
