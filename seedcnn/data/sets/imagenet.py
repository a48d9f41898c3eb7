"""ImageNet-1K (ILSVRC 2012) and ImageNet-C from their folder layouts, listed as folders of image files."""

from __future__ import annotations

import os
from pathlib import Path

from seedcnn.data.pictures.folder import ImageFolder, list_class_folders
from seedcnn.data.sets._layouts import found_in, missing_layout
from seedcnn.errors import DataError

__all__ = ["MEAN", "STD", "list_imagenet", "list_imagenet_c"]

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
_SUFFIXES = (".jpeg", ".jpg", ".png")
_CLASSES = 1000


def list_imagenet(root: str | os.PathLike[str], split: str = "val", *, classes: int | None = _CLASSES) -> ImageFolder:
    """List ``<root>/<split>/<wnid>/*.JPEG``; labels are the ranks of the WordNet ids, as usual.

    The usual evaluation decodes with ``CenterCrop(224, 256)``.

    Args:
        root: the directory that holds ``train`` and ``val``. It is only read.
        split: "train" or "val".
        classes: the required number of class folders; None accepts a subset, whose labels are ranks in that subset.

    Raises:
        DataError: if the layout is missing, the number of class folders is wrong, or one is empty.
        ValueError: if the split is not "train" or "val".
    """
    if split not in ("train", "val"):
        raise ValueError(f"`split` (={split!r}) must be 'train' or 'val'")
    expected = f"{split}/<wnid>/*.JPEG with {classes or 'some'} folders such as n01440764"
    directory = Path(root) / split
    if not directory.is_dir():
        raise missing_layout(f"ImageNet-1K ({split})", Path(root), expected)
    if not any(entry.is_dir() for entry in directory.iterdir()) and any(directory.glob("*.JPEG")):
        raise DataError(
            f"the images are directly in {directory}; expected {expected}. "
            "torchvision.datasets.ImageNet sorts the official archives into folders"
        )
    return list_class_folders(directory, "ImageNet-1K", expected, suffixes=_SUFFIXES, classes=classes)


def list_imagenet_c(
    root: str | os.PathLike[str], corruption: str, severity: int, *, classes: int | None = _CLASSES
) -> ImageFolder:
    """List ``<root>/<corruption>/<severity>/<wnid>/*.JPEG``, or the same one folder deeper.

    The official archives (noise, blur, weather, digital, extra) may be unpacked into one directory or into one
    directory each. The images are already 224 x 224: decode with ``CenterCrop(224, None)``.

    Args:
        root: the directory that holds the corruptions. It is only read.
        corruption: the name of a folder, for example "gaussian_noise".
        severity: 1 to 5.
        classes: as for ``list_imagenet``.

    Raises:
        DataError: if the layout is missing, the number of class folders is wrong, or one is empty.
        ValueError: if the severity is not 1 to 5, or the name is not an identifier.
    """
    if severity not in (1, 2, 3, 4, 5):
        raise ValueError(f"`severity` (={severity!r}) must be one of 1, 2, 3, 4, 5")
    if not corruption.isidentifier():
        raise ValueError(f"`corruption` (={corruption!r}) must be a name such as 'gaussian_noise'")
    base, expected = Path(root), f"{corruption}/<severity>/<wnid>/*.JPEG, directly or in a folder such as noise"
    places = [base / corruption, *sorted(base.glob(f"*/{corruption}"))]
    for place in places:
        if place.is_dir():
            if not (place / str(severity)).is_dir():
                raise DataError(f"{place} has no severity {severity}; expected {expected}. Found: {found_in(place)}")
            return list_class_folders(
                place / str(severity), "ImageNet-C", expected, suffixes=_SUFFIXES, classes=classes
            )
    raise missing_layout(f"ImageNet-C with {corruption}", base, expected)
