"""Weather: snow, frost, fog and brightness; spatter is in ``_spatter``."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from seedcnn.arrays import F64, U8
from seedcnn.data.corruptions._color import hsv_to_rgb, rgb_to_hsv
from seedcnn.data.corruptions.core import Fields, Setting, from_planes, planes, to_levels, unit_planes
from seedcnn.data.corruptions.filters import clipped_zoom, streak


def draw_snow(generator: np.random.Generator, picture: U8, _: Setting) -> dict[str, Any]:
    """``normal``: standard normal [H, W]; ``angle``: in degrees, -135..-45."""
    return {"normal": generator.standard_normal(picture.shape[:2]), "angle": generator.uniform(-135, -45)}


def snow(images: U8, at: Setting, fields: Fields) -> F64:
    """Motion-blurred flakes, and the same flakes turned by 180 degrees, added to a whitened image."""
    mean, std, zoom, threshold, radius, sigma, mix = at.constant
    layer = clipped_zoom(fields["normal"] * std + mean, zoom)
    layer[layer < threshold] = 0
    flakes = (np.clip(layer, 0, 1) * 255).astype(np.uint8)
    layer = streak(flakes[..., None], radius, sigma, fields["angle"])[..., 0] / 255.0
    unit = unit_planes(images)
    red, green, blue = unit
    grey = red * np.float32(0.299) + green * np.float32(0.587) + blue * np.float32(0.114)
    whitened = np.maximum(unit, grey * np.float32(1.5) + np.float32(0.5)) * np.float32(1 - mix)
    unit *= np.float32(mix)
    unit += whitened
    result = unit + layer
    result += layer[:, ::-1, ::-1]
    return from_planes(to_levels(result))


def draw_frost(generator: np.random.Generator, picture: U8, at: Setting) -> dict[str, Any]:
    """``picture``: frost image 0..4 (the sixth is never used); ``row``, ``column``: corner of the window in it."""
    which = int(generator.integers(5))
    h, w = (big - small for big, small in zip(at.frost[which].shape[:2], picture.shape[:2], strict=True))
    return {"picture": which, "row": int(generator.integers(h)), "column": int(generator.integers(w))}


def frost(images: U8, at: Setting, fields: Fields) -> F64:
    """Add a window of a frost image to each image."""
    image_weight, frost_weight = at.constant
    h, w = images.shape[1:3]
    result: F64 = images * np.float64(image_weight)
    for i, (which, row, column) in enumerate(
        zip(*(fields[key].tolist() for key in ("picture", "row", "column")), strict=True)
    ):
        if not 0 <= which < len(at.frost):
            raise ValueError(f"`fields['picture']` holds {which}; it must be 0 to {len(at.frost) - 1}")
        source = at.frost[which]
        if not (0 <= row <= source.shape[0] - h and 0 <= column <= source.shape[1] - w):
            raise ValueError(
                f"`fields` put a window of {(h, w)} at row {row}, column {column}; frost image {which} has "
                f"{source.shape[:2]} pixels"
            )
        result[i] += frost_weight * source[row : row + h, column : column + w]
    return np.clip(result, 0, 255, out=result)


def map_size(picture: U8) -> int:
    """Side of the fog map: the smallest power of two that covers the image."""
    return 1 << (max(picture.shape[:2]) - 1).bit_length()


def draw_fog(generator: np.random.Generator, picture: U8, _: Setting) -> dict[str, Any]:
    """``uniform``: 0..1, [side**2 - 1], in the order of the official code; ``side`` is that of ``map_size``."""
    return {"uniform": generator.random(map_size(picture) ** 2 - 1)}


def plasma(uniform: F64, side: int, decay: float) -> F64:
    """Fractal heights 0..1 by the diamond-square algorithm on a torus. [N, side**2 - 1] to [N, side, side]."""
    n = len(uniform)
    heights = np.zeros((n, side, side))
    step, wibble, used = side, 100.0, 0

    def wibbled(sums: F64) -> F64:
        nonlocal used
        count = sums.shape[1] * sums.shape[2]
        draws = uniform[:, used : used + count].reshape(sums.shape)
        used += count
        return sums / 4 + wibble * (-wibble + 2 * wibble * draws)

    while step >= 2:
        half = step // 2
        corners = heights[:, ::step, ::step]
        pairs = corners + np.roll(corners, -1, 1)
        heights[:, half::step, half::step] = wibbled(pairs + np.roll(pairs, -1, 2))
        centres = heights[:, half::step, half::step]
        across = (centres + np.roll(centres, 1, 1)) + (corners + np.roll(corners, -1, 2))
        heights[:, ::step, half::step] = wibbled(across)
        down = (centres + np.roll(centres, 1, 2)) + (corners + np.roll(corners, -1, 1))
        heights[:, half::step, ::step] = wibbled(down)
        step //= 2
        wibble /= decay
    heights -= heights.min(axis=(1, 2), keepdims=True)
    heights /= heights.max(axis=(1, 2), keepdims=True)
    return heights


def fog(images: U8, at: Setting, fields: Fields) -> F64:
    """Add fractal heights, and scale back to the maximum of the image."""
    strength, decay = at.constant
    h, w = images.shape[1:3]
    heights = plasma(fields["uniform"], map_size(images[0]), decay)[:, :h, :w]
    unit = planes(images) / 255.0
    highest = unit.max(axis=(0, 2, 3))[:, None, None]
    unit += strength * heights
    unit *= highest
    unit /= highest + strength
    return from_planes(to_levels(unit))


def brightness(images: U8, at: Setting, _: Fields) -> npt.NDArray[Any]:
    """Increase V of HSV."""
    hue, saturation, value = rgb_to_hsv(images)
    return to_levels(hsv_to_rgb(hue, saturation, np.clip(value + at.constant, 0, 1)))
