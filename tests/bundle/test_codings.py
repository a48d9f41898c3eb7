"""Tensor codings: expanded values are on the grid, bit-equal to what the writer saw, and checked."""

from __future__ import annotations

import hashlib
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seedcnn.bundle import Grid, Seeded, encode_grid, encode_raw, encode_seeded, grid_of_step
from seedcnn.bundle.codings import Stored, store
from seedcnn.bundle.compression import STORAGES, decompress
from seedcnn.errors import BundleError, BundleFormatError, DigestError
from seedcnn.rng import FixedPoint, uniform

SHAPES = st.lists(st.integers(1, 4), max_size=4).map(tuple)


def decode(coded, storage="entropy"):
    """What a reader makes of one coded tensor."""
    stored, digest = store([coded], storage)
    return stored.tensors([coded.entry], digest)[coded.entry.name]


def _values(shape: tuple[int, ...], seed: int, scale: float) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed).standard_normal(shape) * scale, np.float32)


@settings(deadline=None)
@given(SHAPES, st.integers(0, 99), st.floats(1e-20, 1e20))
def test_raw_comes_back_bit_equal(shape, seed, scale):
    values = _values(shape, seed, scale)
    coded = encode_raw("t", values)
    result = decode(coded)
    assert result.shape == shape
    assert result.tobytes() == values.tobytes() == coded.expanded.tobytes()
    assert store([coded], "entropy")[1] == hashlib.sha256(values.tobytes()).hexdigest()


@settings(deadline=None)
@given(SHAPES, st.integers(0, 99), st.floats(1e-7, 1e4), st.sampled_from(["raw-f16", "raw-bf16"]))
def test_half_precision_is_the_nearest_number(shape, seed, scale, coding):
    values = _values(shape, seed, scale)
    coded = encode_raw("t", values, coding)
    result = decode(coded)
    dtype = torch.float16 if coding == "raw-f16" else torch.bfloat16
    assert result.tobytes() == torch.from_numpy(values).to(dtype).float().numpy().tobytes() == coded.expanded.tobytes()
    assert len(coded.data) == 2 * values.size


def test_what_is_too_large_for_half_precision_is_refused():
    with pytest.raises(BundleError, match="'t' reaches 70000, too large for raw-f16"):
        encode_raw("t", [1.0, -70000.0], "raw-f16")
    with pytest.raises(BundleError, match=r"'t' reaches 3.4\d*e\+38, too large for raw-bf16"):
        encode_raw("t", [np.finfo(np.float32).max], "raw-bf16")


@settings(deadline=None)
@given(SHAPES, st.integers(0, 99), st.floats(1e-3, 10), st.sampled_from([1e-9, 3e-5, 0.01, 0.125, 7.0, 1000.0]))
def test_grid_comes_back_bit_equal_and_within_half_a_step(shape, seed, steps_wide, step):
    grid = grid_of_step(step)
    values = _values(shape, seed, steps_wide * step)
    coded = encode_grid("t", values, grid)
    result = decode(coded)
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
    ("largest", "width"),
    [(127, "i8"), (-127, "i8"), (128, "i16"), (-128, "i16"), (32767, "i16"), (-32767, "i16")],
)
@pytest.mark.parametrize("storage", STORAGES)
def test_the_narrowest_integer_that_fits_is_taken(largest, width, storage):
    coded = encode_grid("t", [0.0, largest * 0.25], grid_of_step(0.25))
    assert coded.entry.coding == f"grid-{width}"
    assert decode(coded, storage).tolist() == [0.0, largest * 0.25]


def test_a_grid_that_is_too_fine_is_refused():
    with pytest.raises(BundleError, match=r"'t' reaches 32768 grid steps of 0\.25; at most 32767 fit"):
        encode_grid("t", [32768 * 0.25], grid_of_step(0.25))


def test_int16_travels_as_two_byte_planes_low_bytes_first():
    coded = encode_grid("t", [0x0102, -2, 0], grid_of_step(1))
    assert decompress(store([coded], "zstd")[0].integers, 6, "t") == bytes([0x02, 0xFE, 0x00, 0x01, 0xFF, 0x00])


def test_no_negative_zero_leaves_the_grid():
    coded = encode_grid("t", [-0.1, -0.0], grid_of_step(1))
    assert decode(coded).tobytes() == bytes(8)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf"), 1e39])
def test_values_that_are_not_finite_in_float32_are_refused(bad):
    for encode in (lambda v: encode_raw("w", v), lambda v: encode_grid("w", v, grid_of_step(1))):
        with pytest.raises(BundleError, match="'w' holds 1 values that are not finite"):
            encode([0.0, bad])


def test_a_raw_payload_that_is_not_finite_is_refused_even_with_the_right_digest():
    coded = encode_raw("w", [1.0])
    data = np.array([np.nan], "<f4").tobytes()
    with pytest.raises(BundleFormatError, match="not finite"):
        Stored(b"", "entropy", {"f32": data}).tensors([coded.entry], hashlib.sha256(data).hexdigest())


@settings(deadline=None)
@given(SHAPES, st.integers(1, 7), st.integers(0, 2**64 - 1))
def test_seeded_draws_are_repeated_and_cut_to_size(shape, repeat, seed):
    elements = int(np.prod(shape, dtype=int))
    repeat = min(repeat, elements)
    seeded = Seeded(seed, 4, 5, FixedPoint.from_range(-0.5, 3), -(-elements // repeat), repeat)
    coded = encode_seeded("t", shape, seeded)
    draws = uniform(seed, seeded.fixed, tensor_id=4, stream=5, count=seeded.count)
    assert coded.integers is None
    assert coded.data is None
    assert decode(coded).reshape(-1).tolist() == [float(draws[i // repeat]) for i in range(elements)]


def test_the_digest_is_checked():
    coded, other = (encode_grid("t", [1.0, last], grid_of_step(1)) for last in (2.0, 3.0))
    with pytest.raises(DigestError, match="the expanded values of the tensors do not match"):
        store([other], "entropy")[0].tensors([other.entry], store([coded], "entropy")[1])


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("storage", ["zstd", "zlib", "xz"])
def test_the_integer_without_an_opposite_is_refused(storage, width):
    from seedcnn.bundle.compression import compress
    from seedcnn.bundle.integers import load_integers

    planes = compress(bytes([0x80]) if width == 1 else bytes([0x00, 0x80]), storage)
    with pytest.raises(
        BundleFormatError, match=r"the stream of integers holds -(128|32768); -(127|32767) is the least"
    ):
        list(load_integers(planes, [((1,), width)], storage))
