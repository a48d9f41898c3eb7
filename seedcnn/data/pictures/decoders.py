"""Decoders: from an image file to pixels of one size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from seedcnn.arrays import U8

__all__ = ["CenterCrop", "Decode", "FullFrame", "open_rgb"]

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


def open_rgb(path: Path) -> Image.Image:
    """Decode a file to RGB. Pillow can raise any exception for a damaged file."""
    with Image.open(path) as image:
        # Through RGBA, because Pillow warns when it converts a palette with transparent entries to RGB.
        return (image.convert("RGBA") if image.mode == "P" else image).convert("RGB")
