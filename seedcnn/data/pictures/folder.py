"""Sets of image files: listed first, decoded later in batches. No damaged file is dropped silently."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from seedcnn.arrays import U8
from seedcnn.data.image_set import ImageSet, Unreadable, selection
from seedcnn.data.pictures.batches import Batch, Batches, sizes_differ, undecodable
from seedcnn.data.pictures.decoders import CenterCrop, Decode, FullFrame
from seedcnn.data.pictures.files import PictureWriter, StoredPictures, made_from, read_pictures
from seedcnn.data.sets._layouts import missing_layout, some_of
from seedcnn.errors import DataError
from seedcnn.messages import Say, steps

__all__ = ["Batch", "Batches", "CenterCrop", "FullFrame", "ImageFolder", "list_class_folders"]

_CHUNK = 256
_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """Image files with labels, not decoded.

    Attributes:
        root: the directory the names start from.
        names: strings [N], path of each file below ``root``, with "/".
        labels: int64 [N], indices into ``classes``.
        classes: the class names, by label.
        source: where the files are, for messages.
        styles: strings [N] or None, as in ``ImageSet``.
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
        """The files that indices (int [M]) or a mask (bool [N]) select, in that order."""
        picked = selection(which)
        styles = None if self.styles is None else self.styles[picked]
        return replace(self, names=self.names[picked], labels=self.labels[picked], styles=styles)

    def batches(self, size: int, decode: Decode, *, on_error: str = "raise", threads: int | None = None) -> Batches:
        """Decode in batches, in order, up to two batches ahead of the reader. Each ``iter`` starts again.

        Args:
            size: images per batch; the last batch may have fewer.
            decode: from an RGB image to uint8 [H, W, 3], always of one size: ``FullFrame``, ``CenterCrop``. If it
                raises ``ValueError``, the file counts as one that cannot be decoded.
            on_error: what to do about files that cannot be decoded: "raise" a ``DataError`` at the batch they are in,
                or "skip" them and list them in ``Batches.skipped``.
            threads: number of threads that decode; None for one per core.

        Raises:
            ValueError: if an argument is out of range.
        """
        if size < 1:
            raise ValueError(f"`size` (={size}) must be at least 1")
        if on_error not in ("raise", "skip"):
            raise ValueError(f"`on_error` (={on_error!r}) must be 'raise' or 'skip'")
        if threads is not None and threads < 1:
            raise ValueError(f"`threads` (={threads}) must be at least 1")
        skip, threads = on_error == "skip", threads or os.cpu_count() or 1
        return Batches(self.root, self.names, self.labels, size, decode, skip, threads)

    def unreadable(self, decode: Decode, *, threads: int | None = None) -> list[Unreadable]:
        """Decode every file, and return only the list of those that cannot be decoded."""
        batches = self.batches(_CHUNK, decode, on_error="skip", threads=threads)
        for _ in batches:
            pass
        return batches.skipped

    def load(
        self,
        decode: Decode,
        *,
        on_error: str = "raise",
        threads: int | None = None,
        file: str | os.PathLike[str] | None = None,
        progress: Say | None = None,
    ) -> ImageSet:
        """Decode all files, into memory or into a file.

        Args:
            decode, threads: as for ``batches``.
            on_error: "raise" one ``DataError`` that counts all files that cannot be decoded and lists the first few,
                or "skip" them, list them in the set's ``skipped`` and log a warning.
            file: a file to keep the images in, instead of in memory. The set's ``images`` are then a read-only map of
                the file, and at most a few batches are in memory at a time (50,000 images of 224 x 224 take 7.5 GB).
                It is a .npy file, written once, and takes its name when it is complete. A later call uses it again if
                the same files (names, sizes, times) and the same ``decode`` made it; ``decode`` must be a dataclass
                for that, such as ``CenterCrop``.
            progress: a :class:`seedcnn.progress.Progress` shows the number of decoded images.

        Raises:
            DataError: if files cannot be decoded (with "raise"), or none can; if ``file`` holds other images, is
                damaged, or cannot be written.
            ValueError: if an argument is out of range.
        """
        if not len(self):
            raise DataError(f"no image of {self.root} is selected; there is nothing to load")
        batches = replace(self.batches(_CHUNK, decode, on_error=on_error, threads=threads), skip=True)
        if file is None:
            parts: list[U8] = []
            left_out = self._decode(batches, on_error, parts.append, progress)
            stored = StoredPictures(np.concatenate(parts), left_out)
        else:
            stored = self._decoded_in(Path(file), batches, on_error, progress)
        kept = self.take(np.delete(np.arange(len(self)), [index for index, _ in stored.skipped]))
        skipped = self._judge(stored.skipped, on_error)
        if skipped:
            _log.warning("left out: %s", undecodable(skipped, len(self), self.root))
        return ImageSet(stored.images, kept.labels, self.classes, self.source, kept.styles, kept.names, skipped)

    def _decoded_in(self, path: Path, batches: Batches, on_error: str, progress: Say | None) -> StoredPictures:
        origin = made_from(self.root, self.names.tolist(), batches.decode)
        stored = read_pictures(path, origin)
        while stored is None:
            with PictureWriter(path) as writer:
                # Another process may have written the file while this one waited.
                stored = read_pictures(path, origin)
                if stored is None:
                    writer.finish(origin, self._decode(batches, on_error, writer.add, progress))
            stored = read_pictures(path, origin)
        return stored

    def _decode(
        self, batches: Batches, on_error: str, keep: Callable[[U8], None], progress: Say | None
    ) -> tuple[tuple[int, str], ...]:
        """Pass every batch to ``keep``; return index and reason of each file that could not be decoded."""
        kept, picture = [], None
        with steps(progress, "decoding", len(self)) as advance:
            for batch in batches:
                picture = picture or batch.images.shape[1:]
                if batch.images.shape[1:] != picture:
                    raise sizes_differ({f"uint8 {picture}", f"uint8 {batch.images.shape[1:]}"})
                keep(batch.images)
                kept.append(batch.indices)
                advance(len(batch.indices))
        good = np.concatenate([*kept, np.empty(0, np.int64)])
        bad = np.setdiff1d(np.arange(len(self)), good).tolist()
        left_out = tuple((index, each.reason) for index, each in zip(bad, batches.skipped, strict=True))
        self._judge(left_out, on_error)
        return left_out

    def _judge(self, left_out: Sequence[tuple[int, str]], on_error: str) -> tuple[Unreadable, ...]:
        """The files that were skipped. Raises DataError if skipping is not allowed, or no file was left."""
        skipped = tuple(Unreadable(str(self.names[index]), reason) for index, reason in left_out)
        if skipped and (on_error == "raise" or len(skipped) == len(self)):
            raise undecodable(skipped, len(self), self.root)
        return skipped


def list_class_folders(
    root: Path, what: str, expected: str, *, suffixes: Sequence[str], classes: int | None = None
) -> ImageFolder:
    """List ``<root>/<class>/<image>``, with classes and images in the order of their names.

    Args:
        root: the directory that holds the class folders.
        what: the data set, for messages.
        expected: the expected layout, for messages.
        suffixes: file suffixes of images, in lower case; other files and hidden files are ignored.
        classes: the required number of class folders; None for any number.

    Raises:
        DataError: if there are no class folders, the wrong number of them, or one without images.
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
            raise DataError(f"the class folder {root / label} holds no image ({', '.join(suffixes)})")
        names += [f"{label}/{name}" for name in files]
        counts.append(len(files))
    labels = np.repeat(np.arange(len(found), dtype=np.int64), counts)
    return ImageFolder(root, np.array(names), labels, tuple(found), str(root))
