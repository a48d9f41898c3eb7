"""Integers at and beyond 32, 53 and 64 bits, wherever a length, an offset, a step or a sum could wrap around."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from seedcnn.bundle import encode_grid, grid_of_step, read_bundle
from seedcnn.bundle.compression import compress
from seedcnn.bundle.container import Payload
from seedcnn.bundle.delta import apply_delta, read_delta
from seedcnn.bundle.sparse import add_sparse
from seedcnn.errors import BundleError
from tests.bundle.bundles import with_header, with_manifest
from tests.bundle.deltas import signed

OUTSIDE = r"manifest integer [0-9]+ is outside"  # what no field may hold
WIDE = [2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 2**64 + 1, 10**30]


@pytest.mark.parametrize("number", WIDE)
def test_an_offset(tiny, refused, number):
    def change(header):
        header["head.bias"]["data_offsets"] = [number, number + 20]

    refused(with_header(tiny, change), "offset|starts at")


@pytest.mark.parametrize("shape", [[2**32, 2**32], [2**63], [2**16] * 4, [2**53, 3], [3, 2**64]], ids=str)
def test_a_shape_whose_product_wraps_to_something_small(tiny, refused, shape):
    refused(with_manifest(tiny, lambda m: m["tensors"][0].update(shape=shape)), f"shape|{OUTSIDE}")
    refused(with_header(tiny, lambda header: header["head.bias"].update(shape=shape)), "size|spans")


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
    data = bytes([0, 1 if start > 0 else 2])  # one change, gap 0, by +1 (spelled 1) or -1 (spelled 2), away from zero
    with pytest.raises(BundleError, match="beyond 32767"):
        add_sparse(np.array([start], np.int16), data, 1, "t")


def test_gaps_whose_sum_goes_around(parent, delta):
    """Each gap is allowed by itself; together they pass the end of any tensor."""
    data = bytes([255, 255, 255, 127] * 3 + [2] * 3)
    frame = compress(data, "zstd")

    def change(value):
        value["tensors"][0].update(count=3, size=len(data), coded_sha256=hashlib.sha256(frame).hexdigest())

    with pytest.raises(BundleError, match="changes value"):
        apply_delta(parent, read_delta(signed(delta, change, {"body.weight": Payload.of_bytes(frame)})))


def test_the_length_of_the_header(tiny):
    for number in (2**31, 2**32 - 8, 2**63, 2**64 - 8):
        with pytest.raises(BundleError, match="header length is"):
            read_bundle(number.to_bytes(8, "little") + tiny[8:])
