"""Digital corruptions: contrast, pixelate, jpeg_compression and saturate; elastic_transform is in ``_elastic``."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from seedcnn.arrays import F64, U8
from seedcnn.data.corruptions._color import hsv_to_rgb, rgb_to_hsv
from seedcnn.data.corruptions.core import Fields, Setting, to_levels
from seedcnn.data.corruptions.filters import resize_box


def contrast(images: U8, at: Setting, _: Fields) -> F64:
    """Shrink the distance to the mean of each channel."""
    unit = images / 255.0
    mean = unit.mean(axis=(1, 2), keepdims=True)
    unit -= mean
    unit *= at.constant
    unit += mean
    return to_levels(unit)


def pixelate(images: U8, at: Setting, _: Fields) -> U8:
    """Shrink and enlarge with a box filter."""
    height, width = images.shape[1:3]
    small = resize_box(images, int(height * at.constant), int(width * at.constant))
    return resize_box(small, height, width)


def jpeg_compression(images: U8, at: Setting, _: Fields) -> U8:
    """Encode and decode with Pillow, with 4:2:0 chroma. The result depends on Pillow's version of libjpeg."""
    result = np.empty_like(images)
    for picture, target in zip(images, result, strict=True):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=at.constant)
        with Image.open(file) as decoded:
            target[:] = decoded
    return result


def saturate(images: U8, at: Setting, _: Fields) -> F64:
    """Scale and shift S of HSV. A shift turns grey pixels reddish, because their hue is 0."""
    scale, shift = at.constant
    hue, saturation, value = rgb_to_hsv(images)
    return to_levels(hsv_to_rgb(hue, np.clip(saturation * scale + shift, 0, 1), value))
