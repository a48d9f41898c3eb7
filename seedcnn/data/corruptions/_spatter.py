"""spatter: drops of water or mud, with batched versions [N, H, W] of the OpenCV functions that water needs."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from seedcnn.arrays import F32, I32, U8
from seedcnn.data.corruptions.core import Fields, Setting, from_planes, to_levels, unit_planes
from seedcnn.data.corruptions.filters import gaussian

Bool = npt.NDArray[np.bool_]

WATER = (175, 238, 238)
MUD = (63, 42, 20)
# Chamfer distances of a step, a diagonal step and a knight's move, in 1/65536 pixels (1, 1.4, 2.1969).
_STEP, _DIAGONAL, _KNIGHT = 65536, 91750, 143976
_FAR = 1 << 29
_CANNY_SHIFT = 15
_TAN_22 = int(0.4142135623730950488016887242097 * (1 << _CANNY_SHIFT) + 0.5)


def draw_layer(generator: np.random.Generator, picture: U8, _: Setting) -> dict[str, Any]:
    """``normal``: standard normal [H, W]."""
    return {"normal": generator.standard_normal(picture.shape[:2])}


def _pad(values: npt.NDArray[Any], mode: Any) -> npt.NDArray[Any]:
    return np.pad(values, ((0, 0), (1, 1), (1, 1)), mode=mode)


def _neighbours(padded: npt.NDArray[Any]) -> list[list[npt.NDArray[Any]]]:
    """Nine shifted views of [N, H + 2, W + 2], by row and column."""
    h, w = padded.shape[1] - 2, padded.shape[2] - 2
    return [[padded[:, i : i + h, j : j + w] for j in range(3)] for i in range(3)]


def _grow(seeds: Bool, allowed: Bool) -> Bool:
    """All pixels of ``allowed`` that are connected to ``seeds``, by edges or corners."""
    reached, count = seeds & allowed, -1
    while (now := int(reached.sum())) != count:
        count = now
        padded = _pad(reached, "constant")
        rows = padded[:, :-2] | padded[:, 1:-1] | padded[:, 2:]
        reached = (rows[:, :, :-2] | rows[:, :, 1:-1] | rows[:, :, 2:]) & allowed
    return reached


def canny(grey: U8, low: int, high: int) -> Bool:
    """``cv2.Canny`` with the 3 x 3 Sobel operator and the L1 norm: True on edges."""
    near = _neighbours(_pad(grey.astype(np.int32), "edge"))
    (a, b, c), (d, _, f), (g, h, i) = near
    dx, dy = (c - a) + 2 * (f - d) + (i - g), (g - a) + 2 * (h - b) + (i - c)
    magnitude = np.abs(dx) + np.abs(dy)
    (nw, n, ne), (w, _, e), (sw, s, se) = _neighbours(_pad(magnitude, "constant"))
    x, y = np.abs(dx), np.abs(dy) << _CANNY_SHIFT
    flat, steep = x * _TAN_22, x * _TAN_22 + (x << (_CANNY_SHIFT + 1))
    along_x = (magnitude > w) & (magnitude >= e)
    along_y = (magnitude > n) & (magnitude >= s)
    rising = (magnitude > ne) & (magnitude > sw)
    falling = (magnitude > nw) & (magnitude > se)
    diagonal = np.where((dx ^ dy) < 0, rising, falling)
    ridge = np.where(y < flat, along_x, np.where(y > steep, along_y, diagonal)) & (magnitude > low)
    return _grow(ridge & (magnitude > high), ridge)


def chamfer(zeros: Bool) -> F32:
    """``cv2.distanceTransform`` (L2, 5 x 5): distance to the nearest True, in pixels; huge if there is none."""
    n, h, w = zeros.shape
    distance = np.full((n, h + 4, w + 4), _FAR, np.int32)
    ramp = np.arange(w, dtype=np.int32) * _STEP
    for direction in (1, -1):
        view = distance[:, ::direction, ::direction]
        clear = zeros[:, ::direction, ::direction]
        for i in range(h):
            above, further, row = view[:, i + 1], view[:, i], view[:, i + 2, 2:-2]
            best = np.minimum(above[:, 1:-3], above[:, 3:-1]) + _DIAGONAL
            np.minimum(best, above[:, 2:-2] + _STEP, out=best)
            knights = np.minimum(
                np.minimum(above[:, :-4], above[:, 4:]), np.minimum(further[:, 1:-3], further[:, 3:-1])
            )
            np.minimum(best, knights + _KNIGHT, out=best)
            np.minimum(best, row, out=best)
            best[clear[:, i]] = 0
            # Steps along the row: a running minimum of the distance minus the steps so far.
            best -= ramp
            np.minimum.accumulate(best, axis=1, out=best)
            np.add(best, ramp, out=row)
    return distance[:, 2:-2, 2:-2].astype(np.float32) * np.float32(2**-16)


def _box_sum(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Sums over 3 x 3 pixels; edges are mirrored without repeating the outermost pixel."""
    padded = _pad(values, "reflect")
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]


