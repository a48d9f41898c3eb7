"""Resizing in integers, against its definition computed with fractions, and against Pillow."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from seedcnn.runtime.resampling import resample, taps

FILTERS = ("bilinear", "bicubic", "box", "nearest")
PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
sides = st.integers(1, 500)


def noise(*shape):
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, np.uint8)


def weight(filter, x):
    """A filter's value at x, exactly."""
    if filter == "box":
        return Fraction(-Fraction(1, 2) < x <= Fraction(1, 2))
    x = abs(x)
    if filter == "bilinear":
        return max(Fraction(0), 1 - x)
    if x < 1:
        return (Fraction(3, 2) * x - Fraction(5, 2)) * x * x + 1
    return Fraction(-1, 2) * (((x - 5) * x + 8) * x - 4) if x < 2 else Fraction(0)


def along(row, wanted, filter):
    """One row, resized with exact fractions: the true value of each result before it becomes a byte."""
    size = len(row)
    scale = max(Fraction(1), Fraction(size, wanted))
    found = []
    for i in range(wanted):
        centre = (i + Fraction(1, 2)) * Fraction(size, wanted)
        weights = [weight(filter, (j + Fraction(1, 2) - centre) / scale) for j in range(size)]
        found.append(float(sum(w * int(v) for w, v in zip(weights, row, strict=True)) / sum(weights)))
    return np.array(found)


@pytest.mark.parametrize("filter", FILTERS[:3])
@settings(max_examples=25)
@given(size=st.integers(1, 40), wanted=st.integers(1, 40))
def test_a_row_is_what_the_definition_says(filter, size, wanted):
    row = noise(size, 1, 1)
    exact = along(row[:, 0, 0], wanted, filter)
    found = resample(row, wanted, 1, filter=filter)[:, 0, 0]
    assert np.abs(found - np.clip(exact, 0, 255)).max() <= 0.5 + 1e-4
    same = resample(row.transpose(1, 0, 2), 1, wanted, filter=filter)[0, :, 0]
    np.testing.assert_array_equal(found, same)


@pytest.mark.parametrize("filter", FILTERS)
@settings(max_examples=40)
@given(h=sides, w=sides, height=sides, width=sides)
def test_the_width_comes_first(filter, h, w, height, width):
    picture = noise(h, w, 3)
    found = resample(picture, height, width, filter=filter)
    assert found.shape == (height, width, 3)
    assert found.dtype == np.uint8
    wide = resample(picture, h, width, filter=filter)
    np.testing.assert_array_equal(found, resample(wide, height, width, filter=filter))
    if filter in PILLOW:  # whose sums are ours where it goes along the width first
        image = Image.fromarray(picture).resize((width, h), PILLOW[filter]).resize((width, height), PILLOW[filter])
        np.testing.assert_array_equal(found, np.asarray(image))


@pytest.mark.parametrize("filter", FILTERS)
def test_a_window_is_a_part_of_the_whole(filter):
    picture = noise(61, 83, 2)
    for height, width in ((30, 40), (61, 40), (100, 83), (150, 170)):
        whole = resample(picture, height, width, filter=filter)
        part = resample(picture, height, width, filter=filter, window=((7, 29), (11, 38)))
        np.testing.assert_array_equal(part, whole[7:29, 11:38])


@pytest.mark.parametrize("filter", FILTERS)
def test_one_colour_stays_one_colour(filter):
    for value in (0, 1, 127, 254, 255):
        picture = np.full((97, 1201, 1), value, np.uint8)
        for height, width in ((7, 9), (300, 1300), (1, 1)):
            assert (resample(picture, height, width, filter=filter) == value).all()


@pytest.mark.parametrize("filter", FILTERS[:3])
def test_the_longest_sides_are_exact(filter):
    for size, wanted in ((65_535, 3), (3, 65_535), (65_535, 65_534)):
        starts, coefficients = taps(size, wanted, filter)
        sums = coefficients.sum(axis=1)
        assert abs(sums - 2**22).max() <= coefficients.shape[1]
        assert starts.min() >= 0
        assert np.abs(coefficients).sum(axis=1).max() * 255 < 2**31


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 0}, r"`height` \(=0\)"),
        ({"filter": "lanczos"}, r"`filter` \(='lanczos'\)"),
        ({"window": ((0, 3), (0, 9))}, r"`window`"),
        ({"picture": np.zeros((2, 2), np.uint8)}, r"uint8 \(2, 2\)"),
        ({"picture": np.zeros((2, 2, 3), np.float32)}, r"float32"),
        ({"picture": np.zeros((0, 2, 3), np.uint8)}, r"not empty"),
    ],
)
def test_what_cannot_be_resized(options, message):
    arguments = {"picture": noise(4, 4, 3), "height": 3, "width": 3} | options
    with pytest.raises(ValueError, match=message):
        resample(**arguments)


def test_the_format_page_has_these_rows():
    page = (Path(__file__).parents[2] / "docs" / "bundle-format.md").read_text()
    row = np.array([10, 200, 30, 90, 255, 0, 77], np.uint8)[None, :, None]
    assert "row 10, 200, 30, 90, 255, 0, 77:" in page
    for filter in FILTERS:
        cells = (" ".join(map(str, resample(row, 1, wanted, filter=filter).ravel())) for wanted in (3, 10))
        assert f"| {filter} | {' | '.join(cells)} |" in page
