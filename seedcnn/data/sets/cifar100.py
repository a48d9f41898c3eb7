"""CIFAR-100 (Krizhevsky, 2009) from the official Python or binary layout."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from pathlib import Path

import numpy as np

from seedcnn.arrays import U8
from seedcnn.data.image_set import ImageSet, TrainTest
from seedcnn.data.sets._cifar10_layouts import BatchUnpickler, read_file
from seedcnn.data.sets._layouts import missing_layout
from seedcnn.errors import DataError

__all__ = ["CLASSES", "MEAN", "STD", "load_cifar100"]

MEAN = (0.50707516, 0.48654887, 0.44091784)
STD = (0.26733429, 0.25643846, 0.27615047)
_NAMES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
"""
CLASSES = tuple(_NAMES.split())

# SHA-1 of the binary form as published for cifar-100-binary by MXNet Gluon's CIFAR100 data set.
_SHA1 = {"train": "e207cd2e05b73b1393c74c7f5e7bea451d63e08e", "test": "8fb6623e830365ff53cf14adec797474f5478006"}
_PLACES = {"": (".", "cifar-100-python"), ".bin": (".", "cifar-100-binary")}
_EXPECTED = (
    "the files train and test (Python layout, usually in cifar-100-python) or train.bin and test.bin (binary layout, "
    "usually in cifar-100-binary), from https://www.cs.toronto.edu/~kriz/cifar.html"
)
_MAX_FILE_BYTES = 256 << 20
_RECORD = 2 + 3 * 32 * 32  # coarse label, fine label, three planes


def load_cifar100(root: str | os.PathLike[str], *, verify: bool = True) -> TrainTest:
    """Load CIFAR-100 with its 100 fine labels.

    Args:
        root: a directory with the official Python or binary layout, directly or in a subdirectory of the usual name.
            It is only read.
        verify: compare the SHA-1 of both parts, in binary form, with the original.

    Returns:
        50,000 training and 10,000 test images, 32 x 32, in their original order.

    Raises:
        DataError: if neither layout is found, or a file is missing, damaged or (with ``verify``) not the original.
    """
    root = Path(root)
    for suffix, places in _PLACES.items():
        for directory in (root / place for place in places):
            if any((directory / f"{part}{suffix}").is_file() for part in _SHA1):
                train, test = (_read_part(directory / f"{part}{suffix}", verify) for part in _SHA1)
                return TrainTest(train, test, MEAN, STD)
    raise missing_layout("CIFAR-100", root, _EXPECTED)


def _read_part(path: Path, verify: bool) -> ImageSet:
    data = read_file(path, _MAX_FILE_BYTES, "part of CIFAR-100")
    if path.suffix != ".bin":
        records = _unpickle(data, path)
    elif len(data) % _RECORD or not data:
        raise DataError(f"{path} has {len(data)} bytes; the binary layout has {_RECORD} per image")
    else:
        records = np.frombuffer(data, np.uint8).reshape(-1, _RECORD)
    found = hashlib.sha1(records.tobytes(), usedforsecurity=False).hexdigest()
    if verify and found != _SHA1[path.stem]:
        raise DataError(
            f"{path} is not the original {path.stem}: its SHA-1 in binary form is {found}, expected {_SHA1[path.stem]}"
        )
    fine = records[:, 1]
    if fine.max() >= len(CLASSES):
        raise DataError(f"{path} has the fine label {fine.max()}; labels go from 0 to {len(CLASSES) - 1}")
    images = np.ascontiguousarray(records[:, 2:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return ImageSet(images, fine.astype(np.int64), CLASSES, str(path))


def _unpickle(data: bytes, path: Path) -> U8:
    """A part in the Python layout as binary records [N, 3074]; runs no code from the pickle."""
    try:
        content = BatchUnpickler(io.BytesIO(data), encoding="latin1").load()
        pixels = content["data"]
        labels = [np.asarray(content[key]) for key in ("coarse_labels", "fine_labels")]
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (3072,):
            raise pickle.UnpicklingError("data must be uint8 [N, 3072]")
        if not len(pixels):
            raise pickle.UnpicklingError("it holds no images")
        for each in labels:
            if each.shape != (len(pixels),) or each.dtype.kind != "i" or not 0 <= each.min() <= each.max() <= 99:
                raise pickle.UnpicklingError(f"labels must be {len(pixels)} integers from 0 to 99")
        return np.concatenate([*(each[:, None].astype(np.uint8) for each in labels), pixels], axis=1)
    except Exception as error:  # a damaged pickle can raise any exception
        raise DataError(f"{path} is not a part of CIFAR-100: {type(error).__name__}: {error}") from error
