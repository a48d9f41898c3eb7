"""elastic_transform: an affine jitter, then a smooth displacement."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from seedcnn.arrays import F32, F64, U8
from seedcnn.data.corruptions.core import Fields, Setting, from_planes, to_levels, unit_planes
from seedcnn.data.corruptions.filters import reflecting_gaussian_matrix

Indices = npt.NDArray[np.int32]


def draw_elastic(generator: np.random.Generator, picture: U8, at: Setting) -> dict[str, Any]:
    """``points``: moves of three points, [3, 2] as (x, y); ``dx`` and ``dy``: -1..1, [H, W]."""
    affine = at.constant[2]
    return {
        "points": generator.uniform(-affine, affine, (3, 2)),
        "dx": generator.uniform(-1, 1, picture.shape[:2]),
        "dy": generator.uniform(-1, 1, picture.shape[:2]),
    }


def inverse_affine(moves: F64, h: int, w: int) -> F64:
    """From the moves [N, 3, 2] of three points to the matrices [N, 2, 3] that map target to source.

    The points are a third of the short side away from (h // 2, w // 2), which is read as (x, y), as in the official
    code.
    """
    centre, side = np.array([h // 2, w // 2], np.float32), min(h, w) // 3
    start = np.stack([centre + side, [centre[0] + side, centre[1] - side], centre - side]).astype(np.float32)
    end = (start + moves.astype(np.float32)).astype(np.float64)
    matrix = np.empty((len(moves), 2, 3))
    matrix[:, :, 0] = (end[:, 1] - end[:, 2]) / (2 * side)
    matrix[:, :, 1] = (end[:, 0] - end[:, 1]) / (2 * side)
    matrix[:, :, 2] = end[:, 2] - matrix[:, :, 0] * start[2, 0] - matrix[:, :, 1] * start[2, 1]
    (a, b, tx), (c, d, ty) = matrix.transpose(1, 2, 0)
    scale = 1 / (a * d - b * c)
    a, b, c, d = d * scale, -b * scale, -c * scale, a * scale
    return np.stack([a, b, -a * tx - b * ty, c, d, -c * tx - d * ty], axis=1).reshape(-1, 2, 3)


def _neighbours(low: Indices, size: int, *, repeat_edge: bool) -> tuple[Indices, Indices]:
    """The pixels ``low`` and ``low + 1`` of an axis that is mirrored at its ends, looked up in a table.

    With ``repeat_edge`` the axis continues as c b a | a b c | c b a (scipy's "reflect"), else as c b | a b c | b a.
    """
    first, period = int(low.min()), 2 * size if repeat_edge else 2 * size - 2
    at = np.arange(first, int(low.max()) + 2, dtype=np.int32) % period
    table = np.minimum(at, (period - 1 if repeat_edge else period) - at)
    offset = low - first
    return np.take(table, offset), np.take(table[1:], offset)


def _bilinear(unit: F32, rows: tuple[Indices, Indices], columns: tuple[Indices, Indices], y: F32, x: F32) -> F32:
    """Interpolate four neighbours of unit [C, N, H, W]; y and x [N, H, W] are the weights of the second neighbours."""
    c, n, h, w = unit.shape
    flat = unit.reshape(c, n * h * w)
    first = (np.arange(n, dtype=np.int32) * (h * w))[:, None, None]

    def mixed(row: Indices) -> F32:
        base = first + row * w
        left, right = np.take(flat, base + columns[0], axis=1), np.take(flat, base + columns[1], axis=1)
        right -= left
        right *= x
        right += left
        return right

    top, bottom = mixed(rows[0]), mixed(rows[1])
    bottom -= top
    bottom *= y
    bottom += top
    return bottom


def warp_affine(unit: F32, inverse: F64) -> F32:
    """Bilinear sampling at float32 coordinates; edges are mirrored without repeating the outermost pixel."""
    h, w = unit.shape[2:]
    matrix = inverse[:, :, :, None, None]
    down, across = np.arange(h)[:, None], np.arange(w, dtype=np.float64)

    def coordinate(axis: int) -> F32:
        start = (matrix[:, axis, 1] * down + matrix[:, axis, 2]).astype(np.float32)
        return (matrix[:, axis, 0].astype(np.float32) * across + start).astype(np.float32)

    x, y = coordinate(0), coordinate(1)
    x_low, y_low = np.floor(x), np.floor(y)
    rows = _neighbours(y_low.astype(np.int32), h, repeat_edge=False)
    columns = _neighbours(x_low.astype(np.int32), w, repeat_edge=False)
    return _bilinear(unit, rows, columns, y - y_low, x - x_low)


def displace(unit: F32, dx: F32, dy: F32) -> F32:
    """Bilinear sampling at (y + dy, x + dx); edges are mirrored and repeated (scipy's "reflect")."""
    h, w = unit.shape[2:]
    y, x = np.arange(h, dtype=np.float64)[:, None] + dy, np.arange(w, dtype=np.float64) + dx
    y_low, x_low = np.floor(y), np.floor(x)
    rows = _neighbours(y_low.astype(np.int32), h, repeat_edge=True)
    columns = _neighbours(x_low.astype(np.int32), w, repeat_edge=True)
    return _bilinear(unit, rows, columns, (y - y_low).astype(np.float32), (x - x_low).astype(np.float32))


def elastic_transform(images: U8, at: Setting, fields: Fields) -> F32:
    """Jitter and displace. Severities are not ordered: CIFAR's severity 1 is only a jitter, but the largest one."""
    alpha, sigma, _ = at.constant
    h, w = images.shape[1:3]
    unit = unit_planes(images)
    unit = warp_affine(unit, inverse_affine(fields["points"], h, w))
    if alpha:
        down, across = (reflecting_gaussian_matrix(size, sigma, 3.0) for size in (h, w))
        dx, dy = ((down @ fields[key] @ across.T * alpha).astype(np.float32) for key in ("dx", "dy"))
        unit = displace(unit, dx, dy)
    return from_planes(to_levels(unit))
