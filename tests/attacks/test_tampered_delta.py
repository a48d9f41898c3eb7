"""A delta changed by damage or by an attacker who signs it again: it makes the published content or nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedcnn.bundle.container import read_container
from seedcnn.bundle.delta import DELTA_FORMAT, apply_delta, read_delta
from seedcnn.errors import BundleError, BundleFormatError, DigestError
from tests.bundle.deltas import setting, signed

ZEROS = "0" * 64


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (setting("format", "seedcnn-delta/2"), "delta.format must be one of seedcnn-delta/1"),
        (setting("rng", "mt19937"), "delta.rng must be one of seedcnn-rng/1"),
        (setting("parent", ZEROS), f"applies to the bundle with content {ZEROS}; this one has [0-9a-f]{{64}}"),
        (setting("parent", "x"), "delta.parent must be 64"),
        (setting("result", ZEROS), f"it promises {ZEROS}"),
        (setting("release", 5), "makes a bundle with content"),
        (setting("min_release", 5), r"min_release must be an integer in \[0, 4\]"),
        (setting("extra", 1), "unknown fields: extra"),
        (setting("integers", "lz4"), "delta.integers must be one of entropy"),
        (setting("integers", "xz"), "whose only filter is LZMA2"),
        (setting("tensors", []), "payload 'f32' has 40 bytes"),
        (setting("tensors", 0, "index", 0), "each once"),
        (setting("tensors", 0, "coding", "difference-i8"), r"tensors\[\]\.coding must be one of raw-f32"),
        (setting("tensors", 0, "coding", "raw-f16"), "payload 'f32' has 40 bytes"),
        (setting("tensors", 0, "coding", "grid-i8"), "lacks the field 'step_mantissa'"),
        (setting("tensors", 0, "count", 0), "unknown fields: count"),
        (setting("tensors", 0, "shape", [2, 5]), "unknown fields: .*shape"),
        (setting("tolerance_e6", 7), "makes a bundle with content"),
        (setting("exponent", 3), "makes a bundle with content"),
        (setting("exponent", 61), r"exponent must be an integer in .-60, 60"),
        (setting("tolerance_e6", -1), "tolerance_e6 must be an integer"),
        (setting("difference-i8", [0, 0]), "each once"),
        (setting("difference-i8", [1, 0]), "each once"),
        (setting("difference-i8", [2]), "each once"),
        (setting("difference-i8", [3]), "not on a grid"),
        (setting("difference-i8", [99]), "changes tensor 99; its parent has 4 tensors"),
        (setting("difference-i8", ["0"]), "must hold integers in"),
        (setting("difference-i16", [0]), "each once"),
    ],
)
def test_a_delta_that_was_tampered_with(parent, delta, change, words):
    with pytest.raises(BundleError, match=words):
        apply_delta(parent, read_delta(signed(delta, change)))


def test_differences_of_a_tensor_that_is_not_on_a_grid(parent, delta):
    def change(value):
        value["tensors"], value["difference-i8"] = [], [2]

    with pytest.raises(BundleFormatError, match=r"'head\.bias' .* its parent is not on a grid: 'raw-f32'"):
        apply_delta(parent, read_delta(signed(delta, change)))


def test_a_delta_of_a_later_format(delta):
    with pytest.raises(BundleFormatError, match="delta format is 'seedcnn-delta/2'; this version of seedcnn reads"):
        read_delta(delta.replace(b"seedcnn-delta/1", b"seedcnn-delta/2"))


def test_a_delta_whose_bytes_do_not_match_their_digest(delta):
    with pytest.raises(DigestError, match="the stored bytes do not match"):
        read_delta(delta[:-1] + bytes([delta[-1] ^ 1]))


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damage_never_makes_another_bundle(parent, delta, data):
    damaged = bytearray(delta)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        made = apply_delta(parent, read_delta(bytes(damaged)))
    except BundleError:
        return
    assert made == apply_delta(parent, read_delta(delta))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_damaged_differences_that_are_signed_again(parent, delta, data):
    rest = bytearray(read_container(delta, DELTA_FORMAT).rest)
    at = data.draw(st.integers(0, len(rest) - 13))
    rest[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BundleError):
        apply_delta(parent, read_delta(signed(delta, lambda value: None, bytes(rest))))
