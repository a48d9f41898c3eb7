"""Deltas in files, as commands name them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from seedcnn.errors import BundleError

if TYPE_CHECKING:
    from seedcnn.bundle.delta import Delta

__all__ = ["open_delta"]


def open_delta(path: str | Path) -> Delta:
    """Read and parse a delta file.

    Raises:
        BundleError: if it cannot be read, or see :func:`seedcnn.bundle.read_delta`; the message starts with the path.
    """
    from seedcnn.bundle import read_delta

    try:
        return read_delta(Path(path).read_bytes())
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from None
    except BundleError as error:
        raise type(error)(f"{path}: {error}") from None
