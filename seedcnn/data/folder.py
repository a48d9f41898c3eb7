"""Sets of picture files: listed at once, decoded when needed, in batches; a damaged file is never dropped unsaid."""

from __future__ import annotations

import logging
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from seedcnn.data._layouts import missing_layout, some_of
from seedcnn.data.image_set import ImageSet, Unreadable, selection
from seedcnn.errors import DataError

__all__ = ["Batch", "Batches", "CenterCrop", "FullFrame", "ImageFolder", "list_class_folders"]

U8 = npt.NDArray[np.uint8]
Decode = Callable[[Image.Image], U8]
_CHUNK = 256
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FullFrame:
    """The whole picture, squeezed to a square.

    Args:
        size: side of the result, in pixels.
        resample: Pillow's filter; bilinear as torchvision's ``Resize``.
    """

    size: int
    resample: Image.Resampling = Image.Resampling.BILINEAR

    def __call__(self, image: Image.Image) -> U8:
        """uint8 [size, size, 3] of an RGB picture."""
        return np.asarray(image.resize((self.size, self.size), self.resample))


@dataclass(frozen=True)
class CenterCrop:
    """The middle of the picture after its shorter side was brought to ``resize``, as torchvision's two transforms do.

    Args:
        size: side of the result, in pixels.
        resize: length of the shorter side before the crop, at least ``size``; None leaves the picture as it is
            (ImageNet-C, whose pictures are 224 x 224 already).
        resample: Pillow's filter.
    """

    size: int = 224
    resize: int | None = 256
    resample: Image.Resampling = Image.Resampling.BILINEAR

    def __post_init__(self) -> None:
        if self.resize is not None and self.resize < self.size:
            raise ValueError(f"`resize` (={self.resize}) must be at least `size` (={self.size})")

    def __call__(self, image: Image.Image) -> U8:
        """uint8 [size, size, 3] of an RGB picture."""
        width, height = image.size
        if self.resize is not None:
            short = min(width, height)
            width, height = (int(self.resize * side / short) for side in (width, height))
            image = image.resize((width, height), self.resample)
        if min(width, height) < self.size:
            raise ValueError(f"it has {width} x {height} pixels; the crop needs {self.size} x {self.size}")
        left, top = round((width - self.size) / 2), round((height - self.size) / 2)
        return np.asarray(image.crop((left, top, left + self.size, top + self.size)))


class Batch(NamedTuple):
    """Decoded pictures uint8 [n, H, W, 3], their labels int64 [n], and their indices in the folder int64 [n]."""

    images: U8
    labels: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int64]


def _decode(path: Path, decode: Decode) -> U8 | str:
    """The picture, or why there is none."""
    try:
        with Image.open(path) as image:
            # By way of RGBA, as a palette with transparent entries cannot become RGB without a warning.
            picture = (image.convert("RGBA") if image.mode == "P" else image).convert("RGB")
    except Exception as error:  # a damaged file can make Pillow raise anything
        return f"{type(error).__name__}: {error}"
    try:
        return decode(picture)
    except ValueError as error:
        return str(error)


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """Picture files with labels, not decoded.

    Attributes:
        root: the directory the names start from.
        names: text [N], path of each file below ``root``, with "/".
        labels: int64 [N], indices into ``classes``.
        classes: the names of the classes, by label.
        source: where it lies, in words.
        styles: text [N] or None, as in ``ImageSet``.
    """

    root: Path
    names: npt.NDArray[np.str_]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    source: str
    styles: npt.NDArray[np.str_] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def take(self, which: npt.ArrayLike) -> ImageFolder:
        """The files picked by indices (int [M]) or by a mask (bool [N]), in that order."""
        picked = selection(which)
        styles = None if self.styles is None else self.styles[picked]
        return replace(self, names=self.names[picked], labels=self.labels[picked], styles=styles)

    def batches(self, size: int, decode: Decode, *, on_error: str = "raise", threads: int | None = None) -> Batches:
        """Decode in batches, in order, up to two batches ahead of the reader. Each ``iter`` starts anew.

        Args:
            size: pictures per batch; the last may have fewer.
            decode: from an RGB picture to uint8 [H, W, 3], all of one size: ``FullFrame``, ``CenterCrop``. A
                ``ValueError`` from it means that the picture is unfit, and is treated as one that cannot be decoded.
            on_error: what to do about files that cannot be decoded: "raise" a ``DataError`` at the batch they are in,
                or "skip" them and list them in ``Batches.skipped``.
            threads: that decode; None for one per core.

        Raises:
            ValueError: if an argument is out of range.
        """
        if size < 1:
            raise ValueError(f"`size` (={size}) must be at least 1")
        if on_error not in ("raise", "skip"):
            raise ValueError(f"`on_error` (={on_error!r}) must be 'raise' or 'skip'")
        if threads is not None and threads < 1:
            raise ValueError(f"`threads` (={threads}) must be at least 1")
        return Batches(self, size, decode, on_error == "skip", threads or os.cpu_count() or 1)

    def unreadable(self, decode: Decode, *, threads: int | None = None) -> list[Unreadable]:
        """Decode every file and keep nothing but the list of those that cannot be decoded."""
        batches = self.batches(_CHUNK, decode, on_error="skip", threads=threads)
        for _ in batches:
            pass
        return batches.skipped

    def load(self, decode: Decode, *, on_error: str = "raise", threads: int | None = None) -> ImageSet:
        """Decode all into memory.

        Args:
            decode, threads: as for ``batches``.
            on_error: "raise" one ``DataError`` that counts all files that cannot be decoded and lists the first few,
                or "skip" them, list them in the set's ``skipped`` and log a warning.

        Raises:
            DataError: if files cannot be decoded (with "raise"), or all cannot.
        """
        if not len(self):
            raise DataError(f"no pictures were picked from {self.root}; there is nothing to load")
        batches = replace(self.batches(_CHUNK, decode, on_error=on_error, threads=threads), skip=True)
        parts = list(batches)
        if batches.skipped and (on_error == "raise" or not parts):
            raise undecodable(batches.skipped, len(self), self.root)
        if batches.skipped:
            _log.warning("left out: %s", undecodable(batches.skipped, len(self), self.root))
        kept = self.take(np.concatenate([part.indices for part in parts]))
        images = np.concatenate([part.images for part in parts])
        skipped = tuple(batches.skipped)
        return ImageSet(images, kept.labels, self.classes, self.source, kept.styles, kept.names, skipped)


