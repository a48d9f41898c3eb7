"""Decode pictures and index maps out of a place, checked against the sizes that are stated, a little ahead."""

from __future__ import annotations

import io
import math
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from seedcnn.arrays import U8
from seedcnn.data.dense.place import Place
from seedcnn.errors import DataError, ImageError
from seedcnn.runtime.pictures import MAX_PIXELS, on_background, read_picture, read_size

__all__ = ["Ahead", "checked_picture", "read_indices", "size_problem"]

_Item = TypeVar("_Item")
_WHITE = (255, 255, 255)


def _reason(error: ImageError, path: str) -> str:
    return str(error).removeprefix("the picture ").removeprefix(f"{path} ")


def checked_picture(place: Place, name: str, size: tuple[int, int], orientation: str) -> U8:
    """Decode a picture to uint8 [h, w, 3].

    Raises:
        DataError: if it cannot be decoded, or its height and width are not ``size``.
    """
    try:
        picture = read_picture(place.source(name), orientation=orientation)
    except ImageError as error:
        raise DataError(f"{place.path(name)} {_reason(error, place.path(name))}") from None
    if picture.shape[:2] != tuple(size):
        raise DataError(f"{place.path(name)} {_differs(picture.shape[:2], size)}")
    return on_background(picture, 3, _WHITE)


def _differs(found: tuple[int, ...], stated: tuple[int, ...]) -> str:
    return f"has {found[1]} x {found[0]} pixels; its annotations are for {stated[1]} x {stated[0]}"


def size_problem(place: Place, name: str, stated: tuple[int, int] | None, orientation: str) -> str | tuple[int, int]:
    """Read the size of a picture from its head.

    Returns:
        Height and width, or the end of a sentence if the picture is missing, damaged, or not of the stated size.
    """
    if not place.is_file(name):
        return "does not exist"
    try:
        source = place.source(name)
        found = read_size(source, orientation=orientation)
        if stated is None or found == tuple(stated):
            return found
        stored = read_size(source, orientation="stored")
    except ImageError as error:
        return _reason(error, place.path(name))
    except DataError as error:
        return str(error).removeprefix(f"{place.path(name)} ")
    turned = ""
    if orientation == "exif" and stored == tuple(stated):
        turned = ", the size before EXIF turns it (load with orientation='stored')"
    return _differs(found, stated) + turned


def read_indices(place: Place, name: str) -> U8:
    """Decode an index map, a PNG of one channel whose values are indices, never colours.

    Returns:
        uint8 [h, w].

    Raises:
        DataError: if it does not exist, is no PNG, is damaged, or is not of one channel of 8 bits or a palette.
    """
    path, data = place.path(name), place.read(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DataError(f"{path} has {image.width} x {image.height} pixels; at most {MAX_PIXELS} are read")
                # Pillow spreads grey of 2 or 4 bits over 0 to 255.
                raw = image.tile[0][3] if image.tile else image.mode
                if image.mode not in ("1", "L", "P") or (image.mode == "L" and raw != "L"):
                    raise DataError(f"{path} is {raw}; an index map must be 8-bit grey or have a palette")
                return np.array(image, np.uint8)
    except DataError:
        raise
    except Exception as error:  # Pillow can raise any exception for a damaged file
        raise DataError(f"{path} cannot be decoded as a PNG: {error}".split("\n")[0]) from None


class Ahead(Generic[_Item]):
    """Batches of ``make(index)``, made in threads up to two batches ahead of the reader.

    Iterating yields (indices int64 [n], list of results). An exception of ``make`` is raised at its batch.

    Args:
        make: from an index to a result.
        count: indices 0 to ``count`` - 1.
        size: results per batch.
        threads: None for one per core.

    Raises:
        ValueError: if ``size`` or ``threads`` is below 1.
    """

    def __init__(self, make: Callable[[int], _Item], count: int, size: int, threads: int | None) -> None:
        if size < 1:
            raise ValueError(f"`size` (={size}) must be at least 1")
        if threads is not None and threads < 1:
            raise ValueError(f"`threads` (={threads}) must be at least 1")
        self.make, self.count, self.size = make, count, size
        self.threads = threads or os.cpu_count() or 1

    def __len__(self) -> int:
        return math.ceil(self.count / self.size)

    def __iter__(self) -> Iterator[tuple[npt.NDArray[np.int64], list[_Item]]]:
        starts = iter(range(0, self.count, self.size))
        with ThreadPoolExecutor(self.threads, thread_name_prefix="decode") as pool:

            def submit(start: int) -> tuple[int, list[Future[_Item]]]:
                return start, [pool.submit(self.make, i) for i in range(start, min(start + self.size, self.count))]

            waiting = deque(submit(start) for start in islice(starts, 2))
            try:
                while waiting:
                    start, futures = waiting.popleft()
                    results = [future.result() for future in futures]
                    waiting.extend(submit(each) for each in islice(starts, 1))
                    yield np.arange(start, start + len(results), dtype=np.int64), results
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
