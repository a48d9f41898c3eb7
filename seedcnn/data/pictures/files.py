"""Decoded pictures in a file instead of in memory: a .npy array to map, with a note on what it was made from.

The file is an ordinary .npy of uint8 [N, H, W, 3] (``numpy.load`` reads it), followed by a JSON object, the object's
length as eight bytes (little-endian) and eight bytes that say what this is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import logging
import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from seedcnn.errors import DataError
from seedcnn.files import fsync_directory, lock_file

__all__ = ["PictureWriter", "StoredPictures", "made_from", "read_pictures"]

U8 = npt.NDArray[np.uint8]
_MAGIC = b"SEEDPICS"
_TAIL = len(_MAGIC) + 8
_PATIENCE = 0.1  # seconds between two looks at another's lock
_log = logging.getLogger(__name__)


class StoredPictures(NamedTuple):
    """What a file holds: images uint8 [n, H, W, 3], mapped and read-only, and (index, reason) of files left out."""

    images: U8
    skipped: tuple[tuple[int, str], ...]


def made_from(root: Path, names: Iterable[str], decode: object) -> dict[str, str]:
    """What decoded pictures depend on, as texts: the listing (SHA-256 of names, sizes and times) and the decoder.

    The pictures' directory may be moved, as long as the files keep their times.

    Args:
        root: the directory the names start from.
        names: of the files, in order.
        decode: a dataclass instance, such as ``CenterCrop``, so that it can be told from another.

    Raises:
        ValueError: if ``decode`` cannot say what it is.
    """
    text = repr(decode)
    if not dataclasses.is_dataclass(decode) or isinstance(decode, type) or " at 0x" in text:
        raise ValueError(
            f"`decode` (={text}) must be a dataclass such as CenterCrop where the pictures are kept in a file, "
            "so that the file can tell how they were made"
        )
    digest, count = hashlib.sha256(), 0
    for name in names:
        try:
            found = os.stat(root / name)
            facts = f"{found.st_size} {found.st_mtime_ns}"
        except OSError:
            facts = "missing"
        digest.update(os.fsencode(f"{name}\0{facts}\0"))
        count += 1
    return {"decode": text, "files": str(count), "listing": digest.hexdigest()}


def _npy_header(shape: tuple[int, ...]) -> bytes:
    """numpy pads it so that its length does not depend on the first axis."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
    )
    return stream.getvalue()


def _parse(file: BinaryIO) -> tuple[int, tuple[int, ...], dict[str, Any]]:
    """Offset and shape of the array, and the note. Raises ValueError and the like if the file is not what we write."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL))
    tail = file.read(_TAIL)
    length = int.from_bytes(tail[:8], "little")
    if tail[8:] != _MAGIC or length > size - _TAIL:
        raise ValueError("its end is not that of a file of decoded pictures")
    file.seek(size - _TAIL - length)
    note = json.loads(file.read(length))
    file.seek(0)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("its array has another version")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    offset = file.tell()
    if dtype != np.uint8 or fortran or len(shape) != 4 or offset + math.prod(shape) + length + _TAIL != size:
        raise ValueError(f"its array is {dtype} {shape}, which does not fit its {size} bytes")
    return offset, shape, note


def read_pictures(path: Path, wanted: Mapping[str, str]) -> StoredPictures | None:
    """Map a file of decoded pictures; None if there is no such file.

    Args:
        path: of the file.
        wanted: ``made_from`` of the pictures that are wanted.

    Raises:
        DataError: if the file cannot be read, is damaged or something else, or holds other pictures.
    """
    try:
        with path.open("rb") as file:
            offset, shape, note = _parse(file)
        found = {key: note["made_from"][key] for key in wanted}
        skipped = tuple((int(index), str(reason)) for index, reason in note["skipped"])
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"the file of decoded pictures {path} cannot be read: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is damaged, or no file of decoded pictures ({error}); remove it to have it made anew, "
            "or name another"
        ) from error
    differ = [f"{key}: {found[key]} there, {wanted[key]} here" for key in wanted if found[key] != wanted[key]]
    if differ:
        raise DataError(
            f"{path} holds the pictures of other files, or decoded otherwise ({'; '.join(differ)}); "
            "remove it to have it made anew, or name another"
        )
    return StoredPictures(np.memmap(path, np.uint8, "r", offset, shape), skipped)


class PictureWriter:
    """Writes a file of decoded pictures under a temporary name, which ``finish`` makes the real one.

    Entering waits for another process that writes the same file; look again then whether it is there. Left without
    ``finish``, nothing remains. What a killed process has left is overwritten.

    Args:
        path: of the file; its directory must exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.tmp")
        self._count, self._picture, self._finished = 0, (0, 0, 3), False

    def __enter__(self) -> PictureWriter:
        try:
            self._lock = self._locked()
            self._file = self._temporary.open("w+b")
        except OSError as error:
            raise self._refused(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            if not self._finished:
                self._temporary.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # closing tries again to write what was refused
                self._file.close()

    def _locked(self) -> BinaryIO:
        """The lock is on the temporary file itself, whose holder renames or removes it."""
        told = False
        while True:
            try:
                return lock_file(self._temporary)
            except BlockingIOError:
                if not told:
                    _log.warning("waiting for another process that writes %s", self._path)
                told = True
                time.sleep(_PATIENCE)

    def _refused(self, error: OSError) -> DataError:
        return DataError(f"the decoded pictures cannot be kept in {self._path}: {error}")

    def add(self, images: U8) -> None:
        """Append pictures, uint8 [n, H, W, 3], all of one size.

        Raises:
            DataError: if the file system refuses.
        """
        try:
            if not self._count:
                self._picture = images.shape[1:]
                self._file.write(_npy_header((0, *self._picture)))
            self._file.write(np.ascontiguousarray(images).data)
        except OSError as error:
            raise self._refused(error) from error
        self._count += len(images)

    def finish(self, origin: Mapping[str, str], skipped: Sequence[tuple[int, str]]) -> None:
        """Give the file its name: after a power cut it is whole or not there.

        Args:
            origin: ``made_from``.
            skipped: index and reason of each file that could not be decoded.

        Raises:
            DataError: if the file system refuses.
        """
        note = json.dumps({"made_from": dict(origin), "skipped": list(skipped)}).encode()
        try:
            self._file.write(note + len(note).to_bytes(8, "little") + _MAGIC)
            self._file.seek(0)
            self._file.write(_npy_header((self._count, *self._picture)))
            self._file.flush()
            os.fsync(self._file.fileno())
            os.replace(self._temporary, self._path)
            self._finished = True
            fsync_directory(self._path.parent)
        except OSError as error:
            raise self._refused(error) from error