def undecodable(bad: Sequence[Unreadable], total: int, root: Path) -> DataError:
    """One error for all files that cannot be decoded."""
    listed = some_of((f"{each.name} ({each.reason})" for each in bad), 5)
    return DataError(f"{len(bad)} of {total} pictures under {root} cannot be decoded: {listed}")


@dataclass(eq=False)
class Batches:
    """What ``ImageFolder.batches`` gives: iterate over it for ``Batch`` after ``Batch``.

    Attributes:
        folder, size, decode, skip, threads: as asked for.
        skipped: the files that could not be decoded, so far; emptied when an iteration starts.
    """

    folder: ImageFolder
    size: int
    decode: Decode
    skip: bool
    threads: int
    skipped: list[Unreadable] = field(default_factory=list, init=False)

    def __len__(self) -> int:
        return math.ceil(len(self.folder) / self.size)

    def __iter__(self) -> Iterator[Batch]:
        """Decode anew from the start.

        Raises:
            DataError: if files of a batch cannot be decoded and ``skip`` is off, or pictures differ in size.
            ValueError: if ``decode`` gives anything but uint8 [H, W, 3].
        """
        self.skipped.clear()
        starts = iter(range(0, len(self.folder), self.size))
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
        names = self.folder.names[start : start + self.size]
        return [pool.submit(_decode, self.folder.root / name, self.decode) for name in names]

    def _collect(self, start: int, results: list[U8 | str]) -> Batch:
        bad = [
            Unreadable(str(self.folder.names[start + i]), result)
            for i, result in enumerate(results)
            if isinstance(result, str)
        ]
        if bad and not self.skip:
            raise undecodable(bad, len(results), self.folder.root)
        self.skipped += bad
        good = [(start + i, result) for i, result in enumerate(results) if not isinstance(result, str)]
        forms = sorted({f"{picture.dtype} {picture.shape}" for _, picture in good})
        if len(forms) > 1:
            raise DataError(f"`decode` gave pictures of {some_of(forms)}; all in a set must be of one size")
        if good and (good[0][1].dtype != np.uint8 or good[0][1].shape[2:] != (3,)):
            raise ValueError(f"`decode` gave a picture of {forms[0]}; it must be uint8 [H, W, 3]")
        indices = np.array([index for index, _ in good], np.int64)
        images = np.stack([picture for _, picture in good]) if good else np.empty((0, 1, 1, 3), np.uint8)
        return Batch(images, self.folder.labels[indices], indices)


def list_class_folders(
    root: Path, what: str, expected: str, *, suffixes: Sequence[str], classes: int | None = None
) -> ImageFolder:
    """List ``<root>/<class>/<picture>``, classes and pictures in the order of their names.

    Args:
        root: the directory that holds the class folders.
        what: the data set, for messages.
        expected: its layout in words, for messages.
        suffixes: of pictures, in lower case; other files and hidden ones are no pictures.
        classes: how many there must be; None for any number.

    Raises:
        DataError: if there are no class folders, another number of them, or one without a picture.
    """
    found = []
    if root.is_dir():
        found = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name[0] != ".")
    if not found:
        raise missing_layout(what, root, expected)
    if classes is not None and len(found) != classes:
        raise DataError(f"{root} has {len(found)} class folders; {what} has {classes}. Found: {some_of(found)}")
    names: list[str] = []
    counts = []
    for label in found:
        with os.scandir(root / label) as entries:
            files = sorted(e.name for e in entries if e.name[0] != "." and e.name.lower().endswith(tuple(suffixes)))
        if not files:
            raise DataError(f"the class folder {root / label} holds no picture ({', '.join(suffixes)})")
        names += [f"{label}/{name}" for name in files]
        counts.append(len(files))
    labels = np.repeat(np.arange(len(found), dtype=np.int64), counts)
    return ImageFolder(root, np.array(names), labels, tuple(found), str(root))
