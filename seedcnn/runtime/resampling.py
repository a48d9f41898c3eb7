"""Resizing in integer arithmetic: the same bytes on every machine, in every language.

Pillow and torchvision compute with floats, and differ from each other and between releases by up to 2 of 255.
docs/bundle-format.md has the definition, and ``examples/reader/seedcnn_reader.c`` the same in C.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from seedcnn.arrays import U8

__all__ = ["resample", "taps"]

BITS = 22
"""Fractional bits of a coefficient."""

_REACH = {"box": 1, "bilinear": 2, "bicubic": 4}  # half-widths of the filters, in half pixels
_WEIGHT_BITS = 39  # a weight times 2**(BITS + 1) stays below 2**63
_ROWS = 1 << 21  # numbers held as float64 at a time

Window = tuple[int, int]


def resample(
    picture: U8, height: int, width: int, *, filter: str = "bilinear", window: tuple[Window, Window] | None = None
) -> U8:
    """Resize a picture: along the width first, rounded to bytes, then along the height.

    Args:
        picture: uint8 [h, w, channels].
        height, width: of the whole result.
        filter: "bilinear", "bicubic" (a = -0.5) or "box", antialiased when they shrink; or "nearest".
        window: ((top, bottom), (left, right)) of the part of the result to return; the default is the whole.

    Returns:
        uint8 [bottom - top, right - left, channels].

    Raises:
        ValueError: if a size is not positive, the window lies outside the result, or the filter is unknown.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or not picture.size:
        raise ValueError(f"`picture` is {picture.dtype} {picture.shape}; it must be uint8 [h, w, channels], not empty")
    if min(height, width) < 1:
        raise ValueError(f"`height` (={height}) and `width` (={width}) must be at least 1")
    (top, bottom), (left, right) = window or ((0, height), (0, width))
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise ValueError(f"`window` (={window}) must lie inside {height} x {width}")
    if filter != "nearest" and filter not in _REACH:
        raise ValueError(f"`filter` (={filter!r}) must be one of 'bilinear', 'bicubic', 'box', 'nearest'")
    if filter == "nearest":
        chosen = picture[_nearest(picture.shape[0], height)[top:bottom]]
        return np.ascontiguousarray(chosen[:, _nearest(picture.shape[1], width)[left:right]])
    first, last = _needed(picture.shape[0], height, filter, top, bottom)
    rows = picture[first:last]
    if picture.shape[1] != width:
        turned = np.ascontiguousarray(rows.transpose(1, 0, 2))
        rows = _along_rows(turned, width, filter, left, right, 0).transpose(1, 0, 2)
    else:
        rows = rows[:, left:right]
    if picture.shape[0] != height:
        rows = _along_rows(np.ascontiguousarray(rows), height, filter, top, bottom, first, picture.shape[0])
    return np.ascontiguousarray(rows)


def _nearest(size: int, wanted: int) -> npt.NDArray[np.int64]:
    return (2 * np.arange(wanted, dtype=np.int64) + 1) * size // (2 * wanted)


def _needed(size: int, wanted: int, filter: str, begin: int, end: int) -> Window:
    """Return the range of source rows that results ``begin`` to ``end`` read."""
    if size == wanted:
        return begin, end
    starts, coefficients = taps(size, wanted, filter)
    return int(starts[begin]), min(size, int(starts[end - 1]) + coefficients.shape[1])


@lru_cache(maxsize=64)
def taps(size: int, wanted: int, filter: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return what each of ``wanted`` results reads of ``size`` source pixels.

    With D = max(size, wanted) and n = (2 j + 1) wanted - (2 i + 1) size, result i is n / 2 D filter units from source
    pixel j. The weights are integers in units that the filter gives (below), their sum W; where they would not fit in
    39 bits they lose their low bits first. A coefficient is weight * 2**22 / W, rounded half up.

    - box: 1 if -D < n <= D.
    - bilinear: 2 D - abs(n) if positive.
    - bicubic, with m = abs(n) and T = 2 D: 3 m^3 - 5 m^2 T + 2 T^3 if m < T; -m^3 + 5 m^2 T - 8 m T^2 + 4 T^3 if
      T <= m < 2 T.

    Returns:
        First source pixel, int64 [wanted], and coefficients in units of 2**-22, int64 [wanted, most taps]; rows with
        fewer taps end with zeros.
    """
    scale, reach = max(size, wanted), _REACH[filter]
    results = np.arange(wanted, dtype=np.int64)
    # The first j with n > -reach * D, clipped; everything is an integer, so nothing depends on rounding.
    starts = np.maximum(0, (-reach * scale + (2 * results + 1) * size - wanted) // (2 * wanted) + 1)
    ends = np.minimum(size, (reach * scale + (2 * results + 1) * size - wanted) // (2 * wanted) + 1)
    offsets = np.arange(int((ends - starts).max()), dtype=np.int64)
    sources = starts[:, None] + offsets
    weights = _weights((2 * sources + 1) * wanted - (2 * results[:, None] + 1) * size, scale, filter)
    weights[sources >= ends[:, None]] = 0
    total = weights.sum(axis=1, keepdims=True)
    coefficients: npt.NDArray[np.int64] = (weights * 2 ** (BITS + 1) + total) // (2 * total)
    return starts, coefficients


def _weights(n: npt.NDArray[np.int64], scale: int, filter: str) -> npt.NDArray[np.int64]:
    if filter == "box":
        return ((n > -scale) & (n <= scale)).astype(np.int64)
    m, t = np.abs(n), 2 * scale
    if filter == "bilinear":
        hats: npt.NDArray[np.int64] = np.maximum(0, t - m)
        return hats
    near = 3 * m**3 - 5 * m**2 * t + 2 * t**3
    far = -(m**3) + 5 * m**2 * t - 8 * m * t**2 + 4 * t**3
    weights = np.where(m < t, near, np.where(m < 2 * t, far, 0))
    fitting: npt.NDArray[np.int64] = weights >> max(0, (2 * t**3).bit_length() - _WEIGHT_BITS)
    return fitting


def _along_rows(rows: U8, wanted: int, filter: str, begin: int, end: int, first: int, size: int | None = None) -> U8:
    """Resize the first axis, of which ``rows`` holds the part from ``first``, to its results ``begin`` to ``end``.

    Products of matrices in float64 hold these sums exactly (below 2**53), in whatever order they are added.
    """
    starts, coefficients = taps(rows.shape[0] if size is None else size, wanted, filter)
    flat = rows.reshape(len(rows), -1)
    result = np.empty((end - begin, flat.shape[1]), np.uint8)
    block = max(1, min(16, _ROWS // (16 * coefficients.shape[1])))
    columns = max(1, _ROWS // (block + coefficients.shape[1] * 4))
    for at in range(begin, end, block):
        stop = min(end, at + block)
        low = int(starts[at]) - first
        high = min(len(rows), int(starts[stop - 1]) + coefficients.shape[1] - first)
        matrix = np.zeros((stop - at, high - low))
        for row in range(at, stop):
            shift = int(starts[row]) - first - low
            each = coefficients[row, : high - low - shift]
            matrix[row - at, shift : shift + len(each)] = each
        for column in range(0, flat.shape[1], columns):
            part = flat[low:high, column : column + columns].astype(np.float64)
            sums = (matrix @ part).astype(np.int64)
            result[at - begin : stop - begin, column : column + columns] = np.clip(
                (sums + (1 << (BITS - 1))) >> BITS, 0, 255
            )
    return result.reshape(end - begin, *rows.shape[1:])
