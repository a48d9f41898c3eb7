"""PASCAL VOC's layout: ``VOC2007/{JPEGImages,Annotations,ImageSets}``, directly or in ``VOCdevkit/``."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np

from seedcnn.data.dense.boxes import box_problem, clipped
from seedcnn.data.dense.detection_set import Object
from seedcnn.data.dense.drafts import Draft, Picture, declared, one_split
from seedcnn.data.dense.place import Place, inner
from seedcnn.data.dense.problems import Problems
from seedcnn.data.dense.segmentation_set import IGNORE, IndexFiles
from seedcnn.errors import DataError

__all__ = ["CLASSES", "EXPECTED", "draft_detection", "draft_segmentation"]

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
EXPECTED = (
    "VOC2007 or VOC2012, directly or in VOCdevkit, with JPEGImages, ImageSets and Annotations or SegmentationClass"
)
_XML_BYTES = 4 << 20
_AUGMENTED = {"train_aug": ("train_aug", "trainaug"), "trainaug": ("trainaug", "train_aug")}


def _years(place: Place) -> dict[str, str]:
    """{"2007": folder with a final "/"}; {"": ""} for a root that is a year's folder itself."""
    if place.names("ImageSets"):
        return {"": ""}
    return {
        name.removeprefix("VOC"): f"{above}{name}/"
        for above in ("", "VOCdevkit/")
        for name in place.names(above.rstrip("/"))
        if name.startswith("VOC") and place.names(f"{above}{name}/ImageSets")
    }


def _parts(place: Place, kind: str, split: str) -> list[tuple[str, str, str]]:
    """(folder, list file, split) for each part of a split such as "2007/trainval+2012/trainval"."""
    years = _years(place)
    lists = {
        f"{year}/{name.removesuffix('.txt')}".lstrip("/"): (folder, f"{folder}ImageSets/{kind}/{name}")
        for year, folder in years.items()
        for name in place.names(f"{folder}ImageSets/{kind}")
        if name.endswith(".txt")
    }
    parts = []
    for each in split.split("+"):
        last = each.rpartition("/")[2]
        ends = _AUGMENTED.get(last, (last,))
        names = [listed for end in ends for listed in lists if listed in (end, f"{each.removesuffix(last)}{end}")]
        if "/" not in each and not names:  # a year that is the only one with such a list need not be named
            names = [listed for end in ends for listed in lists if listed.endswith(f"/{end}")]
        name = names[0] if len(names) == 1 else each
        chosen = one_split(place, f"lists in ImageSets/{kind} of PASCAL VOC", EXPECTED, list(lists), name)
        parts.append((*lists[chosen], chosen.rpartition("/")[2]))
    return parts


