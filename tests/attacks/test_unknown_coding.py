"""Codings and payload types this version does not know, and codings put on the wrong payload."""

from __future__ import annotations

import pytest

from tests.bundle.bundles import with_header, with_manifest


@pytest.mark.parametrize(
    "coding", ["grid-i32-zstd", "grid-i8-lz4", "grid-i8", "grid-", "raw-f64", "pickle", "RAW-F32", "seedcnn-rng/2"]
)
def test_coding(tiny, refused, coding):
    refused(with_manifest(tiny, lambda m: m["tensors"][1].update(coding=coding)), "this version knows raw-f32")


@pytest.mark.parametrize("dtype", ["I16", "I8", "f32", "", "F64", 4, None, ["F32"], {"F32": 1}])
def test_payload_type(tiny, refused, dtype):
    refused(with_header(tiny, lambda h: h["head.bias"].update(dtype=dtype)), "has dtype .*one of U8, F16, BF16, F32")


@pytest.mark.parametrize(
    ("name", "dtype", "shape"), [("norm.half", "BF16", [5]), ("norm.bf16", "F16", [5]), ("norm.half", "U8", [10])]
)
def test_half_precision_of_another_kind(tiny, refused, name, dtype, shape):
    data = with_header(tiny, lambda h: h[name].update(dtype=dtype, shape=shape))
    refused(data, rf"{name!r} is {dtype} .* must be B?F16 \(5,\)")


@pytest.mark.parametrize("coding", ["lz4", "", "ZSTD", 1, None])
def test_compression_of_the_graph(tiny, refused, coding):
    refused(
        with_manifest(tiny, lambda m: m["graph"].update(coding=coding)),
        "the graph has coding .*knows zstd, zlib, xz|graph.coding must be a string|holds None",
    )


@pytest.mark.parametrize("place", [("graph",), ("tensors", 1)])
@pytest.mark.parametrize("coding", ["zlib", "xz"])
def test_a_frame_of_another_compression(tiny, refused, place, coding):
    def change(manifest):
        entry = manifest["graph"] if place == ("graph",) else manifest["tensors"][1]
        entry["coding"] = entry["coding"].replace("zstd", coding)

    refused(with_manifest(tiny, change), f"not an? {coding}|xz stream whose only filter")


def test_an_integer_tensor_called_raw(tiny, refused):
    def change(manifest):
        entry = manifest["tensors"][1]
        entry["coding"] = "raw-f32"
        del entry["step_mantissa"], entry["step_exponent"]

    refused(with_manifest(tiny, change), r"'conv\.weight' is U8 .* must be F32 \(3, 5\)")


def test_a_raw_tensor_called_integer(tiny, refused):
    change = {"coding": "grid-i8-zstd", "step_mantissa": 1, "step_exponent": 0}
    refused(with_manifest(tiny, lambda m: m["tensors"][0].update(change)), r"'head\.bias' is F32 .* must be U8")


def test_a_narrow_tensor_called_wide(tiny, refused):
    refused(
        with_manifest(tiny, lambda m: m["tensors"][1].update(coding="grid-i16-zstd")), "states a size of 15, not 30"
    )


def test_bytes_dressed_as_a_matrix(tiny, refused):
    refused(with_header(tiny, lambda h: h["conv.weight"]["shape"].append(1)), r"'conv\.weight' is U8 .* must be U8")


def test_logits_of_another_shape(tiny, refused):
    refused(with_header(tiny, lambda h: h["canned.logits"].update(shape=[3, 2])), r"'canned\.logits' is F32 \(3, 2\)")
