"""The filters of the corruptions against Pillow and against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from seedcnn.data.corruptions._blur import (
    _correlate,
    _zoom_at_once,
    _zoom_one_by_one,
    disk,
    glass_sources,
    zoom_factors,
)
from seedcnn.data.corruptions._color import hsv_to_rgb, rgb_to_hsv
from seedcnn.data.corruptions._elastic import displace, inverse_affine, warp_affine
from seedcnn.data.corruptions._spatter import canny, chamfer, equalize
from seedcnn.data.corruptions._weather import plasma
from seedcnn.data.corruptions.filters import (
    blur_axis,
    gaussian,
    gaussian_weights,
    reflecting_gaussian_matrix,
    resize_box,
    streak,
    zoom_axis,
)


def random_pictures(*shape):
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (40, 32), (64, 50), (97, 131), (224, 224)])
def test_box_resize_is_pillows_bit_for_bit(size):
    h, w = size
    pictures = random_pictures(2, h, w, 3)
    factors = (0.95, 0.9, 0.85, 0.75, 0.65, 0.6, 0.5, 0.4, 0.3, 0.25)
    targets = [(int(h * f), int(w * f)) for f in factors] + [(h * 2 + 1, w + 3), (h, w // 2), (h, w)]
    for height, width in targets:
        theirs = [np.asarray(Image.fromarray(p).resize((width, height), Image.Resampling.BOX)) for p in pictures]
        np.testing.assert_array_equal(resize_box(pictures, height, width), np.stack(theirs))


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("sigma", [0.05, 0.4, 1.5, 6.0])
def test_blur_axis_is_a_correlation_with_repeated_edges(sigma, axis):
    values, weights = np.random.default_rng(0).normal(size=(2, 9, 11, 3)), gaussian_weights(sigma)
    radius = len(weights) // 2
    assert radius == int(4 * sigma + 0.5)
    expected = np.zeros_like(values)
    for tap in range(-radius, radius + 1):
        index = np.clip(np.arange(values.shape[axis]) + tap, 0, values.shape[axis] - 1)
        expected += weights[tap + radius] * np.take(values, index, axis)
    np.testing.assert_allclose(blur_axis(values, weights, axis), expected, atol=1e-14)


def test_gaussian_keeps_float32():
    values = np.random.default_rng(0).random((2, 9, 11))
    ours = gaussian(values.astype(np.float32), 0.7)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, gaussian(values, 0.7), atol=1e-6)


@pytest.mark.parametrize("sigma", [0.96, 6.4, 40.0])
def test_reflecting_gaussian_is_a_correlation_on_the_mirrored_axis(sigma):
    size, weights = 12, gaussian_weights(sigma, 3.0)
    radius, signal = len(weights) // 2, np.random.default_rng(1).random(12)
    mirrored = np.concatenate([signal, signal[::-1]])
    expected = [
        sum(weights[k + radius] * mirrored[(i + k) % 24] for k in range(-radius, radius + 1)) for i in range(12)
    ]
    np.testing.assert_allclose(reflecting_gaussian_matrix(size, sigma, 3.0) @ signal, expected, atol=1e-12)


@pytest.mark.parametrize("constant", [(0.4, 0.5), (1, 0.2), (1.5, 0.1), (3, 0.1), (8, 0.5), (10, 0.5)])
def test_defocus_is_a_correlation_with_mirrored_edges(constant):
    kernel = disk(*constant)
    reach, unit = len(kernel) // 2, np.random.default_rng(0).random((1, 32, 35, 2))
    # Disks that fill their grid gain one percent, as in the official code: anti-aliasing mirrors them at its edge.
    np.testing.assert_allclose(kernel.sum(), {8: 1.01298, 10: 1.01079}.get(constant[0], 1), atol=1e-5)
    padded = np.pad(unit, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape, axis=(1, 2))
    expected = np.einsum("nhwcij,ij->nhwc", windows, kernel)
    np.testing.assert_allclose(_correlate(unit, kernel), expected, atol=1e-12)


def test_defocus_kernels_are_the_published_ones():
    for (radius, alias), centre, edge, corner in (
        ((0.3, 0.4), 0.84497, 0.03713, 0.00163),
        ((0.5, 0.6), 0.44521, 0.11101, 0.02768),
        ((1, 0.2), 0.2, 0.2, 0),
        ((1.5, 0.1), 1 / 9, 1 / 9, 1 / 9),
    ):
        kernel = disk(radius, alias)
        middle = kernel[len(kernel) // 2 - 1 : len(kernel) // 2 + 2, len(kernel) // 2 - 1 : len(kernel) // 2 + 2]
        np.testing.assert_allclose([middle[1, 1], middle[0, 1], middle[0, 0]], [centre, edge, corner], atol=1e-5)


@pytest.mark.parametrize(("d", "iterations"), [(1, 2), (2, 3), (4, 2)])
def test_glass_sources_are_the_official_loop(d, iterations):
    n, h, w = 2, 17, 14
    offsets = np.random.default_rng(d).integers(-d, d, (n, iterations, h - 2 * d, w - 2 * d, 2))
    expected = np.arange(n * h * w).reshape(n, h, w)
    for picture in range(n):
        for i in range(iterations):
            for y in range(h - d, d, -1):
                for x in range(w - d, d, -1):
                    dx, dy = offsets[picture, i, h - d - y, w - d - x]
                    expected[picture, y, x] = expected[picture, y + dy, x + dx]
    np.testing.assert_array_equal(glass_sources(offsets, h, w, d), expected.reshape(n, -1))


@pytest.mark.parametrize("channels", [1, 3])
def test_streak_is_the_sum_of_shifted_pictures(channels):
    pictures, angles, radius, sigma = random_pictures(5, 32, 36, channels), [-135.0, -45.0, 0.0, 20.5, 90.0], 6, 2.5
    weights = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(2 * radius + 1)]
    ours = streak(pictures, radius, sigma, np.array(angles))
    for picture, angle, result in zip(pictures, angles, ours, strict=True):
        total = np.zeros(picture.shape)
        for i, weight in enumerate(weights):
            dy = math.ceil(i * math.sin(math.radians(angle)) - 0.5)
            dx = math.ceil(i * math.cos(math.radians(angle)) - 0.5)
            rows, columns = np.clip(np.arange(32) + dy, 0, 31), np.clip(np.arange(36) + dx, 0, 35)
            total += weight / sum(weights) * picture[rows][:, columns]
        expected = np.floor(np.floor(total * 257 + 0.5) / 257)
        assert np.mean(result == expected) > 0.999
        assert np.abs(result - expected).max() <= 1


@pytest.mark.parametrize("size", [(32, 32), (33, 45), (64, 64)])
def test_zoom_blur_by_operator_equals_zoom_by_zoom(size):
    unit = np.random.default_rng(0).random((2, *size, 3)).astype(np.float32)
    for stop, count in ((1.06, 7), (1.11, 12), (1.26, 26)):
        factors = zoom_factors(stop, 0.01)
        assert len(factors) == count
        np.testing.assert_allclose(_zoom_at_once(unit, factors), _zoom_one_by_one(unit, factors), atol=2e-6)


def test_zoom_axis_keeps_the_centre_and_the_identity():
    low, _, weight = zoom_axis(32, 1.0)
    np.testing.assert_array_equal(low, np.arange(32))
    assert not weight.any()
    low, high, weight = zoom_axis(32, 1.25)
    assert (low[0], high[-1]) == (3, 28)  # 26 of 32 pixels, from (32 - 26) // 2
    np.testing.assert_allclose(np.diff(low + weight), 25 / 31)


def test_hsv_round_trip():
    pictures = random_pictures(3, 32, 32, 3)
    pictures[0, 0, :5] = [[0, 0, 0], [255, 255, 255], [9, 9, 9], [255, 0, 0], [0, 0, 255]]
    hue, saturation, value = rgb_to_hsv(pictures)
    np.testing.assert_allclose(hue[0, 0, :5], [0, 0, 0, 0, 2 / 3])
    np.testing.assert_allclose(saturation[0, 0, :5], [0, 0, 0, 1, 1])
    np.testing.assert_allclose(hsv_to_rgb(hue, saturation, value), pictures / 255, atol=1e-14)


def test_warps_without_motion_are_the_identity():
    unit = np.random.default_rng(0).random((3, 2, 32, 40)).astype(np.float32)
    np.testing.assert_array_equal(warp_affine(unit, inverse_affine(np.zeros((2, 3, 2)), 32, 40)), unit)
    still = np.zeros((2, 32, 40), np.float32)
    np.testing.assert_array_equal(displace(unit, still, still), unit)


def test_warps_by_whole_pixels_shift_and_mirror():
    unit = np.random.default_rng(0).random((3, 1, 32, 32)).astype(np.float32)
    moved = warp_affine(unit, inverse_affine(np.tile([2.0, 3.0], (1, 3, 1)), 32, 32))
    np.testing.assert_array_equal(moved[:, :, 3:, 2:], unit[:, :, :-3, :-2])
    np.testing.assert_array_equal(moved[:, :, 2, 2:], unit[:, :, 1, :-2])  # c b | a b c
    full = np.full((1, 32, 32), 2, np.float32)
    moved = displace(unit, full, -full)
    np.testing.assert_array_equal(moved[:, :, 2:, :-2], unit[:, :, :-2, 2:])
    np.testing.assert_array_equal(moved[:, :, 1, :-2], unit[:, :, 0, 2:])  # b a | a b c


def test_chamfer_is_the_cheapest_way():
    zeros = np.random.default_rng(2).random((2, 13, 17)) < 0.02
    zeros[1] = False
    zeros[1, 12, 3] = True
    moves = {(0, 1): 65536, (1, 0): 65536, (1, 1): 91750, (1, 2): 143976, (2, 1): 143976}
    moves = {(sy * y, sx * x): cost for (y, x), cost in moves.items() for sy in (-1, 1) for sx in (-1, 1)}
    best = np.where(zeros, 0, 1 << 29)
    for _ in range(30):
        padded = np.pad(best, ((0, 0), (2, 2), (2, 2)), constant_values=1 << 29)
        ways = [padded[:, 2 + y : 15 + y, 2 + x : 19 + x] + cost for (y, x), cost in moves.items()]
        best = np.minimum(best, np.min(ways, axis=0))
    np.testing.assert_allclose(chamfer(zeros), best / 65536, rtol=1e-6)
    assert chamfer(np.zeros((1, 8, 8), bool)).min() > 1000


def test_canny_finds_the_outline_of_a_square_and_follows_it():
    grey = np.zeros((2, 20, 20), np.uint8)
    grey[0, 5:15, 5:15] = 200
    # Strong at the top, weak but connected further down: hysteresis follows the edge to its end.
    grey[1, 2:18, 10:] = np.linspace(90, 20, 16, dtype=np.uint8)[:, None]
    edges = canny(grey, 50, 150)
    assert not edges[0, 7:13, 7:13].any()
    assert not edges[0, :3].any()
    assert edges[0, 4:6, 7:13].any(axis=0).all()
    assert edges[1, 3:14, 9:11].any(axis=1).all()
    assert not canny(np.minimum(grey[1:], 20), 50, 150).any()


def test_equalize_spreads_the_levels():
    levels = np.array([[[0, 0, 3, 3], [3, 3, 20, 20]], [[7, 7, 7, 7], [7, 7, 7, 7]]], np.int32)
    expected = [[[0, 0, 170, 170], [170, 170, 255, 255]], levels[1].tolist()]
    np.testing.assert_array_equal(equalize(levels, 20), expected)


def test_plasma_fills_the_range_and_wraps():
    heights = plasma(np.random.default_rng(0).random((3, 64 * 64 - 1)), 64, 2.0)
    np.testing.assert_array_equal(heights.min(axis=(1, 2)), 0)
    np.testing.assert_array_equal(heights.max(axis=(1, 2)), 1)
    inside = np.abs(np.diff(heights, axis=1)).mean()
    assert np.abs(heights[:, 0] - heights[:, -1]).mean() < 2 * inside
