"""RGB and HSV with the operations of scikit-image in the same order: truncation to 8 bits exposes any other order."""

from __future__ import annotations

import numpy as np

from seedcnn.arrays import F64, U8
from seedcnn.data.corruptions.core import from_planes, planes


def rgb_to_hsv(images: U8) -> tuple[F64, F64, F64]:
    """uint8 [N, H, W, 3] to hue, saturation and value, each float64 [N, H, W] in 0..1; grey has 0, 0."""
    red, green, blue = planes(images) / 255.0
    value = np.maximum(np.maximum(red, green), blue)
    delta = value - np.minimum(np.minimum(red, green), blue)
    # For grey pixels hue and saturation are 0: the divisor 1 gives that without a warning.
    divisor = np.where(delta == 0, 1.0, delta)
    hue = np.where(red == value, (green - blue) / divisor, 0.0)
    # If two channels share the maximum, the later channel decides.
    hue = np.where(green == value, 2.0 + (blue - red) / divisor, hue)
    hue = np.where(blue == value, 4.0 + (red - green) / divisor, hue)
    hue /= 6.0
    hue -= np.floor(hue)
    hue[delta == 0] = 0.0
    return hue, delta / np.where(value == 0, 1.0, value), value


def hsv_to_rgb(hue: F64, saturation: F64, value: F64) -> F64:
    """Hue, saturation and value in 0..1, each [N, H, W], to float64 [N, H, W, 3] in 0..1."""
    sixth = np.floor(hue * 6)
    fraction = hue * 6 - sixth
    low = value * (1 - saturation)
    falling = value * (1 - fraction * saturation)
    rising = value * (1 - (1 - fraction) * saturation)
    # Each channel selects one of four values by the sector: a gather, which is faster than np.choose.
    choices = np.stack([value, falling, low, rising]).reshape(-1)
    sector, place = sixth.astype(np.intp) % 6, np.arange(value.size).reshape(value.shape)
    rgb = np.empty((3, *hue.shape))
    for channel, order in zip(rgb, _PICKS, strict=True):
        np.take(choices, np.take(order * value.size, sector) + place, out=channel, mode="clip")
    return from_planes(rgb)


# By channel and sector of the hue: 0 value, 1 falling, 2 low, 3 rising.
_PICKS = np.array([[0, 1, 2, 2, 3, 0], [3, 0, 0, 1, 2, 2], [2, 2, 3, 0, 0, 1]])
