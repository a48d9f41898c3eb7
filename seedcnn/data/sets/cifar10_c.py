"""CIFAR-10-C (Hendrycks and Dietterich, 2019) from the official files: labels and one array per corruption."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seedcnn.data.image_set import ImageSet
from seedcnn.data.sets._layouts import missing_layout, some_of
from seedcnn.data.sets.cifar10 import CLASSES
from seedcnn.errors import DataError

__all__ = ["list_cifar10_c", "load_cifar10_c", "open_cifar10_c"]

_PICTURES = 10_000
_SEVERITIES = 5
_TOTAL = _PICTURES * _SEVERITIES
_PLACES = (".", "CIFAR-10-C")
_EXPECTED = (
    f"labels.npy ({_TOTAL} integers) and one <corruption>.npy per corruption, uint8 ({_TOTAL}, 32, 32, 3), severity 1 "
    "first, directly or in CIFAR-10-C, from https://zenodo.org/record/2535967"
)


def _directory(root: Path) -> Path:
    for place in _PLACES:
        if (root / place / "labels.npy").is_file():
            return root / place
    raise missing_layout("CIFAR-10-C", root, _EXPECTED)


def list_cifar10_c(root: str | os.PathLike[str]) -> tuple[str, ...]:
    """The corruptions in a directory, by the names of their files.

    Raises:
        DataError: if the directory holds no CIFAR-10-C.
    """
    directory = _directory(Path(root))
    names = tuple(sorted(path.stem for path in directory.glob("*.npy") if path.name != "labels.npy"))
    if not names:
        raise missing_layout("corruption of CIFAR-10-C", directory, _EXPECTED)
    return names


def open_cifar10_c(
    root: str | os.PathLike[str], corruption: str
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """All images of one corruption and their labels.

    Args:
        root: a directory with the official files, directly or in CIFAR-10-C. It is only read.
        corruption: the name of a file without its suffix, for example "gaussian_noise".

    Returns:
        Images uint8 [5, 10000, 32, 32, 3] by severity, memory-mapped, and labels int64 [5, 10000].

    Raises:
        DataError: if a file is missing, damaged or of another shape.
    """
    directory = _directory(Path(root))
    if corruption not in list_cifar10_c(directory):
        raise DataError(f"{directory} holds no {corruption!r}. Found: {some_of(list_cifar10_c(directory), 25)}")
    labels = _load(directory / "labels.npy", (_TOTAL,), "iu")
    images = _load(directory / f"{corruption}.npy", (_TOTAL, 32, 32, 3), "u")
    if labels.min() < 0 or labels.max() >= len(CLASSES):
        raise DataError(
            f"{directory / 'labels.npy'} has labels from {labels.min()} to {labels.max()}; they must be 0 to 9"
        )
    shape = (_SEVERITIES, _PICTURES)
    return images.reshape(*shape, 32, 32, 3), labels.reshape(shape).astype(np.int64)


def load_cifar10_c(root: str | os.PathLike[str], corruption: str, severity: int) -> ImageSet:
    """The 10,000 test images with one corruption at one severity, in the order of CIFAR-10's test set.

    Args:
        root, corruption: as for :func:`open_cifar10_c`.
        severity: 1 to 5.

    Raises:
        DataError: as for :func:`open_cifar10_c`.
        ValueError: if the severity is not 1 to 5.
    """
    if severity not in range(1, _SEVERITIES + 1):
        raise ValueError(f"`severity` (={severity!r}) must be one of 1, 2, 3, 4, 5")
    images, labels = open_cifar10_c(root, corruption)
    source = f"{_directory(Path(root)) / corruption}.npy, severity {severity}"
    return ImageSet(np.array(images[severity - 1]), labels[severity - 1], CLASSES, source)


def _load(path: Path, shape: tuple[int, ...], kinds: str) -> npt.NDArray[Any]:
    """A memory-mapped array, checked for its shape and kind."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read as an array: {error}") from error
    right_kind = isinstance(array, np.ndarray) and array.dtype.kind in kinds
    if not right_kind or array.shape != shape or (len(shape) > 1 and array.dtype != np.uint8):
        found = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else "an archive"
        raise DataError(f"{path} is {found}; it must be {'uint8' if len(shape) > 1 else 'integers'} {shape}")
    return array
