"""The files that a device is asked about: pictures, directories of them, and batches in NumPy files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from seedcnn.arrays import U8
from seedcnn.bundle import Preprocessing
from seedcnn.errors import ImageError
from seedcnn.runtime.pictures import load_picture as load_image

__all__ = ["list_pictures", "load_batch", "load_image"]


def list_pictures(paths: Iterable[str | Path]) -> Iterator[Path]:
    """Yield the paths, and for a directory every file below it, by name; hidden files and directories are left out.

    A directory without a file is yielded itself, so that whoever reads it names it. Links are followed.

    Raises:
        ImageError: if a directory cannot be read.
    """
    for path in map(Path, paths):
        if not _is_directory(path):
            yield path
            continue
        found, seen = False, {path.resolve()}
        for where, directories, files in os.walk(path, onerror=_unreadable, followlinks=True):
            below = {name: Path(where, name).resolve() for name in sorted(directories) if not name.startswith(".")}
            directories[:] = [name for name, place in below.items() if place not in seen]  # links may lead in circles
            seen.update(below.values())
            for name in sorted(name for name in files if not name.startswith(".")):
                found = True
                yield Path(where, name)
        if not found:
            yield path


def _is_directory(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # whoever reads it says why
        return False


def _unreadable(error: OSError) -> None:
    raise ImageError(f"{error.filename} cannot be read: {error.strerror}")


def load_batch(path: str | Path, rule: Preprocessing) -> U8:
    """Read a batch of images from a ``.npy`` file.

    Returns:
        uint8 array [N, height, width, channels].

    Raises:
        ImageError: if it is not a NumPy file of that dtype and shape. Pickled objects are never loaded.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist") from None
    except (OSError, ValueError, EOFError) as error:
        raise ImageError(f"{path} cannot be read as a NumPy array: {error}") from None
    wanted = (rule.height, rule.width, rule.channels)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[1:] != wanted:
        raise ImageError(
            f"{path} holds {array.dtype} {array.shape}; the model takes uint8 [N, {', '.join(map(str, wanted))}]"
        )
    return array
