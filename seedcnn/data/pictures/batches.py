"""Decode image files in batches, a little ahead of the reader. No damaged file is dropped silently."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from seedcnn.arrays import U8
from seedcnn.data.image_set import Unreadable
from seedcnn.data.pictures.decoders import ByRule, Decode, open_rgb, why_not
from seedcnn.data.sets._layouts import some_of
from seedcnn.errors import DataError
from seedcnn.runtime.pictures import load_picture

__all__ = ["Batch", "Batches", "sizes_differ", "undecodable"]


class Batch(NamedTuple):
    """Decoded images uint8 [n, H, W, 3], their labels int64 [n], and their indices into the folder int64 [n]."""

    images: U8
    labels: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int64]


def _decode(path: Path, decode: Decode) -> U8 | str:
    """The decoded image, or the reason why it cannot be decoded."""
    try:
        if isinstance(decode, ByRule):
            return load_picture(path, decode.rule)
        picture = open_rgb(path)
    except Exception as error:  # Pillow can raise any exception for a damaged file
        return why_not(path, error)
    try:
        return decode(picture)
    except ValueError as error:
        return str(error)


def sizes_differ(forms: Iterable[str]) -> DataError:
    """The error for images that were decoded to different shapes."""
    return DataError(f"`decode` returned images of {some_of(sorted(forms))}; all images of a set must have one size")


def undecodable(bad: Sequence[Unreadable], total: int, root: Path) -> DataError:
    """One error for all files that cannot be decoded."""
    listed = some_of((f"{each.name} ({each.reason})" for each in bad), 5)
    return DataError(f"{len(bad)} of {total} images under {root} cannot be decoded: {listed}")


@dataclass(eq=False)
class Batches:
    """The batches of a list of image files, as ``ImageFolder.batches`` returns them; iterating yields ``Batch``.

    Attributes:
        root: the directory the names start from.
        names: strings [N], path of each file below ``root``.
        labels: int64 [N], the label of each file.
        size: images per batch.
        decode: from an RGB image to uint8 [H, W, 3].
        skip: leave out files that cannot be decoded instead of raising an error.
        threads: number of threads that decode.
        skipped: the files left out so far; emptied when an iteration starts.
    """

    root: Path
    names: npt.NDArray[np.str_]
    labels: npt.NDArray[np.int64]
    size: int
    decode: Decode
    skip: bool
    threads: int
    skipped: list[Unreadable] = field(default_factory=list, init=False)

    def __len__(self) -> int:
        return math.ceil(len(self.names) / self.size)

    def __iter__(self) -> Iterator[Batch]:
        """Decode from the start.

        Raises:
            DataError: if files of a batch cannot be decoded and ``skip`` is off, or images differ in size.
            ValueError: if ``decode`` returns anything but uint8 [H, W, 3].
        """
        self.skipped.clear()
        starts = iter(range(0, len(self.names), self.size))
        with ThreadPoolExecutor(self.threads, thread_name_prefix="decode") as pool:
            waiting = deque((start, self._submit(pool, start)) for start in islice(starts, 2))
            try:
                while waiting:
                    start, futures = waiting.popleft()
                    batch = self._collect(start, [future.result() for future in futures])
                    waiting.extend((s, self._submit(pool, s)) for s in islice(starts, 1))
                    if len(batch.images):
                        yield batch
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _submit(self, pool: ThreadPoolExecutor, start: int) -> list[Future[U8 | str]]:
        names = self.names[start : start + self.size]
        return [pool.submit(_decode, self.root / name, self.decode) for name in names]

    def _collect(self, start: int, results: list[U8 | str]) -> Batch:
        bad = [
            Unreadable(str(self.names[start + i]), result)
            for i, result in enumerate(results)
            if isinstance(result, str)
        ]
        if bad and not self.skip:
            raise undecodable(bad, len(results), self.root)
        self.skipped += bad
        good = [(start + i, result) for i, result in enumerate(results) if not isinstance(result, str)]
        forms = sorted({f"{picture.dtype} {picture.shape}" for _, picture in good})
        if len(forms) > 1:
            raise sizes_differ(forms)
        if good and (good[0][1].dtype != np.uint8 or good[0][1].shape[2:] != (3,)):
            raise ValueError(f"`decode` returned an image of {forms[0]}; it must return uint8 [H, W, 3]")
        indices = np.array([index for index, _ in good], np.int64)
        images = np.stack([picture for _, picture in good]) if good else np.empty((0, 1, 1, 3), np.uint8)
        return Batch(images, self.labels[indices], indices)
