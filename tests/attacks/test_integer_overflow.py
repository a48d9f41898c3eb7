"""Integers at and beyond 32, 53 and 64 bits, wherever a length, an offset, a step or a sum could wrap around."""

from __future__ import annotations

import numpy as np
import pytest

from seedcnn.bundle import encode_grid, grid_of_step, read_bundle
from seedcnn.bundle.codings import encode_integers
from seedcnn.bundle.container import read_container
from seedcnn.bundle.delta import DELTA_FORMAT, apply_delta, read_delta, write_delta
from seedcnn.bundle.integers import store_integers
from seedcnn.errors import BundleError
from tests.bundle.bundles import tiny_bundle, with_header, with_manifest
from tests.bundle.deltas import signed

OUTSIDE = r"manifest integer [0-9]+ is outside"  # what no field may hold
WIDE = [2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 2**64 + 1, 10**30]


@pytest.mark.parametrize("number", WIDE)
def test_an_offset(tiny, refused, number):
    def change(header):
        header["f32"]["data_offsets"] = [number, number + 20]

    refused(with_header(tiny, change), "offset|starts at")


@pytest.mark.parametrize("shape", [[2**32, 2**32], [2**63], [2**16] * 4, [2**53, 3], [3, 2**64]], ids=str)
def test_a_shape_whose_product_wraps_to_something_small(tiny, refused, shape):
    refused(with_manifest(tiny, lambda m: m["tensors"][0].update(shape=shape)), f"shape|{OUTSIDE}")
    refused(with_header(tiny, lambda header: header["f32"].update(shape=shape)), "size|spans")


@pytest.mark.parametrize("number", WIDE)
@pytest.mark.parametrize("field", ["release", "min_release"])
def test_a_release(tiny, refused, field, number):
    if (number < 2**53 and field == "release") or number < 3:
        pytest.skip("this one is allowed")
    refused(with_manifest(tiny, lambda m: m.update({field: number})), f"{field}|{OUTSIDE}")


@pytest.mark.parametrize("number", [2**24, *WIDE])
@pytest.mark.parametrize("field", ["step_mantissa", "step_exponent"])
def test_a_step(tiny, refused, field, number):
    refused(with_manifest(tiny, lambda m: m["tensors"][1].update({field: number})), f"{field}|{OUTSIDE}")


@pytest.mark.parametrize("number", WIDE)
@pytest.mark.parametrize("field", ["tensor_id", "stream", "lo_q", "span_q", "frac_bits", "count", "repeat"])
def test_a_number_of_the_generator(tiny, refused, field, number):
    if number == 2**31 and field in ("tensor_id", "stream"):
        pytest.skip("32 bits are allowed")
    refused(with_manifest(tiny, lambda m: m["tensors"][3].update({field: number})), "tensor|manifest")


def test_an_integer_times_its_step_beyond_float32(tiny, refused):
    """The largest step times the largest integer is finite; nothing larger can be written."""
    coded = encode_grid("big", np.array([32767 * 0.05], np.float32), grid_of_step(0.05))
    assert np.isfinite(coded.expanded).all()
    refused(with_manifest(tiny, lambda m: m["tensors"][2].update(step_mantissa=2**24 - 1, step_exponent=-1)), "step")


@pytest.mark.parametrize("start", [32767, -32767])
def test_a_sum_of_a_delta_beyond_16_bits(start):
    before = np.random.default_rng(0).integers(-99, 99, (4, 9)).astype(np.int16)
    before[1, 2] = start
    after = before.copy()
    after[1, 2] -= np.sign(start)
    coded = [[encode_integers("w", q, grid_of_step(0.5))] for q in (before, after)]
    old, new = (read_bundle(tiny_bundle(tensors=coded[i], release=3 + i)) for i in (0, 1))
    delta = write_delta(old, new)
    assert [change.coding for change in read_delta(delta).tensors] == ["difference-i8"]
    logits = bytes(read_container(delta, DELTA_FORMAT).rest)[-12:]
    away = store_integers([(before - after, 1)], "entropy")
    with pytest.raises(BundleError, match="'w' of the delta leads to the integer 32768"):
        apply_delta(old, read_delta(signed(delta, lambda value: None, away + logits)))


def test_the_length_of_the_header(tiny):
    for number in (2**31, 2**32 - 8, 2**63, 2**64 - 8):
        with pytest.raises(BundleError, match="header length is"):
            read_bundle(number.to_bytes(8, "little") + tiny[8:])
