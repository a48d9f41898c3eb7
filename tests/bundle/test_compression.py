"""Compressions: one frame or stream of the promised size, whatever the bytes say."""

from __future__ import annotations

import io
import lzma
import subprocess
import sys
import zlib

import numpy as np
import pytest

from seedcnn.bundle.compression import COMPRESSIONS, compress, decompress, decompressed
from seedcnn.errors import BundleFormatError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def _frame_without_size(data: bytes) -> bytes:
    stream = io.BytesIO()
    with zstd.ZstdFile(stream, "w") as file:
        file.write(data)
    return stream.getvalue()


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("size", [0, 1, 10, 70_000])
def test_what_went_in_comes_out(compression, size):
    data = np.random.default_rng(0).integers(0, 4, size, np.uint8).tobytes()
    frame = compress(data, compression)
    if size or compression != "xz":  # an empty xz stream has no block; nothing in a bundle is empty
        assert decompress(frame, size, "thing", compression) == data
        assert decompress(memoryview(frame), size, "thing", compression) == data


@pytest.mark.parametrize("rounds", [12, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_size_and_entropy_comes_out_piece_by_piece(compression, rounds):
    # Sizes at which the ends of a piece, of the decoder's input and of a block of the frame coincide.
    random = np.random.default_rng(0)
    for _ in range(rounds):
        size, spread = int(random.integers(1, 700_000)), random.choice([0.3, 1, 4, 16])
        data = np.rint(random.standard_normal(size) * spread).clip(-127, 127).astype(np.int8).tobytes()
        frame = compress(data, compression, fast=True)
        for most in (1 << 16, 1 << 18, size + 1):
            pieces = list(decompressed(frame, size, "thing", compression, most=most))
            assert b"".join(pieces) == data
            assert max(map(len, pieces)) <= most
        for damaged in (frame[:-1], frame[: len(frame) // 2], frame + b"\0"):
            with pytest.raises(BundleFormatError):
                decompress(damaged, size, "thing", compression)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_fast_is_larger_and_the_same(compression):
    data = np.rint(np.random.default_rng(0).standard_normal(100_000) * 3).astype(np.int8).tobytes() * 2
    small, fast = compress(data, compression), compress(data, compression, fast=True)
    assert len(small) < len(fast)
    assert decompress(fast, len(data), "thing", compression) == data


def test_an_unknown_compression_is_named():
    with pytest.raises(ValueError, match=r"`compression` \(='lz4'\) must be one of zstd, zlib, xz"):
        compress(b"", "lz4")


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("size", [9, 11, 0])
def test_another_size_is_refused(compression, size):
    with pytest.raises(BundleFormatError, match=rf"exactly {size} bytes|states a size of 10, not {size}"):
        decompress(compress(b"0123456789", compression), size, "thing", compression)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame + b"\0",
        lambda frame: frame + frame,
        lambda frame: frame[:-1],
        lambda frame: frame[: len(frame) // 2],
        lambda frame: b"",
        lambda frame: b"x" * 40,
    ],
    ids=["byte after it", "twice", "one byte short", "half", "empty", "noise"],
)
def test_only_one_whole_frame_is_decompressed(compression, change):
    frame = compress(b"0123456789" * 9, compression)
    with pytest.raises(BundleFormatError, match=r"thing .*(exactly 90 bytes|not an? (zstd|zlib|xz))"):
        decompress(change(frame), 90, "thing", compression)


def test_a_zstd_frame_states_its_size():
    with pytest.raises(BundleFormatError, match="states a size of None"):
        decompress(_frame_without_size(b"x" * 10), 10, "thing")


def test_large_tensors_fit_the_window_that_is_allowed():
    data = np.random.default_rng(0).integers(0, 4, 9 << 20, np.uint8).tobytes()
    frame = zstd.compress(data, options={zstd.CompressionParameter.window_log: 23})
    assert decompress(frame, len(data), "thing") == data
    wide = zstd.compress(data * 2, options={zstd.CompressionParameter.window_log: 24})
    with pytest.raises(BundleFormatError, match="too much memory"):
        decompress(wide, 2 * len(data), "thing")


def test_an_xz_stream_wants_no_more_memory_and_no_other_filter():
    data = np.random.default_rng(0).integers(0, 4, 1 << 20, np.uint8).tobytes()
    lzma2 = {"id": lzma.FILTER_LZMA2, "preset": 1}
    for dictionary, allowed in ((1 << 23, True), (1 << 24, False)):
        frame = lzma.compress(data, filters=[lzma2 | {"dict_size": dictionary}])
        if allowed:
            assert decompress(frame, len(data), "thing", "xz") == data
        else:
            with pytest.raises(BundleFormatError, match=r"not an xz stream: .*[Mm]emory"):
                decompress(frame, len(data), "thing", "xz")
    for filters in ([{"id": lzma.FILTER_X86}, lzma2], [{"id": lzma.FILTER_DELTA, "dist": 4}, lzma2]):
        with pytest.raises(BundleFormatError, match="whose only filter is LZMA2"):
            decompress(lzma.compress(data, filters=filters), len(data), "thing", "xz")
    with pytest.raises(BundleFormatError, match="whose only filter is LZMA2"):
        decompress(lzma.compress(data, lzma.FORMAT_ALONE), len(data), "thing", "xz")


def test_a_zlib_stream_has_no_dictionary():
    packer = zlib.compressobj(zdict=b"0123456789")
    frame = packer.compress(b"0123456789") + packer.flush()
    with pytest.raises(BundleFormatError, match="not a zlib stream"):
        decompress(frame, 10, "thing", "zlib")


CHILD = """
import sys
sys.modules["backports.zstd"] = sys.modules["compression.zstd"] = None
from seedcnn.bundle import read_bundle
from seedcnn.errors import BundleError
for name in sys.argv[1:]:
    try:
        bundle = read_bundle(open(name, "rb").read())
        print(len(bundle.graph()), [int(v.size) for v in bundle.tensors().values()])
    except BundleError as error:
        print(error)
"""


def test_a_machine_without_zstd_reads_the_others_and_says_what_is_missing(tmp_path):
    from tests.bundle.bundles import tiny_bundle

    paths = []
    for storage in ("zstd", "entropy", "zlib", "xz"):
        paths.append(tmp_path / storage)
        paths[-1].write_bytes(tiny_bundle(compression=storage))
    done = subprocess.run([sys.executable, "-c", CHILD, *paths], capture_output=True, text=True, check=True)
    missing, *read = done.stdout.splitlines()
    assert missing.startswith("this machine has no zstd: install Python 3.14 or")
    assert missing.endswith("or pack bundles for it with zlib or xz")
    assert read == ["198 [5, 15, 15, 14, 5, 5, 15]"] * 3
