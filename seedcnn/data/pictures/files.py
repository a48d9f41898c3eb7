"""Decoded images in a file instead of in memory: a memory-mapped .npy array and a note of its origin.

The file is an ordinary .npy of uint8 [N, H, W, 3] (``numpy.load`` reads it), followed by a JSON object, the length of
the object as eight bytes (little-endian), and an eight-byte magic number.
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

from seedcnn.arrays import U8
from seedcnn.errors import DataError
from seedcnn.files import fsync_directory, lock_file
from seedcnn.literals import parse_json

__all__ = ["PictureWriter", "StoredPictures", "made_from", "read_pictures"]

_MAGIC = b"SEEDPICS"
_TAIL = len(_MAGIC) + 8
_PATIENCE = 0.1  # seconds between two attempts to get the lock
_log = logging.getLogger(__name__)


class StoredPictures(NamedTuple):
    """The content of a file: images uint8 [n, H, W, 3], mapped read-only, and (index, reason) of each skipped file."""

    images: U8
    skipped: tuple[tuple[int, str], ...]


def made_from(root: Path, names: Iterable[str], decode: object) -> dict[str, str]:
    """Everything that decoded images depend on: the listing (SHA-256 of names, sizes and times) and the decoder.

    The directory may be moved, as long as the files keep their modification times.

    Args:
        root: the directory the names start from.
        names: path of each file below ``root``, in order.
        decode: a dataclass instance, such as ``CenterCrop``, whose ``repr`` identifies it.

    Raises:
        ValueError: if ``decode`` is no dataclass instance, or its ``repr`` does not identify it.
    """
    text = repr(decode)
    if not dataclasses.is_dataclass(decode) or isinstance(decode, type) or " at 0x" in text:
        raise ValueError(
            f"`decode` (={text}) must be a dataclass such as CenterCrop if the images are kept in a file, "
            "so that the file can record how they were decoded"
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
    """The header of the array; numpy pads it, so its length does not depend on the first axis."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
    )
    return stream.getvalue()


def _parse(file: BinaryIO) -> tuple[int, tuple[int, ...], dict[str, Any]]:
    """Offset and shape of the array, and the note. Raises ValueError or the like for a file in another format."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL))
    tail = file.read(_TAIL)
    length = int.from_bytes(tail[:8], "little")
    if tail[8:] != _MAGIC or length > size - _TAIL:
        raise ValueError("it does not end as a file of decoded images does")
    file.seek(size - _TAIL - length)
    note = parse_json(file.read(length))
    file.seek(0)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("its array has an unsupported .npy version")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    offset = file.tell()
    if dtype != np.uint8 or fortran or len(shape) != 4 or offset + math.prod(shape) + length + _TAIL != size:
        raise ValueError(f"its array is {dtype} {shape}, which does not fit its {size} bytes")
    return offset, shape, note


def read_pictures(path: Path, wanted: Mapping[str, str]) -> StoredPictures | None:
    """Map a file of decoded images; None if there is no such file.

    Args:
        path: the file.
        wanted: :func:`made_from` of the images that the caller needs.

    Raises:
        DataError: if the file cannot be read, is damaged, has another format, or holds other images.
    """
    try:
        with path.open("rb") as file:
            offset, shape, note = _parse(file)
        found = {key: note["made_from"][key] for key in wanted}
        skipped = tuple((int(index), str(reason)) for index, reason in note["skipped"])
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"the file of decoded images {path} cannot be read: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is damaged, or is not a file of decoded images ({error}); remove it to create it again, "
            "or choose another file"
        ) from error
    differ = [f"{key}: {found[key]} in the file, {wanted[key]} here" for key in wanted if found[key] != wanted[key]]
    if differ:
        raise DataError(
            f"{path} holds the images of other files, or of another decoder ({'; '.join(differ)}); "
            "remove it to create it again, or choose another file"
        )
    return StoredPictures(np.memmap(path, np.uint8, "r", offset, shape), skipped)


class PictureWriter:
    """Writes a file of decoded images under a temporary name, which ``finish`` renames.

    Entering the context waits for any other process that writes the same file; check afterwards whether that process
    has finished it. Leaving the context without ``finish`` removes the temporary file. A file left by a killed process
    is overwritten.

    Args:
        path: the file; its directory must exist.
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
            with contextlib.suppress(OSError):  # closing tries again to write buffered data
                self._file.close()

    def _locked(self) -> BinaryIO:
        """Lock the temporary file itself; the holder of the lock renames or removes it."""
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
        return DataError(f"the decoded images cannot be kept in {self._path}: {error}")

    def add(self, images: U8) -> None:
        """Append images, uint8 [n, H, W, 3], all of one size.

        Raises:
            DataError: if they cannot be written.
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
        """Give the file its final name. After a power cut it is either complete or absent.

        Args:
            origin: the result of :func:`made_from`.
            skipped: index and reason of each file that could not be decoded.

        Raises:
            DataError: if the file cannot be written.
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
