"""Codings and payload types this version does not know, and codings put on the wrong payload."""

from __future__ import annotations

import pytest

from tests.bundle.bundles import tiny_bundle, with_header, with_manifest


@pytest.mark.parametrize(
    "coding", ["grid-i32", "grid-i8-zstd", "grid-", "difference-i8", "raw-f64", "pickle", "RAW-F32", "seedcnn-rng/2"]
)
def test_coding(tiny, refused, coding):
    refused(with_manifest(tiny, lambda m: m["tensors"][1].update(coding=coding)), "this version knows raw-f32")


@pytest.mark.parametrize("name", ["f32", "f16", "bytes"])
@pytest.mark.parametrize("dtype", ["I16", "I8", "f32", "", "F64", 4, None, ["F32"], {"F32": 1}])
def test_payload_type(tiny, refused, name, dtype):
    refused(with_header(tiny, lambda h: h[name].update(dtype=dtype)), f"'{name}' has dtype .*; it must be")


@pytest.mark.parametrize("shape", [[5, 1], [], [1, 5], "5"])
def test_payload_shape(tiny, refused, shape):
    refused(with_header(tiny, lambda h: h["f32"].update(shape=shape)), "'f32' has shape .*a list of one size")


@pytest.mark.parametrize("word", ["lz4", "", "ZSTD", 1, None])
def test_storage_of_the_integers(tiny, refused, word):
    refused(
        with_manifest(tiny, lambda m: m.update(integers=word)),
        "manifest.integers must be one of entropy, zstd, zlib, xz|holds None",
    )


@pytest.mark.parametrize("storage", ["entropy", "zlib", "xz"])
def test_integers_that_are_stored_in_another_way(refused, storage):
    data = tiny_bundle(compression="zstd")
    refused(
        with_manifest(data, lambda m: m.update(integers=storage)), "not an? .* stream|no stream of|whose only filter"
    )


def test_an_integer_tensor_called_raw(tiny, refused):
    def change(manifest):
        entry = manifest["tensors"][1]
        entry["coding"] = "raw-f32"
        del entry["step_mantissa"], entry["step_exponent"]

    refused(with_manifest(tiny, change), "payload 'f32' has 20 bytes; the tensors take 80")


def test_a_raw_tensor_called_integer(tiny, refused):
    change = {"coding": "grid-i8", "step_mantissa": 1, "step_exponent": 0}
    refused(with_manifest(tiny, lambda m: m["tensors"][0].update(change)), "payload 'f32' has 20 bytes; .* take 0")


def test_a_narrow_tensor_called_wide(refused):
    data = tiny_bundle(compression="zstd")
    refused(with_manifest(data, lambda m: m["tensors"][1].update(coding="grid-i16")), "states a size of 81, not 96")


@pytest.mark.parametrize("compression", ["entropy", "zstd"])
def test_a_wide_tensor_called_narrow(refused, compression):
    data = tiny_bundle(compression=compression)
    words = "holds the integer [0-9]+; at most 127 is allowed here|states a size of 81, not 66"
    refused(with_manifest(data, lambda m: m["tensors"][2].update(coding="grid-i8")), words)
