"""Icons-50 (Hendrycks and Dietterich, 2018) in the authors' layout, and three ways to hold out a test set."""

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

HELD_OUT_STYLES = ("apple", "facebook", "google", "samsung")  # one at a time, in the GroupNL and MonoCNN papers
_PICTURES = 10_000
_CLASSES = 50
_SUFFIXES = (".png",)
_EXPECTED = "<class>/<style>_<rendition>_<subtype>.png with 50 class folders, directly or in Icons-50"
_NO_MEAN, _NO_STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # the authors do not normalise


@lru_cache(maxsize=1)
def icons50_mapping() -> dict[str, Any]:
    """The contents of the set: "classes" (class -> subtype -> code points), "stand_ins" (the same, for subtypes that
    the original does not have), and "heldout_subtypes" (the authors' list).

    Code points are in upper case and joined by hyphens, without FE0F.
    """
    content = json.loads(resources.files("seedcnn.data.sets").joinpath("icons50.json").read_text("utf-8"))
    if not isinstance(content, dict):
        raise DataError("icons50.json in the package seedcnn.data.sets is not an object; install seedcnn again")
    return content


def list_icons50(root: str | os.PathLike[str], *, verify: bool = True) -> ImageFolder:
    """List the images, with the vendor as the style of each.

    Args:
        root: a directory with the class folders, directly or in ``Icons-50``. It is only read.
        verify: require the 50 class folders and the 10,000 images of the original.

    Raises:
        DataError: if the layout is missing or incomplete.
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
        raise DataError(f"{directory} has {len(listed)} images; Icons-50 has {_PICTURES}")
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
    """Load all of Icons-50, resized to a square (bilinear), in the order of the file names.

    Args:
        root, verify: as for ``list_icons50``.
        size: side of the images, in pixels; the papers use 32.
        on_error, threads: as for ``ImageFolder.load``.

    Returns:
        The images with styles (vendors) and names, ready for one of the ``hold_out`` functions.

    Raises:
        DataError: as for ``list_icons50``, or if images cannot be decoded.
    """
    return list_icons50(root, verify=verify).load(FullFrame(size), on_error=on_error, threads=threads)


def hold_out_style(data: ImageSet, style: str | Sequence[str]) -> TrainTest:
    """Test on every image whose path (class folder and file name) contains ``style``, and train on the rest.

    The authors match substrings of paths. A set without names is matched by its styles.

    Args:
        data: a set with names or styles.
        style: a substring of a path such as "apple", or several, all of which are held out.

    Raises:
        ValueError: if a style matches no image, no image is left to train on, or the set has neither names nor styles.
    """
    styles = [style] if isinstance(style, str) else list(style)
    if not styles or not all(styles) or len(set(styles)) < len(styles):
        raise ValueError(f"`style` (={style!r}) must be distinct, non-empty parts of paths, such as 'apple'")
    texts = data.names if data.names is not None else data.styles
    if texts is None:
        raise ValueError(f"`data` ({data.source}) has neither names nor styles to match with {style!r}")
    known = "" if data.styles is None else f"; styles: {some_of(np.unique(data.styles).tolist(), 20)}"
    held = np.zeros(len(data), bool)
    for each in styles:
        mine = np.array([each in text for text in texts.tolist()], bool)
        if not mine.any():
            raise ValueError(f"`style` (={each!r}) matches none of the {len(data)} names{known}")
        held |= mine
    return _divide(data, held, f"`style` (={style!r})", known)


def hold_out_subtypes(data: ImageSet, subtypes: Sequence[str] | None = None) -> TrainTest:
    """Test on every image whose file name contains one of the subtypes, and train on the rest.

    Args:
        data: a set with names.
        subtypes: substrings; None for the authors' 50, with which 9 classes have no test image.

    Raises:
        ValueError: if one part would be empty, or the set has no names.
    """
    wanted = tuple(icons50_mapping()["heldout_subtypes"]) if subtypes is None else tuple(subtypes)
    if isinstance(subtypes, str) or not all(wanted) or not wanted:
        raise ValueError(f"`subtypes` (={subtypes!r}) must be a list of non-empty strings")
    files = _file_names(data)
    held = np.array([any(each in name for each in wanted) for name in files], bool)
    return _divide(data, held, f"`subtypes` (={some_of(wanted, 5)})", "")


def hold_out_traditional(data: ImageSet) -> TrainTest:
    """The authors' "traditional" split: test on every image with "_2" in its file name, and train on the rest.

    These are the second renditions and, as a side effect of the rule, all subtypes that end in ``type_1_2``.

    Raises:
        ValueError: if one part would be empty, or the set has no names.
    """
    held = np.array(["_2" in name for name in _file_names(data)], bool)
    return _divide(data, held, "the rule '_2'", "")


def _file_names(data: ImageSet) -> list[str]:
    if data.names is None:
        raise ValueError(f"`data` ({data.source}) has no names; this split needs the authors' file names")
    return [name.rsplit("/", 1)[-1] for name in data.names.tolist()]


def _divide(data: ImageSet, held: npt.NDArray[np.bool_], rule: str, known: str) -> TrainTest:
    if not held.any() or held.all():
        raise ValueError(f"{rule} matches {int(held.sum())} of {len(data)} names; both parts need images{known}")
    return TrainTest(data.take(~held), data.take(held), _NO_MEAN, _NO_STD)
