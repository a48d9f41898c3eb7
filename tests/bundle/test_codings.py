"""Tensor codings: what comes back is bit-equal to what the writer saw, on the grid, and checked."""

from __future__ import annotations

import hashlib
import io
import sys
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedcnn.bundle import Grid, Seeded, encode_grid, encode_raw, encode_seeded, grid_of_step
from seedcnn.bundle.codings import compress, decode, decompress
from seedcnn.bundle.container import Payload
from seedcnn.errors import BundleError, BundleFormatError, DigestError
from seedcnn.rng import FixedPoint, uniform

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SHAPES = st.lists(st.integers(1, 4), max_size=4).map(tuple)


def _values(shape: tuple[int, ...], seed: int, scale: float) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed).standard_normal(shape) * scale, np.float32)


@settings(deadline=None)
@given(SHAPES, st.integers(0, 99), st.floats(1e-20, 1e20))
def test_raw_comes_back_bit_equal(shape, seed, scale):
    values = _values(shape, seed, scale)
    coded = encode_raw("t", values)
    result = decode(coded.entry, coded.payload)
    assert result.shape == shape
    assert result.tobytes() == values.tobytes() == coded.expanded.tobytes()
    assert coded.entry.expanded_sha256 == hashlib.sha256(values.tobytes()).hexdigest()


@settings(deadline=None)
@given(SHAPES, st.integers(0, 99), st.floats(1e-3, 10), st.sampled_from([1e-9, 3e-5, 0.01, 0.125, 7.0, 1000.0]))
def test_grid_comes_back_bit_equal_and_within_half_a_step(shape, seed, steps_wide, step):
    grid = grid_of_step(step)
    values = _values(shape, seed, steps_wide * step)
    coded = encode_grid("t", values, grid)
    result = decode(coded.entry, coded.payload)
    assert result.dtype == np.float32
    assert result.shape == shape
    assert result.tobytes() == coded.expanded.tobytes()
    integers = np.rint(values.astype(np.float64) / grid.step)
    # 16 bits times 24 bits is exact in float64, so this is the true product, rounded once.
    assert result.tobytes() == ((integers + 0.0) * (grid.mantissa * 2.0**-grid.exponent)).astype("<f4").tobytes()
    np.testing.assert_allclose(result, values, rtol=1e-6, atol=grid.step * 0.5000001)


@given(st.floats(2.0**-100, 2.0**24, exclude_max=True))
def test_grid_step_is_the_nearest_float32(step):
    grid = grid_of_step(step)
    nearest = min(np.float32(step), np.float32(2**24 - 1))
    assert Fraction(grid.mantissa, 2**grid.exponent) == Fraction(float(nearest))
    assert np.float32(grid.step) == nearest
    assert 1 <= grid.mantissa < 2**24


@pytest.mark.parametrize("step", [0, -1, 2.0**-101, 2.0**24, float("nan"), float("inf"), 1e300])
def test_grid_step_out_of_range_is_named(step):
    with pytest.raises(ValueError, match="`step`"):
        grid_of_step(step)


@pytest.mark.parametrize(
    ("grid", "name"), [((0, 0), "mantissa"), ((2**24, 0), "mantissa"), ((1, -1), "exponent"), ((1, 127), "exponent")]
)
def test_a_grid_that_is_not_exact_is_refused(grid, name):
    with pytest.raises(ValueError, match=name):
        Grid(*grid)


@pytest.mark.parametrize(
    ("largest", "coding"),
    [
        (127, "grid-i8-zstd"),
        (-127, "grid-i8-zstd"),
        (128, "grid-i16-zstd"),
        (-128, "grid-i16-zstd"),
        (32767, "grid-i16-zstd"),
        (-32767, "grid-i16-zstd"),
    ],
)
def test_the_narrowest_integer_that_fits_is_taken(largest, coding):
    coded = encode_grid("t", [0.0, largest * 0.25], grid_of_step(0.25))
    assert coded.entry.coding == coding
    assert decode(coded.entry, coded.payload).tolist() == [0.0, largest * 0.25]


