"""The outer file is a safetensors file, written one way only."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from seedcnn.bundle.container import DIGEST_KEY, MANIFEST_KEY, Payload, read_container, write_container
from seedcnn.errors import BundleFormatError

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=6).filter(lambda name: name != "__metadata__")
BYTES = st.binary(max_size=20).map(Payload.of_bytes)
FLOATS = st.lists(st.integers(1, 3), max_size=3).map(
    lambda shape: Payload("F32", tuple(shape), np.arange(np.prod(shape, dtype=int), dtype="<f4").tobytes())
)


@settings(deadline=None)
@given(st.binary(max_size=40).map(lambda raw: raw.hex().encode()), st.dictionaries(NAMES, BYTES | FLOATS, max_size=5))
def test_what_is_written_is_read_and_the_safetensors_library_agrees(manifest, payloads):
    data = write_container(manifest, payloads)
    assert data == write_container(manifest, dict(reversed(payloads.items())))
    container = read_container(data)
    assert container.manifest == manifest
    assert container.manifest_sha256 == hashlib.sha256(manifest).hexdigest()
    assert {n: (p.dtype, p.shape, bytes(p.data)) for n, p in container.payloads.items()} == {
        n: (p.dtype, p.shape, p.data) for n, p in payloads.items()
    }
    library = safetensors.numpy.load(data)
    assert {n: (v.shape, v.tobytes()) for n, v in library.items()} == {
        n: (p.shape, p.data) for n, p in payloads.items()
    }


def test_the_layout_is_the_documented_one():
    payloads = {"b": Payload.of_bytes(b"xyz"), "z": Payload("F32", (2,), bytes(range(8))), "a": Payload.of_bytes(b"q")}
    data = write_container(b"{}", payloads)
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    digest = hashlib.sha256(b"{}").hexdigest()
    expected = (
        f'{{"__metadata__":{{"{MANIFEST_KEY}":"{{}}","{DIGEST_KEY}":"{digest}"}},'
        '"z":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
        '"a":{"dtype":"U8","shape":[1],"data_offsets":[8,9]},'
        '"b":{"dtype":"U8","shape":[3],"data_offsets":[9,12]}}'
    )
    assert data[8 : 8 + length].rstrip(b" ") == expected.encode()
    assert data[8 + length :] == bytes(range(8)) + b"q" + b"xyz"


def test_the_library_finds_the_manifest(tiny, tmp_path):
    path = tmp_path / "tiny.bundle"
    path.write_bytes(tiny)
    with safetensors.safe_open(path, "np") as file:
        metadata = file.metadata()
        tensors = {
            "head.bias",
            "conv.weight",
            "head.weight",
            "norm.half",
            "norm.bf16",
            "deep.weight",
            "deep.weight.scale",
        }
        assert set(file.keys()) == tensors | {"graph.onnx", "canned.logits"}
        assert file.get_tensor("norm.half").dtype == "float16"
        assert file.get_tensor("canned.logits").tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert json.loads(metadata[MANIFEST_KEY])["model"] == "tiny"


@pytest.mark.parametrize(
    ("payloads", "message"),
    [
        ({"__metadata__": Payload.of_bytes(b"")}, "'__metadata__' is reserved"),
        ({"x": Payload("F32", (2,), b"1234")}, "'x' has 4 bytes; its dtype and shape make 8"),
    ],
)
def test_the_writer_refuses_what_could_not_be_read(payloads, message):
    with pytest.raises(BundleFormatError, match=message):
        write_container(b"{}", payloads)
