"""A tiny delta that asks for gigabytes, by its frame, its counts or its tensors: refused before memory is allocated."""

from __future__ import annotations

import zlib

import pytest

from seedcnn.bundle.container import BYTES, Container, read_container, write_container
from seedcnn.bundle.delta import DELTA_FORMAT, read_delta
from seedcnn.bundle.head import dictionary, manifest_of
from seedcnn.errors import BundleError
from tests.attacks.memory import printed
from tests.bundle.deltas import setting, signed

CHILD = """
import sys
from seedcnn.bundle import read_bundle
from seedcnn.bundle.delta import apply_delta, read_delta
from seedcnn.errors import BundleError
parent, data = (open(name, "rb").read() for name in sys.argv[1:])
before = peak()
try:
    apply_delta(read_bundle(parent), read_delta(data))
except BundleError as error:
    print(error)
print(peak() - before)
"""


def _bomb(megabytes: int) -> bytes:
    compressor, zeros = zlib.compressobj(9), bytes(1 << 20)
    return b"".join([*(compressor.compress(zeros) for _ in range(megabytes)), compressor.flush()])


def test_differences_that_expand_to_a_quarter_of_a_gigabyte(parent_file, delta, tmp_path):
    path = tmp_path / "bomb.delta"
    logits = bytes(read_container(delta, DELTA_FORMAT).rest)[-12:]
    path.write_bytes(signed(delta, setting("integers", "zlib"), _bomb(256) + logits))
    message, grown = printed(CHILD, parent_file, path)
    assert "does not decompress to exactly" in message
    assert int(grown) < 16 << 20


@pytest.fixture
def parent_file(parent, tmp_path):
    from tests.bundle.deltas import bundle

    path = tmp_path / "parent.bundle"
    path.write_bytes(bundle(3))
    return path


def test_a_manifest_that_expands_to_a_quarter_of_a_gigabyte(parent_file, delta, tmp_path):
    compressor = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_DEFAULT_STRATEGY, dictionary())
    container = read_container(delta, DELTA_FORMAT)
    text = manifest_of(container.head, container.manifest_size)
    zeros = bytes(1 << 20)
    head = b"".join([compressor.compress(text), *(compressor.compress(zeros) for _ in range(256)), compressor.flush()])
    path = tmp_path / "bomb.delta"
    path.write_bytes(write_container(Container(DELTA_FORMAT, len(text), len(head), {BYTES: head})))
    message, grown = printed(CHILD, parent_file, path)
    assert "the graph does not decompress to exactly 0 bytes" in message
    assert int(grown) < 16 << 20


@pytest.mark.parametrize("index", [-1, 16_384, 1 << 40, "0"])
def test_a_tensor_that_no_parent_can_have(delta, index):
    with pytest.raises(BundleError, match=r"index must be an integer in \[0, 16383\]"):
        read_delta(signed(delta, setting("tensors", 0, "index", index)))


@pytest.mark.parametrize("name", ["shape", "name", "scale", "role"])
def test_a_tensor_keeps_its_shape_and_name(delta, name):
    with pytest.raises(BundleError, match=f"unknown fields: .*{name}"):
        read_delta(signed(delta, setting("tensors", 0, name, [1 << 28])))
