"""Icons-50 (Hendrycks and Dietterich, 2018) in the authors' layout, and its three ways to hold out a test set."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seedcnn.data.image_set import ImageSet, TrainTest
from seedcnn.data.pictures.folder import FullFrame, ImageFolder, list_class_folders
from seedcnn.data.sets._layouts import some_of
from seedcnn.errors import DataError

__all__ = [
    "HELD_OUT_STYLES",
    "hold_out_style",
    "hold_out_subtypes",
    "hold_out_traditional",
    "icons50_mapping",
    "list_icons50",
    "load_icons50",
]

HELD_OUT_STYLES = ("apple", "facebook", "google", "samsung")  # in turn, in the GroupNL and MonoCNN papers
_PICTURES = 10_000
_CLASSES = 50
_SUFFIXES = (".png",)
_EXPECTED = "<class>/<style>_<rendition>_<subtype>.png with 50 class folders, itself or in Icons-50"
_NO_MEAN, _NO_STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # the authors do not normalise


@lru_cache(maxsize=1)
def icons50_mapping() -> dict[str, Any]:
    """What the set is made of: "classes" (class -> subtype -> code points), "stand_ins" (the same, for subtypes that
    are not in the real set), "heldout_subtypes" (the authors' list). Code points are upper-case and hyphenated, with
    every FE0F removed.
    """
    content = json.loads(resources.files("seedcnn.data.sets").joinpath("icons50.json").read_text("utf-8"))
    if not isinstance(content, dict):
        raise DataError("icons50.json in the package seedcnn.data.sets is not an object; install the package anew")
    return content


def list_icons50(root: str | os.PathLike[str], *, verify: bool = True) -> ImageFolder:
    """List the pictures, with the vendor as each one's style.

    Args:
        root: a directory that holds the class folders, itself or in ``Icons-50``. It is only read.
        verify: compare the class folders with the 50 of the original, and the pictures with its 10,000.

    Raises:
        DataError: if the layout is not there, or not complete.
    """
    root = Path(root)
    directory = root / "Icons-50" if (root / "Icons-50").is_dir() else root
    listed = list_class_folders(
        directory, "Icons-50", _EXPECTED, suffixes=_SUFFIXES, classes=_CLASSES if verify else None
    )
    parts = [name.split("/")[1].split("_", 2) for name in listed.names.tolist()]
    odd = [name for name, part in zip(listed.names.tolist(), parts, strict=True) if len(part) < 3 or not part[0]]
    if odd:
        raise DataError(f"{len(odd)} files under {directory} are not named {_EXPECTED}: {some_of(odd, 5)}")
    if verify and listed.classes != tuple(icons50_mapping()["classes"]):
        unknown = sorted(set(listed.classes) - set(icons50_mapping()["classes"]))
        raise DataError(f"{directory} has class folders that Icons-50 does not have: {some_of(unknown)}")
    if verify and len(listed) != _PICTURES:
        raise DataError(f"{directory} has {len(listed)} pictures; Icons-50 has {_PICTURES}")
    styles = np.array([part[0] for part in parts])
    return ImageFolder(directory, listed.names, listed.labels, listed.classes, listed.source, styles)


def load_icons50(
    root: str | os.PathLike[str],
    *,
    size: int = 32,
    verify: bool = True,
    on_error: str = "raise",
    threads: int | None = None,
) -> ImageSet:
    """Load all of Icons-50, squeezed to a square (bilinear), in the order of the file names.

    Args:
        root, verify: as for ``list_icons50``.
        size: side of the pictures, in pixels; the papers use 32.
        on_error, threads: as for ``ImageFolder.load``.

    Returns:
        The pictures with styles (vendors) and names; give it to one of the ``hold_out`` functions.

    Raises:
        DataError: as ``list_icons50``, or if pictures cannot be decoded.
    """
    return list_icons50(root, verify=verify).load(FullFrame(size), on_error=on_error, threads=threads)


def hold_out_style(data: ImageSet, style: str | Sequence[str]) -> TrainTest:
    """Test on every picture whose path (below the class folders' parent) contains ``style``, train on the rest.

    Matching by substring is the authors' rule. In a set without names the styles are matched.

    Args:
        data: a set with names or styles.
        style: a part of a path such as "apple", or several, all of which are held out.

    Raises:
        ValueError: if a style matches nothing, nothing is left to train on, or the set has neither names nor styles.
    """
    styles = [style] if isinstance(style, str) else list(style)
    if not styles or not all(styles) or len(set(styles)) < len(styles):
        raise ValueError(f"`style` (={style!r}) must be parts of paths, such as 'apple', none empty, none twice")
    texts = data.names if data.names is not None else data.styles
    if texts is None:
        raise ValueError(f"`data` ({data.source}) has neither names nor styles to match {style!r} with")
    known = "" if data.styles is None else f"; styles: {some_of(np.unique(data.styles).tolist(), 20)}"
    held = np.zeros(len(data), bool)
    for each in styles:
        mine = np.array([each in text for text in texts.tolist()], bool)
        if not mine.any():
            raise ValueError(f"`style` (={each!r}) is in none of the {len(data)} names{known}")
        held |= mine
    return _divide(data, held, f"`style` (={style!r})", known)


def hold_out_subtypes(data: ImageSet, subtypes: Sequence[str] | None = None) -> TrainTest:
    """Test on every picture whose file name contains one of the subtypes, train on the rest.

    Args:
        data: a set with names.
        subtypes: substrings; None for the authors' 50, which leave 9 classes without a test picture.

    Raises:
        ValueError: if that leaves one side empty, or the set has no names.
    """
    wanted = tuple(icons50_mapping()["heldout_subtypes"]) if subtypes is None else tuple(subtypes)
    if isinstance(subtypes, str) or not all(wanted) or not wanted:
        raise ValueError(f"`subtypes` (={subtypes!r}) must be a list of texts, none of them empty")
    files = _file_names(data)
    held = np.array([any(each in name for each in wanted) for name in files], bool)
    return _divide(data, held, f"`subtypes` (={some_of(wanted, 5)})", "")


def hold_out_traditional(data: ImageSet) -> TrainTest:
    """The authors' "traditional" division: test on every picture with "_2" in its file name, train on the rest.

    These are the second renditions, and by an accident of the rule all subtypes that end in ``type_1_2``.

    Raises:
        ValueError: if that leaves one side empty, or the set has no names.
    """
    held = np.array(["_2" in name for name in _file_names(data)], bool)
    return _divide(data, held, "the rule '_2'", "")


def _file_names(data: ImageSet) -> list[str]:
    if data.names is None:
        raise ValueError(f"`data` ({data.source}) has no names; this division needs the authors' file names")
    return [name.rsplit("/", 1)[-1] for name in data.names.tolist()]


def _divide(data: ImageSet, held: npt.NDArray[np.bool_], rule: str, known: str) -> TrainTest:
    if not held.any() or held.all():
        raise ValueError(f"{rule} is in {int(held.sum())} of {len(data)} names; both sides need pictures{known}")
    return TrainTest(data.take(~held), data.take(held), _NO_MEAN, _NO_STD)
