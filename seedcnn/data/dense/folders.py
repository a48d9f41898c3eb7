"""Layouts of picture files beside index maps: Cityscapes, CamVid, and pairs with a ``classes.json``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

import numpy as np

from seedcnn.data.dense.drafts import PICTURES, Draft, Picture, declared, one_split
from seedcnn.data.dense.place import Place
from seedcnn.data.dense.segmentation_set import IGNORE, IndexFiles
from seedcnn.data.sets._layouts import some_of
from seedcnn.errors import DataError

__all__ = [
    "CAMVID",
    "CITYSCAPES",
    "EXPECTED_CAMVID",
    "EXPECTED_CITYSCAPES",
    "EXPECTED_PAIRS",
    "draft_camvid",
    "draft_cityscapes",
    "draft_pairs",
]

CITYSCAPES: Mapping[str, int] = {
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}
"""The 19 evaluated classes by train id, with their label ids (cityscapesScripts, ``helpers/labels.py``)."""

CAMVID = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
"""The 11 classes of SegNet's CamVid (Badrinarayanan et al., 2017), by index."""

EXPECTED_CITYSCAPES = "leftImg8bit/SPLIT/CITY/*_leftImg8bit.png and gtFine/SPLIT/CITY/*_gtFine_labelIds.png"
EXPECTED_CAMVID = "SPLIT/*.png and SPLITannot/*.png (SegNet's files)"
EXPECTED_PAIRS = "classes.json, SPLIT/ with pictures and SPLIT_masks/ with a PNG of the same name for each"
_LABEL_IDS = 34  # 0 to 33; licence plates are -1, which 8 bits hold as 255


def draft_cityscapes(place: Place, split: str) -> tuple[Draft, IndexFiles]:
    """List a split of Cityscapes with its 19 classes; all other label ids are ignored.

    Raises:
        DataError: if there is none, or a picture has no map.
    """
    split = one_split(place, "Cityscapes", EXPECTED_CITYSCAPES, place.names("leftImg8bit"), split)
    end = "_leftImg8bit.png"
    stems = [
        f"{split}/{city}/{name.removesuffix(end)}"
        for city in place.names(f"leftImg8bit/{split}")
        for name in place.names(f"leftImg8bit/{split}/{city}")
        if name.endswith(end)
    ]
    files = [f"leftImg8bit/{stem}{end}" for stem in stems]
    maps = [f"gtFine/{stem}_gtFine_labelIds.png" for stem in stems]
    table = dict.fromkeys(range(_LABEL_IDS), IGNORE) | {255: IGNORE}
    table |= {label: index for index, label in enumerate(CITYSCAPES.values())}
    rule = f"Cityscapes has the label ids 0 to {_LABEL_IDS - 1}"
    source = place.path(f"leftImg8bit/{split}")
    return _draft(place, files, maps, tuple(CITYSCAPES), tuple(CITYSCAPES.values()), table, rule, source)


def draft_camvid(place: Place, split: str) -> tuple[Draft, IndexFiles]:
    """List a split of CamVid in SegNet's form; the indices 11 (unlabelled) and 255 are ignored.

    Raises:
        DataError: if there is none, a picture has no map, or a map no picture.
    """
    palette = declared(place)
    if palette is not None and palette.classes != CAMVID:
        raise DataError(f"{place.root} declares other classes in classes.json than CamVid's; they would be ignored")
    files, maps, folder = _beside(place, split, "annot", EXPECTED_CAMVID, "CamVid")
    table = {index: index for index in range(len(CAMVID))} | {len(CAMVID): IGNORE, 255: IGNORE}
    rule = f"CamVid has {len(CAMVID)} classes, and ignores {len(CAMVID)} and 255"
    return _draft(place, files, maps, CAMVID, tuple(range(len(CAMVID))), table, rule, place.path(folder))


def draft_pairs(place: Place, split: str) -> tuple[Draft, IndexFiles]:
    """List a split of pictures and index maps whose classes ``classes.json`` declares.

    Raises:
        DataError: if there is none, a picture has no map, or a map no picture.
    """
    palette = declared(place)
    if palette is None:
        raise DataError(f"{place.root} has no classes.json. Expected: {EXPECTED_PAIRS}. Found: {place.found()}")
    files, maps, folder = _beside(place, split, "_masks", EXPECTED_PAIRS, "pairs of pictures and masks")
    n = len(palette.classes)
    table = {index: index for index in range(n)} | ({} if palette.ignore is None else {palette.ignore: IGNORE})
    ignored = "ignores none" if palette.ignore is None else f"ignores {palette.ignore}"
    rule = f"classes.json declares {n} classes and {ignored}"
    return _draft(place, files, maps, palette.classes, tuple(range(n)), table, rule, place.path(folder))


def _beside(place: Place, split: str, ending: str, expected: str, what: str) -> tuple[list[str], list[str], str]:
    """Pictures of a split and their maps in the folder beside it, and the folder of the split."""
    folders = place.names()
    known = [name for name in folders if f"{name}{ending}" in folders]
    split = one_split(place, what, expected, known, split)
    pictures = {PurePosixPath(name).stem: name for name in place.names(split) if name.lower().endswith(PICTURES)}
    listed = [name for name in place.names(split) if name.lower().endswith(PICTURES)]
    if len(pictures) < len(listed):
        twice = next(name for name in listed if pictures[PurePosixPath(name).stem] != name)
        raise DataError(
            f"{place.path(split)} has {twice} and {pictures[PurePosixPath(twice).stem]}; one mask is for both"
        )
    masks = {name.removesuffix(".png") for name in place.names(f"{split}{ending}") if name.endswith(".png")}
    if alone := sorted(masks - set(pictures)):
        raise DataError(f"{place.path(f'{split}{ending}')} has masks without a picture: {some_of(alone, 5)}")
    files = [f"{split}/{name}" for name in pictures.values()]
    return files, [f"{split}{ending}/{stem}.png" for stem in pictures], split


def _draft(
    place: Place,
    files: list[str],
    maps: list[str],
    classes: tuple[str, ...],
    ids: tuple[int, ...],
    table: Mapping[int, int],
    rule: str,
    source: str,
) -> tuple[Draft, IndexFiles]:
    if not files:
        raise DataError(f"{source} holds no picture")
    pictures = tuple(Picture(file, None, index) for index, file in enumerate(files, 1))
    return Draft(pictures, classes, ids, source), IndexFiles(place, np.array(maps, np.str_), table, rule)
