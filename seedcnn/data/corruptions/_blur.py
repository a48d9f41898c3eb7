"""Blur: defocus, glass, motion, zoom and Gaussian blur."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from seedcnn.arrays import F32, F64, U8
from seedcnn.data.corruptions.core import Fields, Setting, to_levels
from seedcnn.data.corruptions.filters import clipped_zoom, gaussian, streak, zoom_axis

_DIRECT_REACH = 2  # wider kernels go through the Fourier transform
_OPERATOR_LIMIT = 64 * 64  # zoom blur is one linear operator up to this number of pixels


def gaussian_blur(images: U8, at: Setting, _: Fields) -> F64:
    """A separable Gaussian, with edges repeated."""
    return to_levels(gaussian(images / 255.0, at.constant))


def _blur_kernel(kernel: F32, size: int, sigma: float) -> F32:
    """``cv2.GaussianBlur`` of a square float32 kernel; edges are mirrored without repeating the outermost pixel."""
    radius = size // 2
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    for axis in (1, 0):
        widths = [(radius, radius) if i == axis else (0, 0) for i in range(2)]
        padded = np.moveaxis(np.pad(kernel, widths, mode="reflect"), axis, 0)
        length = kernel.shape[axis]
        rows = sum((padded[i : i + length] * weights[i] for i in range(size)), np.zeros_like(kernel))
        kernel = np.moveaxis(rows, 0, axis)
    return kernel


@lru_cache(maxsize=16)
def disk(radius: float, alias_blur: float) -> F64:
    """The defocus kernel, cropped to its nonzero square [k, k] with k odd."""
    side, blur_size = (8, 3) if radius <= 8 else (int(radius), 5)
    grid = np.arange(-side, side + 1)
    inside = (grid[:, None] ** 2 + grid**2 <= radius**2).astype(np.float32)
    kernel = _blur_kernel(inside / inside.sum(), blur_size, alias_blur)
    reach = int(np.abs(grid[np.nonzero(kernel.any(axis=0))[0]]).max())
    trimmed = kernel[side - reach : side + reach + 1, side - reach : side + reach + 1].astype(np.float64)
    trimmed.setflags(write=False)
    return trimmed


def _correlate(unit: F64, kernel: F64) -> F64:
    """Correlate [N, H, W, C] with a kernel of four-fold symmetry; edges are mirrored without repeating a pixel."""
    reach, (h, w, c) = len(kernel) // 2, unit.shape[1:]
    padded = np.pad(unit, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="reflect")
    if reach > _DIRECT_REACH:
        size = padded.shape[1:3]
        spectrum = np.fft.rfft2(padded, axes=(1, 2)) * np.conj(np.fft.rfft2(kernel, size))[None, :, :, None]
        return np.fft.irfft2(spectrum, size, axes=(1, 2))[:, :h, :w]
    # Shifts of the flattened array give long loops; overruns at the edges land in the padding and are cropped.
    flat, line = padded.ravel(), (w + 2 * reach) * c
    height = flat.size - 2 * reach * line
    count = height - 2 * reach * c
    result = np.zeros_like(padded)
    total = result.ravel()[:count]
    for row in range(reach + 1):
        # Rows and columns at the same distance from the centre have the same weight.
        pair = flat[row * line :][:height]
        if row < reach:
            pair = pair + flat[(2 * reach - row) * line :][:height]
        for column in np.nonzero(kernel[row, : reach + 1])[0].tolist():
            left = pair[column * c :][:count]
            if column < reach:
                left = left + pair[(2 * reach - column) * c :][:count]
            total += left * kernel[row, column]
    return result[:, :h, :w].copy()


def defocus_blur(images: U8, at: Setting, _: Fields) -> F64:
    """Correlate with an anti-aliased disk."""
    radius, alias_blur = at.constant
    return to_levels(_correlate(images / 255.0, disk(radius, alias_blur)))


def draw_offsets(generator: np.random.Generator, picture: U8, at: Setting) -> dict[str, Any]:
    """``offsets``: int8 [iterations, H - 2 d, W - 2 d, 2] as (dx, dy), each -d..d-1; rows and columns in reverse."""
    _, d, iterations = at.constant
    shape = (iterations, picture.shape[0] - 2 * d, picture.shape[1] - 2 * d, 2)
    return {"offsets": generator.integers(-d, d, shape, np.int8)}


def glass_sources(offsets: npt.NDArray[np.int8], h: int, w: int, d: int) -> npt.NDArray[np.int32]:
    """The source of each pixel after all iterations: indices [N, H * W] into the N * H * W pixels.

    The official "swap" copies pixel (h + dy, w + dx) to (h, w), from the last pixel to the first. With d > 1 a source
    may itself have been overwritten before; the source of that source then counts, and so on.
    """
    n, iterations = offsets.shape[:2]
    identity = np.arange(h * w, dtype=np.int32)
    first = (np.arange(n, dtype=np.int32) * (h * w))[:, None]
    inner = (slice(None), slice(d + 1, h - d + 1), slice(d + 1, w - d + 1))
    is_target = np.zeros((1, h, w), bool)
    is_target[inner] = True
    total = np.tile(identity, n).reshape(n, h * w)
    for i in range(iterations):
        moves = offsets[:, i, ::-1, ::-1].astype(np.int32)
        grid = np.tile(identity, n).reshape(n, h, w)
        grid[inner] += moves[..., 1] * w + moves[..., 0]
        source = grid.reshape(n, h * w)
        follow = (source > identity) & is_target.ravel()[source] if d > 1 else np.zeros((), bool)
        while follow.any():
            at = source + first
            source, follow = np.where(follow, np.take(source, at), source), follow & np.take(follow, at)
        total = np.take(total, source + first) if i else source
    return total + first


def glass_blur(images: U8, at: Setting, fields: Fields) -> F64:
    """Blur, shuffle pixels locally, and blur again."""
    sigma, d, _ = at.constant
    n, h, w, c = images.shape
    offsets = fields["offsets"]
    if offsets.min() < -d or offsets.max() >= d:
        raise ValueError(f"`fields['offsets']` spans {offsets.min()}..{offsets.max()}; it must be in {-d}..{d - 1}")
    # Four bytes per pixel, gathered as one integer.
    soft = np.zeros((n * h * w, 4), np.uint8)
    soft[:, :c] = (gaussian(images / 255.0, sigma) * 255).astype(np.uint8).reshape(-1, c)
    shuffled = np.take(soft.view(np.uint32), glass_sources(offsets, h, w, d)).reshape(-1, 1).view(np.uint8)
    return to_levels(gaussian((shuffled[:, :c] / 255.0).reshape(images.shape), sigma))


def draw_angle(generator: np.random.Generator, _: U8, __: Setting) -> dict[str, Any]:
    """``angle``: in degrees, -45..45."""
    return {"angle": generator.uniform(-45, 45)}


def motion_blur(images: U8, at: Setting, fields: Fields) -> U8:
    """A one-sided Gaussian streak."""
    radius, sigma = at.constant
    return streak(images, radius, sigma, fields["angle"])


@lru_cache(maxsize=64)
def zoom_factors(stop: float, step: float) -> tuple[float, ...]:
    """``np.arange(1, stop, step)``, as in the official code: rounding decides whether it includes the end point."""
    return tuple(np.arange(1, stop, step).tolist())


@dataclass(frozen=True)
class _Tile:
    """Output rows and columns, the input window they depend on, and the weights [outputs, inputs]."""

    target: tuple[slice, slice]
    window: tuple[slice, slice]
    weights: F64


def _axis_matrices(size: int, factors: tuple[float, ...]) -> F64:
    matrices = np.zeros((len(factors) + 1, size, size))
    matrices[0] = np.eye(size)
    rows = np.arange(size)
    for matrix, factor in zip(matrices[1:], factors, strict=True):
        low, high, upper = zoom_axis(size, factor)
        matrix[rows, low] += 1 - upper
        matrix[rows, high] += upper
    return matrices


def _spans(matrices: F64, step: int = 8) -> list[tuple[slice, slice]]:
    """Runs of outputs, and the range of inputs that each run depends on."""
    spans = []
    for start in range(0, matrices.shape[1], step):
        target = slice(start, min(start + step, matrices.shape[1]))
        used = np.nonzero(matrices[:, target].any(axis=(0, 1)))[0]
        spans.append((target, slice(int(used[0]), int(used[-1]) + 1)))
    return spans


@lru_cache(maxsize=10)
def _zoom_tiles(h: int, w: int, factors: tuple[float, ...]) -> tuple[_Tile, ...]:
    """The mean of the image and its zooms as a linear operator, in tiles of 8 x 8 outputs."""
    down, across = _axis_matrices(h, factors), _axis_matrices(w, factors)
    tiles = []
    for rows, row_window in _spans(down):
        for columns, column_window in _spans(across):
            pair = np.einsum("fij,fkl->ikjl", down[:, rows, row_window], across[:, columns, column_window])
            weights = pair.reshape(pair.shape[0] * pair.shape[1], -1) / len(down)
            tiles.append(_Tile((rows, columns), (row_window, column_window), weights))
    return tuple(tiles)


def _zoom_at_once(unit: F32, factors: tuple[float, ...]) -> F32:
    n, h, w, c = unit.shape
    stack = np.ascontiguousarray(unit.transpose(1, 2, 0, 3), np.float64).reshape(h, w, n * c)
    result = np.empty_like(stack, np.float32)
    for tile in _zoom_tiles(h, w, factors):
        window = stack[tile.window].reshape(-1, n * c)
        target = result[tile.target]
        target[:] = (tile.weights @ window).reshape(target.shape)
    return np.ascontiguousarray(result.reshape(h, w, n, c).transpose(2, 0, 1, 3))


def _zoom_one_by_one(unit: F32, factors: tuple[float, ...]) -> F32:
    total = np.zeros_like(unit)
    for factor in factors:
        total += clipped_zoom(unit.astype(np.float64), factor).astype(np.float32)
    return (unit + total) / np.float32(len(factors) + 1)


@lru_cache(maxsize=16)
def _flat_bias(count: int) -> F32:
    """By level, the bias with which a flat area gets the level of the official float32 sum of ``count`` zooms."""
    unit = (np.arange(256) / 255.0).astype(np.float32)
    total = np.zeros_like(unit)
    for _ in range(count):
        total += unit
    official = to_levels((unit + total) / np.float32(count + 1)).astype(np.uint8)
    bias = np.where(official < np.arange(256), -1e-4, 1e-4).astype(np.float32)
    bias.setflags(write=False)
    return bias


def zoom_blur(images: U8, at: Setting, _: Fields) -> F32:
    """The mean of the image and its centre zoomed by each factor."""
    factors = zoom_factors(*at.constant)
    unit = (images / 255.0).astype(np.float32)
    if images.shape[1] * images.shape[2] > _OPERATOR_LIMIT:
        return to_levels(_zoom_one_by_one(unit, factors))
    levels = to_levels(_zoom_at_once(unit, factors))
    levels += _flat_bias(len(factors))[np.rint(levels).astype(np.uint8)]
    return np.clip(levels, 0, 255, out=levels)
