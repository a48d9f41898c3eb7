"""COCO's layout: ``annotations/instances_SPLIT.json`` or ``annotations/SPLIT.json``, and pictures in ``SPLIT/``."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from seedcnn.arrays import U8
from seedcnn.data.dense.boxes import box_problem, clipped, numbers
from seedcnn.data.dense.detection_set import Object
from seedcnn.data.dense.drafts import Draft, Picture, one_split
from seedcnn.data.dense.place import Place, inner
from seedcnn.data.dense.problems import Problems
from seedcnn.data.dense.rle import mask_of, runs_of
from seedcnn.data.dense.segmentation_set import IGNORE
from seedcnn.errors import DataError
from seedcnn.literals import parse_json

__all__ = ["EXPECTED", "CocoMaps", "draft_detection", "draft_segmentation"]

EXPECTED = "annotations/instances_SPLIT.json (or annotations/SPLIT.json) and the pictures in SPLIT/"
_FOLDER, _PREFIX, _END = "annotations", "instances_", ".json"


@dataclass(frozen=True)
class _Annotation:
    id: int
    where: str
    image: int
    label: int
    content: dict[str, Any]


@dataclass(frozen=True)
class _File:
    """A checked annotation file: its images by id (file, height, width), categories by label, and annotations."""

    path: str
    images: dict[int, tuple[str, int, int]]
    classes: tuple[str, ...]
    class_ids: tuple[int, ...]
    annotations: dict[int, list[_Annotation]]


def _name(place: Place, split: str) -> tuple[str, str]:
    """The annotation file of a split, and the split."""
    files = {
        name.removesuffix(_END).removeprefix(_PREFIX): f"{_FOLDER}/{name}"
        for name in place.names(_FOLDER)
        if name.endswith(_END)
    }
    split = one_split(place, "COCO annotations", EXPECTED, list(files), split)
    both = [f"{_FOLDER}/{prefix}{split}{_END}" for prefix in (_PREFIX, "")]
    if all(map(place.is_file, both)):
        raise DataError(f"{place.root} has both {' and '.join(both)}; remove one")
    return files[split], split


def _read(place: Place, name: str, split: str) -> _File:
    path = place.path(name)
    try:
        content = parse_json(place.read(name))
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from None
    for part in ("images", "annotations", "categories"):
        listed = content.get(part) if isinstance(content, dict) else None
        if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
            raise DataError(
                f"{path} has no list of objects {part!r}; COCO's format needs images, annotations, categories"
            )
    classes, class_ids = _categories(content["categories"], path)
    images = _images(content["images"], path, split)
    label = {each: index for index, each in enumerate(class_ids)}
    annotations = defaultdict(list)
    seen: set[int] = set()
    for each in content["annotations"]:
        found = _annotation(each, path, images, label)
        if found.id in seen:
            raise DataError(f"{path} has two annotations with the id {found.id}; ids must be unique")
        seen.add(found.id)
        annotations[found.image].append(found)
    return _File(path, images, classes, class_ids, annotations)


def _id(value: dict[str, Any], key: str, what: str) -> int:
    found = value.get(key)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < 2**63:
        raise DataError(f"{what} has the {key} {found!r}; it must be an integer, not negative")
    return found


def _categories(listed: list[dict[str, Any]], path: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    found: dict[int, str] = {}
    for each in listed:
        identity, name = _id(each, "id", f"a category of {path}"), each.get("name")
        if not isinstance(name, str) or not name:
            raise DataError(f"category {identity} of {path} has the name {name!r}; it must be a text, not empty")
        if identity in found or name in found.values():
            raise DataError(
                f"{path} has two categories with the id {identity} or the name {name!r}; both must be unique"
            )
        found[identity] = name
    if not found:
        raise DataError(f"{path} declares no category; it must have one at least")
    return tuple(found[key] for key in sorted(found)), tuple(sorted(found))


def _images(listed: list[dict[str, Any]], path: str, split: str) -> dict[int, tuple[str, int, int]]:
    found: dict[int, tuple[str, int, int]] = {}
    files: dict[str, int] = {}
    for each in listed:
        identity = _id(each, "id", f"an image of {path}")
        what = f"image {identity} of {path}"
        name = each.get("file_name")
        if not isinstance(name, str):
            raise DataError(f"{what} has the file_name {name!r}; it must be a text")
        file = f"{split}/{inner(name, what)}"
        height, width = _id(each, "height", what), _id(each, "width", what)
        if not height or not width:
            raise DataError(f"{what} ({name}) has {width} x {height} pixels; both must be positive")
        if identity in found:
            raise DataError(f"{path} has two images with the id {identity} ({found[identity][0]}, {file})")
        if file in files:
            raise DataError(f"{path} names the file {file} in the images {files[file]} and {identity}; once is allowed")
        files[file] = identity
        found[identity] = (file, height, width)
    return found


def _annotation(
    each: dict[str, Any], path: str, images: dict[int, tuple[str, int, int]], label: dict[int, int]
) -> _Annotation:
    identity = _id(each, "id", f"an annotation of {path}")
    what = f"annotation {identity} of {path}"
    image, category = _id(each, "image_id", what), _id(each, "category_id", what)
    if image not in images:
        raise DataError(f"{what} belongs to image {image}, which the file does not list")
    if category not in label:
        raise DataError(f"{what} has the category {category}, which the file does not declare")
    return _Annotation(identity, f"{path}: annotation {identity} of {images[image][0]}", image, label[category], each)


def _object(found: _Annotation, height: int, width: int) -> Object | str:
    """The object of an annotation, or the end of a sentence."""
    box, crowd = numbers(found.content.get("bbox"), 4), found.content.get("iscrowd", 0)
    if box is None:
        return f"has the bbox {found.content.get('bbox')!r}; it must have four numbers, x, y, width, height"
    corners = (box[0], box[1], box[0] + box[2], box[1] + box[3])
    if problem := box_problem(corners, height, width):
        return problem
    if crowd not in (0, 1):
        return f"has iscrowd {crowd!r}; it must be 0 or 1"
    segmentation = found.content.get("segmentation")
    inside = clipped(corners, height, width)
    try:
        if isinstance(segmentation, dict):
            runs_of(segmentation, height, width)
        area = _area(found.content, inside, height, width)
    except ValueError as error:
        return str(error)
    return Object(inside, found.label, bool(crowd), False, area, found.id)


def _area(content: dict[str, Any], box: tuple[float, ...], height: int, width: int) -> float:
    """The stated area; else that of the mask; else that of the box."""
    if "area" in content:
        area = numbers([content["area"]], 1)
        if area is None or not 0 <= area[0] < float("inf"):
            raise ValueError(f"has the area {content['area']!r}; it must be a number, finite and not negative")
        return area[0]
    if content.get("segmentation"):
        return float(mask_of(content["segmentation"], height, width).sum())
    return (box[2] - box[0]) * (box[3] - box[1])


def draft_detection(place: Place, split: str, problems: Problems) -> Draft:
    """List a split; what is wrong with single boxes goes to ``problems``.

    Raises:
        DataError: if the annotation file is missing, or as a whole not what it must be.
    """
    name, split = _name(place, split)
    file = _read(place, name, split)
    pictures = []
    for identity, (picture, height, width) in file.images.items():
        objects = []
        for each in file.annotations.get(identity, ()):
            found = _object(each, height, width)
            if isinstance(found, str):
                problems.add(each.where, found)
            else:
                objects.append(found)
        pictures.append(Picture(picture, (height, width), identity, tuple(objects)))
    return Draft(tuple(pictures), file.classes, file.class_ids, file.path)


@dataclass(frozen=True, eq=False)
class CocoMaps:
    """Index maps that COCO's polygons and RLEs make: 0 is the background, category n is n + 1.

    Pixels that objects of different categories share are ignored, as torchvision's reference training does.

    Attributes:
        sizes: int64 [N, 2], height and width.
        names: strings [N].
        annotations: of each picture, (where, label, segmentation).
    """

    sizes: npt.NDArray[np.int64]
    names: npt.NDArray[np.str_]
    annotations: tuple[tuple[tuple[str, int, Any], ...], ...]

    def name(self, index: int) -> str:
        """The picture with its annotation file."""
        return str(self.names[index])

    def take(self, picked: npt.NDArray[np.int64]) -> CocoMaps:
        """The maps at indices, int64 [m]."""
        annotations = tuple(self.annotations[index] for index in picked.tolist())
        return replace(self, sizes=self.sizes[picked], names=self.names[picked], annotations=annotations)

    def read(self, index: int) -> U8:
        """Draw a map, uint8 [h, w].

        Raises:
            DataError: if a segmentation is not well-formed.
        """
        height, width = self.sizes[index].tolist()
        found = np.zeros((height, width), np.uint8)
        for where, label, segmentation in self.annotations[index]:
            try:
                inside = mask_of(segmentation, height, width).astype(bool)
            except ValueError as error:
                raise DataError(f"{where} {error}") from None
            clash = inside & (found != 0) & (found != label + 1)
            found[inside] = label + 1
            found[clash] = IGNORE
        return found


def draft_segmentation(place: Place, split: str) -> tuple[Draft, CocoMaps]:
    """List a split with the index maps that its segmentations make.

    Raises:
        DataError: as for :func:`draft_detection`, or if there are more than 253 categories.
    """
    name, split = _name(place, split)
    file = _read(place, name, split)
    if len(file.classes) > 253:
        raise DataError(f"{file.path} declares {len(file.classes)} categories; an index map holds 253 at most")
    pictures = tuple(Picture(path, (h, w), identity, ()) for identity, (path, h, w) in file.images.items())
    drawn = tuple(
        tuple((each.where, each.label, each.content.get("segmentation")) for each in file.annotations.get(identity, ()))
        for identity in file.images
    )
    sizes = np.array([picture.size for picture in pictures], np.int64).reshape(-1, 2)
    maps = CocoMaps(sizes, np.array([f"{file.path}: {each.file}" for each in pictures], np.str_), drawn)
    return Draft(pictures, ("background", *file.classes), (0, *file.class_ids), file.path), maps
