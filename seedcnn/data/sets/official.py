"""Corrupted images as the authors published them, selected by index into the clean test set."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from seedcnn.arrays import U8
from seedcnn.data.image_set import ImageSet
from seedcnn.data.pictures.folder import CenterCrop, ImageFolder
from seedcnn.data.sets._layouts import some_of
from seedcnn.data.sets.cifar10_c import list_cifar10_c, open_cifar10_c
from seedcnn.data.sets.imagenet import list_imagenet_c
from seedcnn.errors import DataError

__all__ = ["OfficialFiles", "cifar10_c_files", "imagenet_c_files"]


class OfficialFiles(NamedTuple):
    """Corrupted images from files.

    Attributes:
        source: where the files are, for messages.
        pick: from (corruption, severity, indices int64 [n] into the clean test set) to uint8 [n, H, W, 3].
    """

    source: str
    pick: Callable[[str, int, npt.NDArray[np.int64]], U8]


def cifar10_c_files(root: str | os.PathLike[str], test: ImageSet) -> OfficialFiles:
    """CIFAR-10-C as published, for the test images of CIFAR-10.

    Args:
        root: see :func:`seedcnn.data.sets.cifar10_c.list_cifar10_c`.
        test: the clean test set; its labels must be those of the files.

    Raises:
        DataError: if files are missing or have other labels. ``pick`` raises it too.
    """
    names = list_cifar10_c(root)

    @lru_cache(maxsize=len(names))
    def opened(corruption: str) -> U8:
        images, labels = open_cifar10_c(root, corruption)
        if labels.shape[1] != len(test) or (labels != test.labels).any():
            raise DataError(f"the labels of {root} are not those of the {len(test)} images of {test.source}")
        return images

    opened(names[0])
    return OfficialFiles(str(root), lambda name, severity, where: np.asarray(opened(name)[severity - 1, where]))


def imagenet_c_files(root: str | os.PathLike[str], test: ImageSet, *, size: int = 224) -> OfficialFiles:
    """ImageNet-C as published, for images of the validation set of ImageNet-1K, matched by class and file name.

    Args:
        root: see :func:`seedcnn.data.sets.imagenet.list_imagenet_c`.
        test: the clean images, all or some of them, with names.
        size: side of the images, in pixels.

    Raises:
        ValueError: if ``test`` has no names.
        DataError: from ``pick``, if an image is missing or damaged.
    """
    if test.names is None:
        raise ValueError(f"`test` ({test.source}) has no names to match its corrupted images by")
    wanted, decode = test.names, CenterCrop(size, None)

    @lru_cache(maxsize=5)
    def listing(corruption: str, severity: int) -> tuple[ImageFolder, dict[str, int]]:
        listed = list_imagenet_c(root, corruption, severity, classes=None)
        return listed, {name: index for index, name in enumerate(listed.names.tolist())}

    def pick(corruption: str, severity: int, where: npt.NDArray[np.int64]) -> U8:
        listed, places = listing(corruption, severity)
        names = wanted[where].tolist()
        if missing := [name for name in names if name not in places]:
            raise DataError(f"{listed.root} lacks {len(missing)} of the test images: {some_of(missing, 5)}")
        return listed.take([places[name] for name in names]).load(decode).images

    return OfficialFiles(str(root), pick)
