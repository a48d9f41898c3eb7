"""Pictures with a class for every pixel: what :func:`seedcnn.data.load_segmentation` returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

from seedcnn.arrays import U8
from seedcnn.data.dense.place import Place
from seedcnn.data.dense.reading import Ahead, checked_picture, read_indices
from seedcnn.data.image_set import Unreadable, selection
from seedcnn.errors import DataError

__all__ = ["IGNORE", "IndexFiles", "Maps", "SegmentationBatch", "SegmentationSet"]

IGNORE = 255
"""Index of the pixels that neither train nor count."""

_UNKNOWN = 254


class Maps(Protocol):
    """Where the index maps of a set come from."""

    def read(self, index: int) -> U8:
        """uint8 [h, w] of class indices and :data:`IGNORE`; raises ``DataError`` for a bad one."""
        ...

    def name(self, index: int) -> str:
        """The map as messages name it."""
        ...

    def take(self, picked: npt.NDArray[np.int64]) -> Self:
        """The maps at indices, int64 [m]."""
        ...


@dataclass(frozen=True, eq=False)
class IndexFiles:
    """Index maps in PNG files.

    Attributes:
        place: the directory or zip file.
        files: strings [N].
        table: from each index in a file to a class or :data:`IGNORE`; a class is below 254.
        rule: which indices there are, for messages.
    """

    place: Place
    files: npt.NDArray[np.str_]
    table: Mapping[int, int]
    rule: str

    def name(self, index: int) -> str:
        """The path of the file."""
        return self.place.path(str(self.files[index]))

    def take(self, picked: npt.NDArray[np.int64]) -> IndexFiles:
        """The maps at indices, int64 [m]."""
        return replace(self, files=self.files[picked])

    def read(self, index: int) -> U8:
        """Decode a file and look its indices up.

        Raises:
            DataError: if it cannot be decoded, or holds an index that is not in the table.
        """
        stored = read_indices(self.place, str(self.files[index]))
        lookup = np.full(256, _UNKNOWN, np.uint8)
        lookup[list(self.table)] = list(self.table.values())
        found = lookup[stored]
        if (unknown := found == _UNKNOWN).any():
            row, column = np.argwhere(unknown)[0].tolist()
            raise DataError(
                f"{self.name(index)} has the unknown index {stored[row, column]} at row {row}, column {column}; "
                f"{self.rule}"
            )
        return found


class SegmentationBatch(NamedTuple):
    """Decoded pictures, each uint8 [h, w, 3], their index maps uint8 [h, w], and their indices into the set."""

    images: list[U8]
    maps: list[U8]
    indices: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SegmentationSet:
    """Picture files with index maps, not decoded.

    Attributes:
        place: the directory or zip file.
        files: strings [N], path of each picture below the place.
        sizes: int64 [N, 2], height and width of each picture, upright if ``orientation`` is "exif".
        maps: where the index maps come from; :meth:`index_map` reads one.
        classes: the names of the classes, by index; the background is one where the layout has it.
        source: where the set was read from, for messages.
        orientation: "exif" if pictures are turned upright, "stored" if they are taken as stored; maps never turn.
        ignore: the index of pixels that neither train nor count, 255.
        skipped: pictures that were left out because the caller asked for it.
    """

    place: Place
    files: npt.NDArray[np.str_]
    sizes: npt.NDArray[np.int64]
    maps: Maps
    classes: tuple[str, ...]
    source: str
    orientation: str = "exif"
    ignore: int = IGNORE
    skipped: tuple[Unreadable, ...] = ()

    def __len__(self) -> int:
        return len(self.files)

    def picture(self, index: int) -> U8:
        """Decode picture ``index``: uint8 [h, w, 3], transparent pixels white.

        Raises:
            DataError: if it cannot be decoded, or its size has changed.
        """
        return checked_picture(self.place, str(self.files[index]), tuple(self.sizes[index]), self.orientation)

    def index_map(self, index: int) -> U8:
        """Decode the map of picture ``index``: uint8 [h, w] of indices into ``classes``, and ``ignore``.

        Raises:
            DataError: if it cannot be decoded, has another size than its picture, holds an unknown index, or nothing
                but ignored pixels.
        """
        found = self.maps.read(index)
        height, width = self.sizes[index].tolist()
        if found.shape != (height, width):
            shape = f"{found.shape[1]} x {found.shape[0]}"
            raise DataError(f"{self.maps.name(index)} has {shape} pixels; its picture has {width} x {height}")
        if (found == self.ignore).all():
            raise DataError(f"{self.maps.name(index)} ignores all its pixels ({self.ignore}); one at least must count")
        return found

    def batches(self, size: int, *, threads: int | None = None) -> Iterator[SegmentationBatch]:
        """Decode pictures and maps in batches, in order, up to two batches ahead of the reader.

        Args, Raises:
            As for ``DetectionSet.batches``.
        """

        def both(index: int) -> tuple[U8, U8]:
            return self.picture(index), self.index_map(index)

        for indices, pairs in Ahead(both, len(self), size, threads):
            yield SegmentationBatch([pair[0] for pair in pairs], [pair[1] for pair in pairs], indices)

    def take(self, which: npt.ArrayLike) -> SegmentationSet:
        """The pictures that indices (int [m]) or a mask (bool [N]) select, in that order."""
        picked = np.arange(len(self))[selection(which)]
        return replace(self, files=self.files[picked], sizes=self.sizes[picked], maps=self.maps.take(picked))
