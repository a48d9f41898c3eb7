"""Decoders: from an image file to pixels of one size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from seedcnn.arrays import U8
from seedcnn.bundle import Preprocessing
from seedcnn.errors import ImageError
from seedcnn.runtime.pictures import on_background, prepare, read_picture

__all__ = ["ByRule", "CenterCrop", "Decode", "FullFrame", "open_rgb", "why_not"]

Decode = Callable[[Image.Image], U8]
"""From an RGB image to uint8 [H, W, 3]."""


@dataclass(frozen=True)
class FullFrame:
    """The whole image, resized to a square.

    Args:
        size: side of the result, in pixels.
        resample: Pillow's filter; bilinear by default, as in torchvision's ``Resize``.
    """

    size: int
    resample: Image.Resampling = Image.Resampling.BILINEAR

    def __call__(self, image: Image.Image) -> U8:
        """uint8 [size, size, 3] of an RGB image."""
        return np.asarray(image.resize((self.size, self.size), self.resample))


@dataclass(frozen=True)
class CenterCrop:
    """The centre of the image after resizing its shorter side, as torchvision's ``Resize`` and ``CenterCrop``.

    Args:
        size: side of the result, in pixels.
        resize: length of the shorter side before the crop, at least ``size``; None keeps the image's own size
            (for ImageNet-C, whose images are already 224 x 224).
        resample: Pillow's filter.

    Raises:
        ValueError: if ``resize`` is below ``size``; when called, if the image is smaller than the crop.
    """

    size: int = 224
    resize: int | None = 256
    resample: Image.Resampling = Image.Resampling.BILINEAR

    def __post_init__(self) -> None:
        if self.resize is not None and self.resize < self.size:
            raise ValueError(f"`resize` (={self.resize}) must be at least `size` (={self.size})")

    def __call__(self, image: Image.Image) -> U8:
        """uint8 [size, size, 3] of an RGB image."""
        width, height = image.size
        if self.resize is not None:
            short = min(width, height)
            width, height = (int(self.resize * side / short) for side in (width, height))
            image = image.resize((width, height), self.resample)
        if min(width, height) < self.size:
            raise ValueError(f"the image has {width} x {height} pixels; the crop needs {self.size} x {self.size}")
        left, top = round((width - self.size) / 2), round((height - self.size) / 2)
        return np.asarray(image.crop((left, top, left + self.size, top + self.size)))


@dataclass(frozen=True)
class ByRule:
    """The rule of a network, as a device applies it (:mod:`seedcnn.runtime.pictures`)."""

    rule: Preprocessing

    def __call__(self, image: Image.Image) -> U8:
        """uint8 [height, width, channels] of an RGB image.

        Raises:
            ValueError: if the rule refuses its size.
        """
        try:
            return prepare(np.asarray(image), self.rule)
        except ImageError as error:
            raise ValueError(f"the image {error}") from None


def open_rgb(path: Path) -> Image.Image:
    """Decode a file to RGB: upright, its transparent pixels white, 16 bits by the upper byte.

    Raises:
        ImageError: if it cannot be decoded, see :func:`seedcnn.runtime.pictures.read_picture`.
    """
    return Image.fromarray(on_background(read_picture(path), 3, (255, 255, 255)))


def why_not(path: Path, error: Exception) -> str:
    """Say why a file cannot be decoded, without its path."""
    kind = "" if isinstance(error, ImageError) else f"{type(error).__name__}: "
    return f"{kind}{error}".removeprefix(f"{path} ")