def test_a_grid_that_is_too_fine_is_refused():
    with pytest.raises(BundleError, match=r"'t' reaches 32768 grid steps of 0\.25; at most 32767 fit"):
        encode_grid("t", [32768 * 0.25], grid_of_step(0.25))


def test_int16_travels_as_two_byte_planes_low_bytes_first():
    coded = encode_grid("t", [0x0102, -2, 0], grid_of_step(1))
    assert zstd.decompress(coded.payload.data) == bytes([0x02, 0xFE, 0x00, 0x01, 0xFF, 0x00])


def test_no_negative_zero_leaves_the_grid():
    coded = encode_grid("t", [-0.1, -0.0], grid_of_step(1))
    assert decode(coded.entry, coded.payload).tobytes() == bytes(8)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), 1e39])
def test_values_that_are_not_finite_in_float32_are_refused(bad):
    for encode in (lambda v: encode_raw("w", v), lambda v: encode_grid("w", v, grid_of_step(1))):
        with pytest.raises(BundleError, match="'w' holds 1 values that are not finite"):
            encode([0.0, bad])


def test_a_raw_payload_that_is_not_finite_is_refused_even_with_the_right_digest():
    coded = encode_raw("w", [1.0])
    data = np.array([np.nan], "<f4").tobytes()
    digest = hashlib.sha256(data).hexdigest()
    entry = replace(coded.entry, coded_sha256=digest, expanded_sha256=digest)
    with pytest.raises(BundleFormatError, match="not finite"):
        decode(entry, Payload("F32", (1,), data))


@settings(deadline=None)
@given(SHAPES, st.integers(1, 7), st.integers(0, 2**64 - 1))
def test_seeded_draws_are_repeated_and_cut_to_size(shape, repeat, seed):
    elements = int(np.prod(shape, dtype=int))
    repeat = min(repeat, elements)
    seeded = Seeded(seed, 4, 5, FixedPoint.from_range(-0.5, 3), -(-elements // repeat), repeat)
    coded = encode_seeded("t", shape, seeded)
    draws = uniform(seed, seeded.fixed, tensor_id=4, stream=5, count=seeded.count)
    assert coded.payload is None
    assert decode(coded.entry, None).reshape(-1).tolist() == [float(draws[i // repeat]) for i in range(elements)]


def test_both_digests_are_checked():
    coded = encode_grid("t", [1.0, 2.0], grid_of_step(1))
    other = encode_grid("t", [1.0, 3.0], grid_of_step(1))
    with pytest.raises(DigestError, match="'t': the stored bytes"):
        decode(coded.entry, other.payload)
    with pytest.raises(DigestError, match="'t': the expanded values"):
        decode(replace(other.entry, expanded_sha256=coded.entry.expanded_sha256), other.payload)
    with pytest.raises(BundleFormatError, match="'t' has no payload"):
        decode(coded.entry, None)


def _frame_without_size(data: bytes) -> bytes:
    stream = io.BytesIO()
    with zstd.ZstdFile(stream, "w") as file:
        file.write(data)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (compress(b"x" * 10) + b"y", "exactly 10 bytes"),
        (compress(b"x" * 10) + compress(b""), "exactly 10 bytes"),
        (compress(b"x" * 10)[:-1], "exactly 10 bytes|not a zstd frame"),
        (compress(b"x" * 11), "states a size of 11, not 10"),
        (compress(b"x" * 9), "states a size of 9, not 10"),
        (_frame_without_size(b"x" * 10), "states a size of None"),
        (b"", "not a zstd frame"),
        (b"x" * 10, "not a zstd frame"),
    ],
)
def test_only_one_frame_of_the_right_size_is_decompressed(frame, message):
    with pytest.raises(BundleFormatError, match=message):
        decompress(frame, 10, "thing")


def test_a_large_tensor_fits_the_window_the_reader_allows():
    data = np.random.default_rng(0).integers(0, 4, 9 << 20, np.uint8).tobytes()
    frame = zstd.compress(data, options={zstd.CompressionParameter.window_log: 23})
    assert decompress(frame, len(data), "thing") == data
    wide = zstd.compress(data * 2, options={zstd.CompressionParameter.window_log: 24})
    with pytest.raises(BundleFormatError, match="too much memory"):
        decompress(wide, 2 * len(data), "thing")
