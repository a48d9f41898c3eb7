"""Filters and resampling of batches, with the conventions of the libraries that the official code calls."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from seedcnn.arrays import F64, U8

__all__ = [
    "blur_axis",
    "clipped_zoom",
    "gaussian",
    "gaussian_weights",
    "reflecting_gaussian_matrix",
    "resize_box",
    "streak",
    "zoom_axis",
]

_PILLOW_BITS = 22  # Pillow's fixed point for 8-bit images: 32 - 8 - 2


@lru_cache(maxsize=64)
def gaussian_weights(sigma: float, truncate: float = 4.0) -> F64:
    """scipy's kernel of 2 * radius + 1 weights, with radius int(truncate * sigma + 0.5)."""
    radius = int(truncate * sigma + 0.5)
    weights = np.exp(-0.5 / sigma**2 * np.arange(-radius, radius + 1) ** 2)
    weights /= weights.sum()
    weights.setflags(write=False)
    return weights


def blur_axis(values: F64, weights: F64, axis: int) -> F64:
    """Correlate with a symmetric kernel along one axis; edges are repeated."""
    radius, size, shape = len(weights) // 2, values.shape[axis], values.shape
    if radius == 0:
        return values
    inner = math.prod(shape[axis + 1 :])
    rows = values.reshape(-1, size, inner)
    padded = np.empty((len(rows), size + 2 * radius, inner))
    padded[:, radius : radius + size] = rows
    padded[:, :radius], padded[:, radius + size :] = rows[:, :1], rows[:, -1:]
    # Shifts of the flattened array give long loops; overruns at the end of a row land in the padding.
    flat, result = padded.ravel(), np.empty_like(padded)
    count = flat.size - 2 * radius * inner
    sums, pair = result.ravel()[:count], np.empty(count)
    np.multiply(flat[radius * inner : radius * inner + count], weights[radius], out=sums)
    # Pairs from the outside in, in scipy's order: in flat areas truncation to 8 bits exposes any other order.
    for i in range(radius):
        left, right = i * inner, (2 * radius - i) * inner
        np.add(flat[left : left + count], flat[right : right + count], out=pair)
        pair *= weights[i]
        sums += pair
    return result[:, :size].reshape(shape)


def gaussian(values: npt.NDArray[Any], sigma: float) -> npt.NDArray[Any]:
    """``skimage.filters.gaussian`` (edges repeated, truncated at 4 sigma) over axes 1 and 2 of [N, H, W, ...].

    float32 stays float32: sums are float64 and are rounded after each axis.
    """
    weights = gaussian_weights(sigma)
    for axis in (1, 2):
        values = blur_axis(values.astype(np.float64, copy=False), weights, axis).astype(values.dtype, copy=False)
    return values


@lru_cache(maxsize=64)
def reflecting_gaussian_matrix(size: int, sigma: float, truncate: float) -> F64:
    """A Gaussian blur of one axis with mirrored edges (d c b a | a b c d | d c b a), as a matrix [size, size]."""
    weights = gaussian_weights(sigma, truncate)
    radius = len(weights) // 2
    matrix = np.zeros((size, size))
    source = (np.arange(size)[:, None] + np.arange(-radius, radius + 1)) % (2 * size)
    source = np.where(source < size, source, 2 * size - 1 - source)
    np.add.at(matrix, (np.arange(size)[:, None], source), np.broadcast_to(weights, source.shape))
    matrix.setflags(write=False)
    return matrix


@lru_cache(maxsize=64)
def _box_taps(size: int, new_size: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int32]]:
    """Pillow's BOX coefficients (Resample.c, precompute_coeffs): sources and fixed-point weights, [taps, new_size]."""
    scale = size / new_size
    support = 0.5 * max(scale, 1.0)
    matrix = np.zeros((new_size, size), np.int32)
    for row in range(new_size):
        center = (row + 0.5) * scale
        first, last = max(int(center - support + 0.5), 0), min(int(center + support + 0.5), size)
        distance = (np.arange(first, last) - center + 0.5) / max(scale, 1.0)
        inside = (distance > -0.5) & (distance <= 0.5)
        matrix[row, first:last] = np.floor(inside / inside.sum() * 2.0**_PILLOW_BITS + 0.5)
    used = matrix > 0
    taps = int(used.sum(axis=1).max())
    sources = np.minimum(used.argmax(axis=1) + np.arange(taps)[:, None], size - 1)
    # Beyond the last source of a row the weight is 0; a clipped index must not count twice.
    weights = np.where(used.argmax(axis=1) + np.arange(taps)[:, None] < size, matrix[np.arange(new_size), sources], 0)
    return sources, weights.astype(np.int32)


