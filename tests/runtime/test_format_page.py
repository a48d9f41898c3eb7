"""docs/bundle-format.md, "From a picture to the input", written down again with Python's integers, pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedcnn.bundle import Preprocessing
from seedcnn.bundle.preprocessing import FILTERS, MODES
from seedcnn.errors import ImageError
from seedcnn.runtime.pictures import prepare

COLOURS = {1: {"channels": 1, "mean": 0.5, "std": 0.25}, 3: {"mean": (0.4, 0.5, 0.6), "std": 0.25}}


def grey(red, green, blue):
    return (19595 * red + 38470 * green + 7471 * blue + 32768) // 65536


def channels(pixel, rule):
    """Step 4."""
    *colours, alpha = pixel if len(pixel) in (2, 4) else (*pixel, None)
    if rule.channels == 1 and len(colours) == 3:
        colours = [grey(*colours)]
    elif rule.channels == 3 and len(colours) == 1:
        colours *= 3
    if alpha is None:
        return colours
    under = rule.background if rule.channels == 3 else (grey(*rule.background),)
    return [(value * alpha + b * (255 - alpha) + 127) // 255 for value, b in zip(colours, under, strict=True)]


def value(filter, n, d):
    m, t = abs(n), 2 * d
    if filter == "box":
        return int(-d < n <= d)
    if filter == "bilinear":
        return max(0, t - m)
    k = 0
    while 2 * t**3 >= 2 ** (39 + k):
        k += 1
    near, far = 3 * m**3 - 5 * m**2 * t + 2 * t**3, -(m**3) + 5 * m**2 * t - 8 * m * t**2 + 4 * t**3
    return (near if m < t else far if m < 2 * t else 0) // 2**k


def along(x, r, filter):
    """Step 5, for one row or column."""
    s, found = len(x), []
    if s == r:
        return x
    for i in range(r):
        if filter == "nearest":
            found.append(x[(2 * i + 1) * s // (2 * r)])
            continue
        d, reach = max(s, r), {"box": 1, "bilinear": 2, "bicubic": 4}[filter]
        first = max(0, ((2 * i + 1) * s - r - reach * d) // (2 * r) + 1)
        end = min(s, ((2 * i + 1) * s - r + reach * d) // (2 * r) + 1)
        v = {j: value(filter, (2 * j + 1) * r - (2 * i + 1) * s, d) for j in range(first, end)}
        total = sum(v.values())
        c = {j: (each * 2**23 + total) // (2 * total) for j, each in v.items()}
        found.append(min(255, max(0, (sum(c[j] * x[j] for j in c) + 2**21) // 2**22)))
    return found


def middle(rest):
    return rest // 2 + (rest % 2 and rest // 2 % 2)


def from_the_page(picture, rule):
    """Steps 3 to 6: nested lists, or None if the size is refused."""
    h, w, height, width = *picture.shape[:2], rule.height, rule.width
    tall, wide = height, width
    if rule.resize == "none" and (h, w) != (height, width):
        return None
    if rule.resize == "pad":
        if h * width <= w * height:
            tall = max(1, (2 * h * width + w) // (2 * w))
        else:
            wide = max(1, (2 * w * height + h) // (2 * h))
    if rule.resize == "crop":
        s = min(h, w)
        tall, wide = rule.short_side * h // s, rule.short_side * w // s
        if max(tall, wide) > 65535:
            return None
    planes = []
    pixels = [[channels(pixel, rule) for pixel in row] for row in picture.tolist()]
    for channel in range(rule.channels):
        rows = [along([pixel[channel] for pixel in row], wide, rule.filter) for row in pixels]
        columns = [along(list(column), tall, rule.filter) for column in zip(*rows, strict=True)]
        plane = np.array(columns).T
        if rule.resize == "crop":
            top, left = middle(tall - height), middle(wide - width)
            plane = plane[top : top + height, left : left + width]
        if rule.resize == "pad":
            filled = np.full((height, width), rule.fill[channel])
            top, left = (height - tall) // 2, (width - wide) // 2
            filled[top : top + tall, left : left + wide] = plane
            plane = filled
        planes.append(plane)
    return np.stack(planes, axis=2)


@st.composite
def rules(draw):
    size, filter = draw(st.tuples(st.integers(1, 24), st.integers(1, 24))), draw(st.sampled_from(FILTERS))
    colours = COLOURS[draw(st.sampled_from([1, 3]))]
    options = {"background": draw(st.tuples(*[st.integers(0, 255)] * 3)), **colours}
    match draw(st.sampled_from(MODES)):
        case "crop":
            short_side = draw(st.integers(max(size), max(size) + 20))
            return Preprocessing.crop(size, short_side=short_side, filter=filter, **options)
        case "squash":
            return Preprocessing.squash(size, filter=filter, **options)
        case "pad":
            fill = draw(st.lists(st.integers(0, 255), min_size=options.get("channels", 3), max_size=3))
            return Preprocessing.pad(size, fill=fill[: options.get("channels", 3)], filter=filter, **options)
    return Preprocessing.exact(size, **options)


def check(picture, rule):
    wanted = from_the_page(picture, rule)
    if wanted is None:
        with pytest.raises(ImageError, match="pixels"):
            prepare(picture, rule)
    else:
        np.testing.assert_array_equal(prepare(picture, rule), wanted)


@settings(max_examples=60, deadline=None)
@given(
    rule=rules(), size=st.tuples(st.integers(1, 24), st.integers(1, 24)), channels=st.integers(1, 4), fits=st.booleans()
)
def test_the_page_says_what_is_done(rule, size, channels, fits):
    height, width = (rule.height, rule.width) if fits and rule.resize == "none" else size
    check(np.random.default_rng(height * width).integers(0, 256, (height, width, channels), np.uint8), rule)


@pytest.mark.parametrize("filter", FILTERS)
def test_long_sides_lose_low_bits_alike(filter):
    """Of 65,535 pixels in each direction, where the weights of bicubic are shortened."""
    rng = np.random.default_rng(0)
    needle = rng.integers(0, 256, (1, 65_535, 1), np.uint8)
    check(needle, Preprocessing.squash((1, 7), filter=filter, **COLOURS[1]))
    check(needle[:, ::13], Preprocessing.squash((1, 4096), filter=filter, **COLOURS[1]))
    check(rng.integers(0, 256, (1, 16, 2), np.uint8), Preprocessing.crop(3, short_side=4096, filter=filter))
