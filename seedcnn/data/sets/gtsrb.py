"""GTSRB, German traffic signs (Stallkamp et al., 2012), from the official archives or torchvision's directory."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np

from seedcnn.data.image_set import TrainTest, channel_statistics
from seedcnn.data.pictures.folder import FullFrame, ImageFolder, list_class_folders
from seedcnn.data.sets._layouts import missing_layout, some_of
from seedcnn.errors import DataError

__all__ = ["CLASSES", "list_gtsrb", "load_gtsrb"]

CLASSES = (
    "speed limit 20", "speed limit 30", "speed limit 50", "speed limit 60", "speed limit 70", "speed limit 80",
    "end of speed limit 80", "speed limit 100", "speed limit 120", "no passing", "no passing over 3.5 t",
    "right of way at next crossing", "priority road", "yield", "stop", "no vehicles", "no vehicles over 3.5 t",
    "no entry", "general danger", "curve left", "curve right", "double curve", "bumpy road", "slippery road",
    "road narrows on the right", "road works", "traffic signals", "pedestrians", "children", "bicycles", "ice or snow",
    "wild animals", "end of all limits", "turn right", "turn left", "straight on", "straight on or right",
    "straight on or left", "keep right", "keep left", "roundabout", "end of no passing", "end of no passing over 3.5 t",
)  # fmt: skip

# The full training set, and that of the 2011 competition, which torchvision downloads.
_TRAIN = {"Final_Training/Images": 39_209, "Training": 26_640}
_TEST, _TEST_COUNT = "Final_Test/Images", 12_630
_LABELS = "GT-final_test.csv"
_BASES = (".", "GTSRB", "gtsrb/GTSRB")
_EXPECTED = (
    f"GTSRB/Final_Training/Images/<00000..00042>/*.ppm (or torchvision's gtsrb/GTSRB/Training), GTSRB/{_TEST}/*.ppm "
    f"and {_LABELS} in the folder of the test images, in GTSRB, or in the folder above it"
)


def list_gtsrb(root: str | os.PathLike[str], *, verify: bool = True) -> tuple[ImageFolder, ImageFolder]:
    """List the training and the test images.

    Args:
        root: a directory with the unpacked archives, directly or in ``GTSRB`` or ``gtsrb/GTSRB``. It is only read.
            ``Final_Training`` (39,209 images, as in the papers) takes precedence over ``Training`` (26,640).
        verify: compare the numbers of images with those of the original.

    The case of file names (.PPM) and a byte-order mark in the table of labels make no difference.

    Raises:
        DataError: if the layout is missing or incomplete, or labels and test images do not match.
    """
    root = Path(root)
    train = _list_train(root, verify)
    base = next((root / base for base in _BASES if (root / base / _TEST).is_dir()), None)
    if base is None:
        raise missing_layout("GTSRB (test)", root, _EXPECTED)
    test = _list_test(base)
    if verify and len(test) != _TEST_COUNT:
        raise DataError(f"{test.root} has {len(test)} images; the original has {_TEST_COUNT}")
    return train, test


def load_gtsrb(
    root: str | os.PathLike[str],
    *,
    size: int = 32,
    verify: bool = True,
    on_error: str = "raise",
    threads: int | None = None,
) -> TrainTest:
    """Load GTSRB: the full frame, not the box around the sign, resized to a square (bilinear).

    Args:
        root, verify: as for ``list_gtsrb``.
        size: side of the images, in pixels.
        on_error, threads: as for ``ImageFolder.load``.

    Returns:
        Both parts, with mean and standard deviation of the training pixels.

    Raises:
        DataError: as for ``list_gtsrb``, or if images cannot be decoded.
    """
    train, test = (
        part.load(FullFrame(size), on_error=on_error, threads=threads) for part in list_gtsrb(root, verify=verify)
    )
    mean, std = channel_statistics(train.images)
    return TrainTest(train, test, mean, std)


def _list_train(root: Path, verify: bool) -> ImageFolder:
    for place, count in _TRAIN.items():
        for directory in (root / base / place for base in _BASES):
            if directory.is_dir():
                listed = list_class_folders(directory, "GTSRB", _EXPECTED, suffixes=(".ppm",), classes=len(CLASSES))
                wanted = tuple(f"{label:05d}" for label in range(len(CLASSES)))
                if listed.classes != wanted:
                    odd = some_of(sorted(set(listed.classes) - set(wanted)))
                    raise DataError(f"{directory} has the class folders {odd}; they must be 00000 to 00042")
                if verify and len(listed) != count:
                    raise DataError(f"{directory} has {len(listed)} images; the original has {count}")
                return ImageFolder(directory, listed.names, listed.labels, CLASSES, listed.source)
    raise missing_layout("GTSRB (train)", root, _EXPECTED)


def _list_test(base: Path) -> ImageFolder:
    directory = base / _TEST
    places = [directory / _LABELS, base / _LABELS, base.parent / _LABELS]
    table = next((path for path in places if path.is_file()), None)
    if table is None:
        looked = some_of(map(str, places))
        raise DataError(f"the labels of {directory} are missing; looked for {looked} (in GTSRB_Final_Test_GT.zip)")
    names, labels = _read_labels(table)
    files = sorted(name for name in os.listdir(directory) if name[0] != "." and name.lower().endswith(".ppm"))
    # Some file systems and archives make the names upper-case, and the table keeps its own.
    present = {name.lower(): name for name in files}
    if len(present) < len(files):
        twice = some_of(name for name in files if present[name.lower()] != name)
        raise DataError(f"{directory} holds images whose names differ only in case: {twice}")
    listed = {name.lower(): name for name in names}
    for some, others, where in ((listed, present, directory), (present, listed, table)):
        if missing := sorted(some[key] for key in some.keys() - others.keys()):
            raise DataError(f"{where} lacks {len(missing)} of the test images: {some_of(missing, 5)}")
    found = np.array([present[name.lower()] for name in names])
    return ImageFolder(directory, found, np.array(labels, np.int64), CLASSES, str(directory))


def _read_labels(table: Path) -> tuple[list[str], list[int]]:
    names: list[str] = []
    labels: list[int] = []
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:  # Excel begins the file with a byte-order mark
            for line, row in enumerate(csv.DictReader(file, delimiter=";", skipinitialspace=True), 2):
                name, label = row["Filename"], int(row["ClassId"])
                if not 0 <= label < len(CLASSES) or Path(name).name != name:
                    raise ValueError(f"line {line} has {name!r} of class {label}; classes go from 0 to 42")
                names.append(name)
                labels.append(label)
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise DataError(f"{table} does not hold Filename;...;ClassId: {type(error).__name__}: {error}") from error
    distinct = len({name.lower() for name in names})
    if not names or distinct != len(names):
        raise DataError(f"{table} names {len(names)} images, {distinct} of them distinct; each must occur once")
    return names, labels