def _resize_axis(images: U8, new_size: int, axis: int) -> U8:
    sources, weights = _box_taps(images.shape[axis], new_size)
    if len(sources) == 1:
        return np.take(images, sources[0], axis)
    shape = [1] * images.ndim
    shape[axis] = -1
    # The sums stay below 2**31: at most 255 * 2**22, plus a half for rounding.
    total = np.full((), 1 << (_PILLOW_BITS - 1), np.int32)
    for source, weight in zip(sources, weights, strict=True):
        total = total + np.take(images, source, axis) * weight.reshape(shape)
    total >>= _PILLOW_BITS
    return total.astype(np.uint8)


def resize_box(images: U8, height: int, width: int) -> U8:
    """``PIL.Image.resize((width, height), BOX)`` of each image, bit for bit. uint8 [N, height, width, C]."""
    # Pillow resizes along the rows first, and rounds to 8 bits in between.
    return _resize_axis(_resize_axis(images, width, 2), height, 1)


@lru_cache(maxsize=512)
def zoom_axis(size: int, factor: float) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], F64]:
    """One axis of the official ``clipped_zoom``: the centre, enlarged by ``factor`` and cropped to ``size``.

    scipy's order-1 zoom has round(crop * factor) samples, with aligned corners.

    Returns:
        Lower source index, upper source index and weight of the upper one, [size] each.
    """
    crop = int(np.ceil(size / factor))
    top = (size - crop) // 2
    enlarged = round(crop * factor)
    trim = (enlarged - size) // 2
    at = np.arange(trim, trim + size) * ((crop - 1) / (enlarged - 1))
    low = np.minimum(np.floor(at).astype(np.intp), crop - 1)
    high = np.minimum(low + 1, crop - 1)
    return low + top, high + top, at - low


def clipped_zoom(values: F64, factor: float) -> F64:
    """The official ``clipped_zoom`` of [N, H, W, ...], one axis after the other."""
    for axis in (1, 2):
        low, high, weight = zoom_axis(values.shape[axis], factor)
        shape = [1] * values.ndim
        shape[axis] = -1
        upper = weight.reshape(shape)
        values = np.take(values, low, axis) * (1 - upper) + np.take(values, high, axis) * upper
    return values


def streak(images: U8, radius: int, sigma: float, angles: F64) -> U8:
    """ImageMagick's motion blur: a one-sided Gaussian streak, edges repeated, rounded to 16 and truncated to 8 bits.

    Args:
        images: uint8 [N, H, W, C].
        radius, sigma: in pixels; the streak has 2 * radius + 1 taps.
        angles: [N], in degrees.
    """
    n, h, w, c = images.shape
    taps = 2 * radius + 1
    weights = np.exp(-(np.arange(taps) ** 2) / (2 * sigma**2))
    weights /= weights.sum()
    radians = np.deg2rad(angles)
    point = np.stack([np.sin(radians), np.cos(radians)]) * taps
    steps = np.arange(taps)[:, None, None] * point / np.hypot(*point) - 0.5
    offset = np.ceil(steps).astype(np.intp)  # [taps, 2, N]
    reach = np.abs(offset).max(initial=0)
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (h, w), axis=(1, 2)).transpose(0, 1, 2, 4, 5, 3)
    rows, columns, where = offset[:, 0] + reach, offset[:, 1] + reach, np.arange(n)
    total = np.zeros((n, h, w, c), np.float32)
    for tap in range(taps):
        total += windows[where, rows[tap], columns[tap]] * np.float32(weights[tap])
    # ImageMagick rounds the sum to 16 bits (level * 257) and drops the lower byte: floor(round(257 x) / 257).
    total += np.float32(0.5 / 257)
    return total.astype(np.uint8)
