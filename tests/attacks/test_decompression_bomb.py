"""A tiny frame that expands to a gigabyte, and seeds that do: refused before memory is allocated."""

from __future__ import annotations

import lzma
import sys
import zlib

import pytest

from seedcnn.bundle import encode_grid, grid_of_step, read_bundle
from seedcnn.bundle.compression import COMPRESSIONS
from seedcnn.bundle.head import dictionary
from tests.attacks.memory import printed
from tests.bundle.bundles import tiny_bundle, with_head, with_integers, with_manifest

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


CHILD = """
import sys
from seedcnn.bundle import open_bundle
from seedcnn.errors import BundleError
before = peak()
try:
    bundle = open_bundle(sys.argv[1])
    bundle.graph()
    bundle.tensors()
except BundleError as error:
    print(error)
print(peak() - before)
"""


def test_a_bomb_of_integers_is_refused_without_the_memory(bomb, tmp_path):
    path = tmp_path / "bomb.bundle"
    compression, frame = bomb
    path.write_bytes(with_integers(tiny_bundle(compression=compression), frame))
    message, grown = printed(CHILD, path)
    assert "states a size of" in message or "does not decompress to exactly" in message
    assert int(grown) < 64 << 20


@pytest.mark.parametrize("part", ["manifest", "graph"])
def test_a_bomb_in_the_head_is_refused_without_the_memory(tiny, part, tmp_path):
    compressor = zlib.compressobj(1, zlib.DEFLATED, 15, 9, zlib.Z_DEFAULT_STRATEGY, dictionary())
    text = read_bundle(tiny).manifest.dump() if part == "graph" else b""
    head = compressor.compress(text) + _stream(compressor)
    path = tmp_path / "bomb.bundle"
    path.write_bytes(with_head(tiny, head, len(text) or 4 << 20))
    message, grown = printed(CHILD, path)
    assert "the graph does not decompress to exactly 198 bytes" in message or "is not JSON" in message
    assert int(grown) < 64 << 20


def test_a_frame_that_lies_about_its_size(refused):
    data = tiny_bundle(tensors=[encode_grid("w", [1.0] * 15, grid_of_step(1))], compression="zstd")
    honest = zstd.compress(bytes(15))
    assert zstd.get_frame_info(honest).decompressed_size == honest[5] == 15
    longer = zstd.compress(bytes(200))
    lying = longer[:5] + bytes([15]) + longer[6:]
    assert zstd.get_frame_info(lying).decompressed_size == 15
    refused(with_integers(data, lying), "the stream of integers is not a zstd frame|exactly 15 bytes")


def test_a_window_over_the_cap(refused):
    size = 64 << 20
    options = {zstd.CompressionParameter.window_log: 27}
    frame = zstd.compress(bytes(size), options=options)
    data = tiny_bundle(tensors=[encode_grid("w", [1.0], grid_of_step(1))], compression="zstd")
    grown = with_manifest(data, lambda m: m["tensors"][0].update(shape=[size]))
    refused(with_integers(grown, frame), "too much memory")


def test_an_entropy_coded_stream_of_far_more_values_than_it_holds(tiny, tmp_path):
    """Lanes run dry at once; the tensor itself, whose size is stated, is all that is allocated."""
    path = tmp_path / "bomb.bundle"
    path.write_bytes(with_manifest(tiny, lambda m: m["tensors"][1].update(shape=[3, 5, 1 << 16])))
    message, grown = printed(CHILD, path)
    assert message.endswith("the stream of integers ends early")
    assert int(grown) < (15 << 18) + (16 << 20)


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
        manifest["canned"]["pictures"] = [[4096, 4096, 4]] * 64

    refused(with_manifest(tiny, change), f"the canned images and pictures take {2 * 4 * 4 * 3 + (4 << 30)} bytes")


def test_a_thousand_pictures(tiny, refused):
    def change(manifest):
        manifest["canned"]["pictures"] = manifest["canned"]["pictures"] * 125

    refused(with_manifest(tiny, change), r"canned\.pictures must be a list of at most 64 items")