def _lines(place: Place, name: str) -> list[list[str]]:
    try:
        found = [line.split() for line in place.read(name, 64 << 20).decode("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise DataError(f"{place.path(name)} is not text in UTF-8") from None
    if not found:
        raise DataError(f"{place.path(name)} lists no picture")
    first = [line[0] for line in found]
    if len(set(first)) < len(first):
        twice = next(each for each in first if first.count(each) > 1)
        raise DataError(f"{place.path(name)} lists {twice} twice; each picture may be there once")
    return found


def _number(parent: ET.Element, tag: str, what: str) -> float:
    text = parent.findtext(tag)
    try:
        return float((text or "").strip())
    except ValueError:
        raise DataError(f"{what} has the {tag} {text!r}; it must be a number") from None


def _flag(each: ET.Element, what: str) -> bool:
    text = (each.findtext("difficult") or "0").strip()
    if text not in ("0", "1"):
        raise DataError(f"{what} has difficult {text!r}; it must be 0 or 1")
    return text == "1"


def _picture(
    place: Place, name: str, first: int, label: dict[str, int], problems: Problems
) -> tuple[tuple[int, int], list[Object]]:
    """Height and width, and objects, of an annotation file; ids count from ``first``."""
    path = place.path(name)
    try:
        root = ET.fromstring(place.read(name, _XML_BYTES))
    except ET.ParseError as error:
        raise DataError(f"{path} is not XML: {error}") from None
    size = root.find("size")
    if size is None:
        raise DataError(f"{path} has no size; it must state the width and height of its picture")
    height, width = (_number(size, tag, path) for tag in ("height", "width"))
    if not (height.is_integer() and width.is_integer() and min(height, width) > 0):
        raise DataError(f"{path} states {width:g} x {height:g} pixels; both must be positive integers")
    objects: list[Object] = []
    for index, each in enumerate(root.findall("object"), 1):
        what = f"object {index} of {path}"
        category, box = (each.findtext("name") or "").strip(), each.find("bndbox")
        if category not in label:
            raise DataError(f"{what} has the category {category!r}, which is not declared")
        if box is None:
            raise DataError(f"{what} has no bndbox")
        x1, y1, x2, y2 = (_number(box, tag, what) for tag in ("xmin", "ymin", "xmax", "ymax"))
        # Pixels count from 1, and xmax and ymax are inside.
        corners = (x1 - 1, y1 - 1, x2, y2)
        difficult = _flag(each, what)
        if problem := box_problem(corners, int(height), int(width)):
            problems.add(what, f"{problem} (VOC's pixels count from 1)")
            continue
        corners = clipped(corners, int(height), int(width))
        area = (corners[2] - corners[0]) * (corners[3] - corners[1])
        objects.append(Object(corners, label[category], False, difficult, area, first + len(objects)))
    return (int(height), int(width)), objects


def draft_detection(place: Place, split: str, problems: Problems) -> Draft:
    """List a split; what is wrong with single boxes goes to ``problems``.

    The categories are VOC's 20, or those of a ``classes.json`` at the root.

    Raises:
        DataError: if a list or an annotation file is missing, or not what it must be.
    """
    palette = declared(place)
    classes = palette.classes if palette else CLASSES
    label = {name: index for index, name in enumerate(classes)}
    pictures: list[Picture] = []
    count = 0
    parts = _parts(place, "Main", split)
    for folder, listed, _ in parts:
        for line in _lines(place, listed):
            name = inner(line[0], place.path(listed))
            size, objects = _picture(place, f"{folder}Annotations/{name}.xml", count + 1, label, problems)
            count += len(objects)
            pictures.append(Picture(f"{folder}JPEGImages/{name}.jpg", size, len(pictures) + 1, tuple(objects)))
    source = " and ".join(place.path(listed) for _, listed, _ in parts)
    return Draft(tuple(pictures), classes, tuple(range(1, len(classes) + 1)), source)


def draft_segmentation(place: Place, split: str) -> tuple[Draft, IndexFiles]:
    """List a split with its index maps: 0 is the background, 255 is ignored.

    ``train_aug`` (10,582 pictures, with the masks of Hariharan et al., ICCV 2011) reads ``SegmentationClassAug``; its
    list holds names, or paths of a picture and its map.

    Raises:
        DataError: as for :func:`draft_detection`.
    """
    palette = declared(place)
    classes = palette.classes if palette else ("background", *CLASSES)
    pictures: list[Picture] = []
    maps: list[str] = []
    parts = _parts(place, "Segmentation", split)
    for folder, listed, chosen in parts:
        masks = "SegmentationClassAug" if chosen in _AUGMENTED else "SegmentationClass"
        for line in _lines(place, listed):
            if len(line) == 2:
                picture, mask = (inner(each.lstrip("/"), place.path(listed)) for each in line)
            else:
                name = inner(line[0], place.path(listed))
                picture, mask = f"JPEGImages/{name}.jpg", f"{masks}/{name}.png"
            pictures.append(Picture(f"{folder}{picture}", None, len(pictures) + 1))
            maps.append(f"{folder}{mask}")
    table = {index: index for index in range(len(classes))} | {IGNORE: IGNORE}
    rule = f"there are {len(classes)} classes, and 255 is ignored"
    source = " and ".join(place.path(listed) for _, listed, _ in parts)
    draft = Draft(tuple(pictures), classes, tuple(range(len(classes))), source)
    return draft, IndexFiles(place, np.array(maps, np.str_), table, rule)