def equalize(levels: I32, top: int) -> I32:
    """``cv2.equalizeHist`` of each image, for levels 0..top. An image with a single level is not changed."""
    n, h, w = levels.shape
    shifted = levels.reshape(n, -1) + np.arange(n)[:, None] * (top + 1)
    counts = np.bincount(shifted.ravel(), minlength=n * (top + 1)).reshape(n, top + 1)
    lowest = np.argmax(counts > 0, axis=1)
    at_lowest = counts[np.arange(n), lowest]
    rest = h * w - at_lowest
    above = np.maximum(counts.cumsum(axis=1) - at_lowest[:, None], 0).astype(np.float32)
    scale = np.float32(255) / np.maximum(rest, 1).astype(np.float32)
    table = np.rint(above * scale[:, None]).astype(np.int32)
    table[rest == 0] = np.arange(top + 1)
    return np.take(table.ravel(), shifted).reshape(n, h, w)


def _relief(layer: U8) -> F32:
    """The highlights on the drops: [N, H, W] on the 0..255 scale."""
    distance = np.minimum(chamfer(canny(layer, 50, 150)), np.float32(20))
    smooth = (_box_sum(distance.astype(np.float64)) * (1 / 9)).astype(np.float32).astype(np.int32)
    even = equalize(smooth, 20)
    (a, b, _), (d, e, f), (_, h, i) = _neighbours(_pad(even, "reflect"))
    lit = np.clip(-2 * a - b - d + e + f + h + 2 * i, 0, 255)
    return ((_box_sum(lit) + 4) // 9).astype(np.float32)


def _colour(levels: tuple[int, int, int]) -> F32:
    return (np.array(levels) / 255).astype(np.float32).reshape(3, 1, 1, 1)


def _water(unit: F32, layer: npt.NDArray[Any], mix: float) -> F32:
    drops = (layer * 255).astype(np.uint8)
    amount = drops * _relief(drops)
    strongest = amount.max(axis=(1, 2), keepdims=True)
    # Without drops the official code divides 0 by 0; here the image is not changed.
    amount /= np.where(strongest == 0, np.float32(1), strongest)
    amount *= np.float32(mix)
    return unit + amount * _colour(WATER)


def _mud(unit: F32, layer: npt.NDArray[Any], threshold: float, sigma: float) -> F32:
    amount = gaussian((layer > threshold).astype(np.float32), sigma)
    amount[amount < np.float32(0.8)] = 0
    return unit * (1 - amount) + amount * _colour(MUD)


def spatter(images: U8, at: Setting, fields: Fields) -> F32:
    """Water at severities 1 to 3, mud at 4 and 5."""
    mean, std, sigma, threshold, mix, is_mud = at.constant
    layer = gaussian(fields["normal"] * std + mean, sigma)
    layer[layer < threshold] = 0
    unit = unit_planes(images)
    return from_planes(to_levels(_mud(unit, layer, threshold, mix) if is_mud else _water(unit, layer, mix)))
