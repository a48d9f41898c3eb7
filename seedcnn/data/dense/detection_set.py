"""Pictures with boxes: what :func:`seedcnn.data.load_detection` returns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from seedcnn.arrays import F32, U8
from seedcnn.data.dense.place import Place
from seedcnn.data.dense.reading import Ahead, checked_picture
from seedcnn.data.image_set import Unreadable, selection

__all__ = ["DetectionBatch", "DetectionSet", "Object", "Objects", "from_lists"]


class Objects(NamedTuple):
    """The objects of one picture.

    Attributes:
        boxes: float32 [n, 4], x1, y1, x2, y2 in pixels of the picture; edges, so that a whole picture is (0, 0, w, h).
        labels: int64 [n], indices into ``classes``.
        crowd: bool [n], boxes around many objects at once, which neither train nor count (COCO's ``iscrowd``).
        difficult: bool [n], objects that VOC's rules do not count.
        areas: float64 [n], pixels of the object itself where its mask is known, else of its box.
        ids: int64 [n], of the annotations.
    """

    boxes: F32
    labels: npt.NDArray[np.int64]
    crowd: npt.NDArray[np.bool_]
    difficult: npt.NDArray[np.bool_]
    areas: npt.NDArray[np.float64]
    ids: npt.NDArray[np.int64]


class DetectionBatch(NamedTuple):
    """Decoded pictures, each uint8 [h, w, 3] of its own size, their objects, and their indices into the set."""

    images: list[U8]
    objects: list[Objects]
    indices: npt.NDArray[np.int64]


class Object(NamedTuple):
    """One object while a set is read: box (x1, y1, x2, y2), label, flags, area, id."""

    box: tuple[float, float, float, float]
    label: int
    crowd: bool
    difficult: bool
    area: float
    id: int


@dataclass(frozen=True, eq=False)
class DetectionSet:
    """Picture files with boxes, not decoded. :meth:`objects` has the objects of one picture.

    Attributes:
        place: the directory or zip file.
        files: strings [N], path of each picture below the place.
        sizes: int64 [N, 2], height and width of each picture, upright if ``orientation`` is "exif".
        image_ids: int64 [N], as in the annotations; 1 to N where they have none.
        offsets: int64 [N + 1]; objects ``offsets[i]`` to ``offsets[i + 1]`` belong to picture i.
        boxes, labels, crowd, difficult, areas, ids: of all objects [M], as in :class:`Objects`.
        classes: the names of the categories, by label.
        class_ids: the id of each category in the annotations, by label.
        source: where the set was read from, for messages.
        orientation: "exif" if pictures are turned upright, "stored" if they are taken as stored.
        skipped: pictures and objects that were left out because the caller asked for it.
    """

    place: Place
    files: npt.NDArray[np.str_]
    sizes: npt.NDArray[np.int64]
    image_ids: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    boxes: F32
    labels: npt.NDArray[np.int64]
    crowd: npt.NDArray[np.bool_]
    difficult: npt.NDArray[np.bool_]
    areas: npt.NDArray[np.float64]
    ids: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    class_ids: tuple[int, ...]
    source: str
    orientation: str = "exif"
    skipped: tuple[Unreadable, ...] = ()

    def __len__(self) -> int:
        return len(self.files)

    def objects(self, index: int) -> Objects:
        """The objects of picture ``index``; there may be none."""
        part = slice(*self.offsets[index : index + 2].tolist())
        return Objects(
            self.boxes[part],
            self.labels[part],
            self.crowd[part],
            self.difficult[part],
            self.areas[part],
            self.ids[part],
        )

    def picture(self, index: int) -> U8:
        """Decode picture ``index``: uint8 [h, w, 3], transparent pixels white.

        Raises:
            DataError: if it cannot be decoded, or has another size than its annotations say.
        """
        return checked_picture(self.place, str(self.files[index]), tuple(self.sizes[index]), self.orientation)

    def batches(self, size: int, *, threads: int | None = None) -> Iterator[DetectionBatch]:
        """Decode in batches, in order, up to two batches ahead of the reader.

        Args:
            size: pictures per batch; the last batch may have fewer.
            threads: number of threads that decode; None for one per core.

        Raises:
            ValueError: if an argument is out of range.
            DataError: at the batch with a picture that :meth:`picture` refuses.
        """
        for indices, images in Ahead(self.picture, len(self), size, threads):
            yield DetectionBatch(images, [self.objects(index) for index in indices.tolist()], indices)

    def take(self, which: npt.ArrayLike) -> DetectionSet:
        """The pictures that indices (int [m]) or a mask (bool [N]) select, in that order, with their objects."""
        picked = np.arange(len(self))[selection(which)]
        parts = [np.arange(*self.offsets[index : index + 2].tolist()) for index in picked.tolist()]
        rows = np.concatenate([*parts, np.empty(0, np.int64)]).astype(np.int64)
        counts = [len(part) for part in parts]
        pictures = {name: getattr(self, name)[picked] for name in ("files", "sizes", "image_ids")}
        names = ("boxes", "labels", "crowd", "difficult", "areas", "ids")
        objects = {name: getattr(self, name)[rows] for name in names}
        return replace(self, **pictures, **objects, offsets=_offsets(counts))

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Objects per class, crowds not counted, int64 [classes]."""
        return np.bincount(self.labels[~self.crowd], minlength=len(self.classes)).astype(np.int64)


def _offsets(counts: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.asarray(counts, np.int64))]).astype(np.int64)


def from_lists(
    place: Place,
    files: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    image_ids: Sequence[int],
    objects: Sequence[Sequence[Object]],
    classes: Sequence[str],
    class_ids: Sequence[int],
    orientation: str,
) -> DetectionSet:
    """Make a set of checked lists: one entry per picture, and one list of objects per picture."""
    flat = [each for part in objects for each in part]
    return DetectionSet(
        place,
        np.array(files, np.str_),
        np.array(sizes, np.int64).reshape(-1, 2),
        np.array(image_ids, np.int64),
        _offsets([len(part) for part in objects]),
        np.array([each.box for each in flat], np.float32).reshape(-1, 4),
        np.array([each.label for each in flat], np.int64),
        np.array([each.crowd for each in flat], np.bool_),
        np.array([each.difficult for each in flat], np.bool_),
        np.array([each.area for each in flat], np.float64),
        np.array([each.id for each in flat], np.int64),
        tuple(classes),
        tuple(class_ids),
        str(place.root),
        orientation,
    )
