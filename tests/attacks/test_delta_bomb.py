"""A tiny delta that asks for gigabytes, by its frame, its counts or its tensors: refused before memory is allocated."""

from __future__ import annotations

import hashlib
import zlib

import pytest

from seedcnn.bundle.container import Payload
from seedcnn.bundle.delta import apply_delta, read_delta
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
    frame = _bomb(256)
    digest = hashlib.sha256(frame).hexdigest()

    def change(value):
        value["tensors"][0].update(coding="sparse-zlib", coded_sha256=digest)

    path = tmp_path / "bomb.delta"
    path.write_bytes(signed(delta, change, {"body.weight": Payload.of_bytes(frame)}))
    message, grown = printed(CHILD, parent_file, path)
    assert "does not decompress to exactly" in message
    assert int(grown) < 16 << 20


@pytest.fixture
def parent_file(parent, tmp_path):
    from tests.bundle.deltas import bundle

    path = tmp_path / "parent.bundle"
    path.write_bytes(bundle(3))
    return path


def test_a_frame_that_is_stated_larger_than_all_changes_could_be(parent, delta):
    with pytest.raises(BundleError, match="size must be an integer"):
        read_delta(signed(delta, setting("tensors", 0, "size", 1 << 30)))


def test_more_changes_than_values(parent, delta):
    def change(value):
        value["tensors"][0].update(count=100_000_000, size=200_000_000)

    with pytest.raises(BundleError, match="changes 100000000 values; the tensor has 3456"):
        apply_delta(parent, read_delta(signed(delta, change)))


def test_a_tensor_of_another_size_in_its_place(parent, delta):
    def change(value):
        entry = value["tensors"][1]
        entry.update(shape=[1 << 28])

    with pytest.raises(BundleError, match=r"shape must hold integers in \[1, 134217728\]"):
        apply_delta(parent, read_delta(signed(delta, change)))
