"""A delta changed by damage or by an attacker who signs it again: it makes the published content or nothing."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedcnn.bundle.container import Payload, read_container, write_container
from seedcnn.bundle.delta import apply_delta, read_delta
from seedcnn.errors import BundleError, BundleFormatError, DigestError
from tests.bundle.deltas import setting, signed

ZEROS = "0" * 64


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (setting("format", "seedcnn-delta/2"), "format is 'seedcnn-delta/2'; this version of seedcnn reads"),
        (setting("rng", "mt19937"), "delta.rng is 'mt19937'"),
        (setting("parent", ZEROS), f"applies to the bundle with content {ZEROS}; this one has [0-9a-f]{{64}}"),
        (setting("parent", "x"), "delta.parent must be 64"),
        (setting("result", ZEROS), f"it promises {ZEROS}"),
        (setting("release", 5), "makes a bundle with content"),
        (setting("min_release", 5), r"min_release must be an integer in \[0, 4\]"),
        (setting("extra", 1), "unknown fields: extra"),
        (setting("tensors", []), "are not those in its manifest: body.weight, head.bias"),
        (setting("tensors", 0, "name", "body.other"), "are not those in its manifest: body.other, body.weight"),
        (setting("tensors", 0, "coding", "sparse-lz4"), "this version knows raw-f32"),
        (setting("tensors", 0, "coding", "sparse-xz"), "whose only filter is LZMA2"),
        (setting("tensors", 0, "coded_sha256", ZEROS), "the stored bytes do not match"),
        (setting("tensors", 0, "expanded_sha256", ZEROS), "the expanded values do not match"),
        (setting("tensors", 0, "count", 0), "count must be an integer"),
        (setting("tensors", 0, "count", 1 << 40), "count must be an integer"),
        (setting("tensors", 0, "size", 1 << 40), "size must be an integer"),
        (setting("tensors", 1, "shape", [2, 5]), r"'head.bias' is F32 \(10,\); it must be F32 \(2, 5\)"),
        (setting("tensors", 1, "expanded_sha256", ZEROS), "'head.bias': the expanded values do not match"),
        (setting("canned", "sha256", ZEROS), "canned vectors: the stored bytes do not match"),
        (setting("canned", "tolerance_e6", 7), "makes a bundle with content"),
        (setting("canned", "pictures", []), "makes a bundle with content"),
        (setting("canned", "pictures", 0, "sha256", ZEROS), "makes a bundle with content"),
        (setting("canned", "pictures", 0, "height", 5), "makes a bundle with content"),
        (setting("canned", "pictures", 0, "channels", 5), "channels must be an integer"),
    ],
)
def test_a_delta_that_was_tampered_with(parent, delta, change, words):
    with pytest.raises(BundleError, match=words):
        apply_delta(parent, read_delta(signed(delta, change)))


def test_a_delta_for_tensors_that_the_parent_does_not_have(parent, delta):
    payload = read_container(delta).payloads["head.bias"]

    def change(value):
        value["tensors"][1]["name"] = "tail.bias"

    container = read_container(signed(delta, change, {"tail.bias": payload}))
    payloads = {name: each for name, each in container.payloads.items() if name != "head.bias"}
    with pytest.raises(BundleFormatError, match=r"'tail\.bias', which its parent does not have"):
        apply_delta(parent, read_delta(write_container(container.manifest, payloads)))


def test_sparse_differences_of_a_tensor_that_is_not_on_a_grid(parent, delta):
    frame = read_container(delta).payloads["body.weight"]

    def change(value):
        sparse = value["tensors"][0] | {"name": "head.bias"}
        value["tensors"] = [sparse]

    container = read_container(signed(delta, change))
    payloads = {"head.bias": frame, "canned.logits": container.payloads["canned.logits"]}
    with pytest.raises(BundleFormatError, match="its parent is not on a grid: 'raw-f32'"):
        apply_delta(parent, read_delta(write_container(container.manifest, payloads)))


def test_a_delta_whose_manifest_does_not_match_its_digest(delta):
    at = delta.index(b'\\"release\\":4')
    with pytest.raises(DigestError, match="delta: the manifest does not match"):
        read_delta(delta[: at + 12] + b"5" + delta[at + 13 :])


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
    frame = bytearray(read_container(delta).payloads["body.weight"].data)
    at = data.draw(st.integers(0, len(frame) - 1))
    frame[at] ^= data.draw(st.integers(1, 255))
    digest = hashlib.sha256(frame).hexdigest()
    changed = signed(
        delta, setting("tensors", 0, "coded_sha256", digest), {"body.weight": Payload.of_bytes(bytes(frame))}
    )
    try:
        made = apply_delta(parent, read_delta(changed))
    except BundleError:
        return
    # A bit of a zstd frame's header is unused: decoders ignore it (RFC 8878, 3.1.1.1.1).
    assert made == apply_delta(parent, read_delta(delta))
