"""A tiny frame that expands to a gigabyte, and seeds that do: refused before memory is allocated."""

from __future__ import annotations

import hashlib
import lzma
import sys
import zlib

import pytest

from seedcnn.bundle.compression import COMPRESSIONS
from seedcnn.bundle.container import Payload
from tests.attacks.memory import printed
from tests.bundle.bundles import with_manifest, with_payloads

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

GIGABYTE = 1 << 30


def _frame(size: int, *, stated: bool) -> bytes:
    compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.content_size_flag: int(stated)})
    if stated:
        compressor.set_pledged_input_size(size)
    zeros = bytes(1 << 20)
    parts = [compressor.compress(zeros) for _ in range(size >> 20)]
    return b"".join([*parts, compressor.flush(zstd.ZstdCompressor.FLUSH_FRAME)])


def _stream(compressor) -> bytes:
    zeros = bytes(1 << 20)
    return b"".join([*(compressor.compress(zeros) for _ in range(256)), compressor.flush()])


@pytest.fixture(scope="module", params=["stated", "unstated", "zlib", "xz"])
def bomb(request) -> tuple[str, bytes]:
    """A compression, and a frame of it that expands to a gigabyte or a quarter of one."""
    if request.param == "zlib":
        frame = _stream(zlib.compressobj(1))
    elif request.param == "xz":
        frame = _stream(lzma.LZMACompressor(preset=0))
    else:
        frame = _frame(GIGABYTE, stated=request.param == "stated")
    assert len(frame) < 2_000_000
    return request.param if request.param in COMPRESSIONS else "zstd", frame


def _armed(tiny: bytes, bomb: bytes, index: int | None, **changes: object) -> bytes:
    """The bundle with one payload replaced by the bomb, its digest and ``changes`` signed as if they were valid."""
    digest = hashlib.sha256(bomb).hexdigest()

    def change(manifest):
        place = manifest["graph"] if index is None else manifest["tensors"][index]
        place.update(coded_sha256=digest, **changes)

    name = "graph.onnx" if index is None else "conv.weight"
    return with_payloads(with_manifest(tiny, change), lambda p: p.update({name: Payload.of_bytes(bomb)}))


CHILD = """
import sys
from seedcnn.bundle import open_bundle
from seedcnn.errors import BundleError
before = peak()
bundle = open_bundle(sys.argv[1])
for ask in (bundle.graph, bundle.tensors):
    try:
        ask()
    except BundleError as error:
        print(error)
print(peak() - before)
"""


@pytest.mark.parametrize("index", [None, 1], ids=["graph", "tensor"])
def test_the_bomb_is_refused_without_the_memory(tiny, bomb, index, tmp_path):
    path = tmp_path / "bomb.bundle"
    compression, frame = bomb
    coding = compression if index is None else f"grid-i8-{compression}"
    path.write_bytes(_armed(tiny, frame, index, coding=coding))
    *messages, grown = printed(CHILD, path)
    assert len(messages) == 1
    assert "states a size of" in messages[0] or "does not decompress to exactly" in messages[0]
    assert int(grown) < 64 << 20


def test_a_frame_that_lies_about_its_size(tiny, refused):
    honest = zstd.compress(bytes(15))
    assert zstd.get_frame_info(honest).decompressed_size == honest[5] == 15
    longer = zstd.compress(bytes(200))
    lying = longer[:5] + bytes([15]) + longer[6:]
    assert zstd.get_frame_info(lying).decompressed_size == 15
    refused(_armed(tiny, lying, 1), "'conv.weight' is not a zstd frame|exactly 15 bytes")


def test_a_window_over_the_cap(tiny, refused):
    size = 64 << 20
    options = {zstd.CompressionParameter.window_log: 27}
    frame = zstd.compress(bytes(size), options=options)
    refused(_armed(tiny, frame, None, size=size), "too much memory")


@pytest.mark.parametrize("size", [(64 << 20) + 1, GIGABYTE, 2**53 - 1])
def test_a_graph_over_the_cap_is_refused_by_its_stated_size(tiny, refused, size):
    refused(
        with_manifest(tiny, lambda m: m["graph"].update(size=size)),
        r"graph\.size must be an integer in \[1, 67108864\]",
    )


def test_seeds_that_ask_for_a_gigabyte(tiny, refused):
    elements = 1 << 28
    change = {"shape": [elements], "count": elements, "repeat": 1}
    refused(with_manifest(tiny, lambda m: m["tensors"][3].update(change)), "shape")


def test_images_that_ask_for_gigabytes(tiny, refused):
    def change(manifest):
        manifest["preprocessing"].update(height=4096, width=4096, short_side=4096)
        manifest["canned"]["pictures"] = []

    refused(with_manifest(tiny, change), "the canned images and pictures take 100663296 bytes")


def test_pictures_that_ask_for_gigabytes(tiny, refused):
    def change(manifest):
        (first, *_) = manifest["canned"]["pictures"]
        manifest["canned"]["pictures"] = [first | {"height": 4096, "width": 4096, "channels": 4}] * 64

    refused(with_manifest(tiny, change), f"the canned images and pictures take {2 * 4 * 4 * 3 + (4 << 30)} bytes")


def test_a_thousand_pictures(tiny, refused):
    def change(manifest):
        manifest["canned"]["pictures"] = manifest["canned"]["pictures"] * 125

    refused(with_manifest(tiny, change), r"canned\.pictures must be a list of at most 64 items")
