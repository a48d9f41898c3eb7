"""Manifest and graph as one zlib stream that begins with a dictionary: text and graphs that every reader knows.

The two share a stream because the names of the tensors are in both.
"""

from __future__ import annotations

import zlib
from functools import cache
from pathlib import Path

from seedcnn.errors import BundleFormatError

__all__ = ["dictionary", "graph_of", "manifest_of", "pack_head"]


@cache
def dictionary() -> bytes:
    """The bytes that precede every stream; ``docs/bundle-format.md`` has their SHA-256."""
    return Path(__file__).with_name("head.dictionary").read_bytes()


def pack_head(manifest: bytes, graph: bytes) -> bytes:
    """Compress a manifest and the graph behind it (empty in a delta); the same library gives the same bytes."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_DEFAULT_STRATEGY, dictionary())
    return compressor.compress(manifest + graph) + compressor.flush()


def _decompressor(stored: bytes | memoryview) -> zlib._Decompress:
    known = zlib.adler32(dictionary()).to_bytes(4, "big")
    if len(stored) < 6 or not stored[1] & 0x20 or bytes(stored[2:6]) != known:
        raise BundleFormatError("manifest and graph are not a zlib stream with the dictionary of this format")
    return zlib.decompressobj(15, dictionary())


def manifest_of(stored: bytes | memoryview, size: int) -> bytes:
    """Decompress the first ``size`` bytes, and no more.

    Raises:
        BundleFormatError: if the stream is damaged, has another dictionary, or ends before.
    """
    try:
        found = _decompressor(stored).decompress(stored, size)
    except zlib.error as error:
        raise BundleFormatError(f"the manifest is not a zlib stream: {error}") from None
    if len(found) != size:
        raise BundleFormatError(f"the manifest does not decompress to {size} bytes, but to {len(found)}")
    return found


def graph_of(stored: bytes | memoryview, before: int, size: int) -> bytes:
    """Decompress the ``size`` bytes behind the first ``before``; never allocate more.

    Raises:
        BundleFormatError: if the stream is damaged, or does not end exactly there.
    """
    decoder = _decompressor(stored)
    try:
        found = decoder.decompress(stored, before + size)
        more = decoder.decompress(decoder.unconsumed_tail, 1)
    except zlib.error as error:
        raise BundleFormatError(f"the graph is not a zlib stream: {error}") from None
    if len(found) != before + size or more or not decoder.eof or decoder.unused_data or decoder.unconsumed_tail:
        raise BundleFormatError(f"the graph does not decompress to exactly {size} bytes")
    return found[before:]
