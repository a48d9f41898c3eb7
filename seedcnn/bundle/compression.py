"""Compression of payloads: zstd, or zlib and xz for devices without it. Decompressing never exceeds the stated size."""

from __future__ import annotations

import lzma
import sys
import zlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from seedcnn.bundle.limits import MAX_ZSTD_WINDOW_LOG
from seedcnn.errors import BundleError, BundleFormatError

__all__ = ["COMPRESSIONS", "STORAGES", "compress", "decompress", "decompressed"]

COMPRESSIONS = ("zstd", "zlib", "xz")
"""zstd: RFC 8878. zlib: RFC 1950. xz: one stream of LZMA2. Python's standard library has the last two."""

STORAGES = ("entropy", *COMPRESSIONS)
"""How the integers of a bundle are stored: by :mod:`seedcnn.bundle.entropy`, or as bytes that are compressed."""

_ZSTD_LEVEL, _ZLIB_LEVEL = {True: 3, False: 19}, {True: 1, False: 9}  # fast, or small
_WINDOW = 1 << MAX_ZSTD_WINDOW_LOG
_XZ_MEMORY = _WINDOW + (1 << 20)  # besides the dictionary, the decoder needs far less than 1 MiB
_FED = 1 << 16  # compressed bytes per call of a decoder
_KINDS = {"zstd": "a zstd frame", "zlib": "a zlib stream", "xz": "an xz stream"}
_XZ_PRESET = {True: 0, False: 9 | lzma.PRESET_EXTREME}


def _zstd() -> ModuleType:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        raise BundleError(
            "this machine has no zstd: install Python 3.14 or the package backports.zstd, "
            "or pack bundles for it with zlib or xz"
        ) from None
    return zstd


def compress(data: bytes, compression: str = "zstd", *, fast: bool = False) -> bytes:
    """Compress to one frame (zstd, with its content size) or stream (zlib, xz); the same library gives the same bytes.

    Args:
        fast: about ten times faster and a few percent larger, for a device that stores what it received.

    Raises:
        ValueError: if the compression is unknown.
        BundleError: if zstd is requested and not installed.
    """
    if compression == "zstd":
        return bytes(_zstd().compress(data, _ZSTD_LEVEL[fast]))
    if compression == "zlib":
        return zlib.compress(data, _ZLIB_LEVEL[fast])
    if compression == "xz":
        filters = [{"id": lzma.FILTER_LZMA2, "preset": _XZ_PRESET[fast], "dict_size": _WINDOW}]
        return lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=filters)
    raise ValueError(f"`compression` (={compression!r}) must be one of {', '.join(COMPRESSIONS)}")


def decompress(data: bytes | memoryview, size: int, what: str, compression: str = "zstd") -> bytes:
    """Decompress one frame or stream to exactly ``size`` bytes; never allocate more.

    Raises:
        BundleFormatError: if it is damaged, has another size, needs a window over the cap, is followed by other bytes,
            or is a zstd frame that does not state ``size``.
        BundleError: if it is zstd and zstd is not installed.
    """
    return b"".join(decompressed(data, size, what, compression, most=size + 1))


def decompressed(
    data: bytes | memoryview, size: int, what: str, compression: str = "zstd", *, most: int = 1 << 18
) -> Iterator[bytes]:
    """Yield the same bytes in pieces of at most ``most``; errors at the end of the data are raised at the end.

    Raises:
        BundleFormatError, BundleError: see :func:`decompress`.
    """
    decoder, failure = {"zstd": _unzstd, "zlib": _unzlib, "xz": _unxz}[compression](data, size, what)
    view, place, left, stalled = memoryview(data), 0, size, False
    while not decoder.eof and left >= 0:
        fed: bytes | memoryview = getattr(decoder, "unconsumed_tail", b"")
        # A decoder that the limit stopped may say that it needs no input although it has nothing left to give.
        if not fed and (stalled or getattr(decoder, "needs_input", True)):
            fed, place = view[place : place + _FED], place + _FED
        try:
            piece = decoder.decompress(fed, min(most, left + 1))
        except failure as error:
            raise BundleFormatError(f"{what} is not {_KINDS[compression]}: {error}") from None
        if stalled and not piece and not fed:
            break  # the data ends too early
        stalled = not piece
        left -= len(piece)
        if piece and left >= 0:
            yield piece
    if left or not decoder.eof or decoder.unused_data or place < len(view):
        raise BundleFormatError(f"{what} does not decompress to exactly {size} bytes")


def _unzstd(data: bytes | memoryview, size: int, what: str) -> tuple[Any, type[Exception]]:
    zstd = _zstd()
    try:
        stated = zstd.get_frame_info(data).decompressed_size
    except zstd.ZstdError as error:
        raise BundleFormatError(f"{what} is not {_KINDS['zstd']}: {error}") from None
    if stated != size:
        raise BundleFormatError(f"{what}: its zstd frame states a size of {stated}, not {size} bytes")
    options = {zstd.DecompressionParameter.window_log_max: MAX_ZSTD_WINDOW_LOG}
    return zstd.ZstdDecompressor(options=options), zstd.ZstdError


def _unzlib(data: bytes | memoryview, size: int, what: str) -> tuple[Any, type[Exception]]:  # noqa: ARG001
    return zlib.decompressobj(), zlib.error


def _unxz(data: bytes | memoryview, size: int, what: str) -> tuple[Any, type[Exception]]:  # noqa: ARG001
    if not _is_lzma2(data):
        raise BundleFormatError(f"{what} is not an xz stream whose only filter is LZMA2")
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY), lzma.LZMAError


def _is_lzma2(data: bytes | memoryview) -> bool:
    """Whether the first block's header names LZMA2 as its only filter, which even the smallest decoders know.

    Each block of a stream may name its own filters; a stream compressed in one piece has only one block.
    """
    if len(data) < 24 or data[:6] != b"\xfd7zXZ\x00":
        return False
    flags, place = data[13], 14
    for present in (flags & 0x40, flags & 0x80):  # optional sizes before the filter, seven bits a byte
        if present:
            while place < len(data) and data[place] & 0x80:
                place += 1
            place += 1
    return flags & 0x03 == 0 and data[place : place + 2] == b"\x21\x01"
