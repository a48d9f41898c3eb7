"""The outer file: a safetensors file whose payloads are coded tensors and whose metadata holds one manifest.

Layout: 8 bytes little-endian header length, a JSON header, the payloads without gaps. Our reader is stricter than the
safetensors library (caps, order, no gaps, no overlap, no trailing bytes) and needs nothing but the standard library;
anything it accepts, the library accepts too.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from seedcnn.bundle.canonical import load_json
from seedcnn.bundle.limits import MAX_FILE_BYTES, MAX_HEADER_BYTES, MAX_NAME_BYTES, MAX_RANK, MAX_TENSORS
from seedcnn.errors import BundleFormatError

__all__ = ["MANIFEST_KEY", "Container", "Payload", "read_container", "write_container"]

MANIFEST_KEY = "seedcnn.manifest"
_ITEM_BYTES = {"U8": 1, "F32": 4}
_ALIGN = 8


@dataclass(frozen=True)
class Payload:
    """One stored tensor: its safetensors dtype ("U8" or "F32"), shape, and bytes (little-endian, C order)."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes | memoryview

    @classmethod
    def of_bytes(cls, data: bytes) -> Payload:
        """A payload of raw bytes."""
        return cls("U8", (len(data),), data)


@dataclass(frozen=True)
class Container:
    """A parsed file: the manifest's text and the payloads by name."""

    manifest: bytes
    payloads: Mapping[str, Payload]


def write_container(manifest: bytes, payloads: Mapping[str, Payload]) -> bytes:
    """Serialise; the same input gives the same bytes.

    Raises:
        BundleFormatError: if a payload's length does not fit its dtype and shape.
    """
    header: dict[str, Any] = {"__metadata__": {MANIFEST_KEY: manifest.decode("utf-8")}}
    offset = 0
    # safetensors wants payloads ordered by alignment, then name; four-byte items first keeps them aligned.
    order = sorted(payloads, key=lambda name: (-_ITEM_BYTES[payloads[name].dtype], name))
    for name in order:
        payload = payloads[name]
        size = prod(payload.shape) * _ITEM_BYTES[payload.dtype]
        if size != len(payload.data):
            raise BundleFormatError(f"payload {name!r} has {len(payload.data)} bytes; dtype and shape say {size}")
        header[name] = {"dtype": payload.dtype, "shape": list(payload.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % _ALIGN)
    return struct.pack("<Q", len(text)) + text + b"".join(payloads[name].data for name in order)


def _natural(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_FILE_BYTES:
        raise BundleFormatError(f"{what} is {value!r}; it must be an integer in [0, {MAX_FILE_BYTES}]")
    return value


def _parse_entry(name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    if len(name.encode("utf-8")) > MAX_NAME_BYTES:
        raise BundleFormatError(f"payload name of {len(name)} characters; at most {MAX_NAME_BYTES} bytes are allowed")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise BundleFormatError(f"payload {name!r} must have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in _ITEM_BYTES:
        raise BundleFormatError(f"payload {name!r} has dtype {dtype!r}; known: {', '.join(_ITEM_BYTES)}")
    if not isinstance(shape, list) or len(shape) > MAX_RANK:
        raise BundleFormatError(f"payload {name!r} has shape {shape!r}; it must be a list of at most {MAX_RANK} sizes")
    sizes = tuple(_natural(size, f"payload {name!r}: a size") for size in shape)
    if not isinstance(offsets, list) or len(offsets) != 2:
        raise BundleFormatError(f"payload {name!r} has data_offsets {offsets!r}; it must be [begin, end]")
    begin, end = (_natural(offset, f"payload {name!r}: an offset") for offset in offsets)
    if end - begin != prod(sizes) * _ITEM_BYTES[dtype]:
        raise BundleFormatError(f"payload {name!r} spans {end - begin} bytes; dtype and shape say otherwise")
    return dtype, sizes, begin, end


def read_container(data: bytes) -> Container:
    """Parse a file held in memory. Payloads are views into ``data``, not copies.

    Raises:
        BundleFormatError: if it is truncated, malformed, over a cap, or has gaps, overlaps or trailing bytes.
    """
    if len(data) > MAX_FILE_BYTES:
        raise BundleFormatError(f"file has {len(data)} bytes; at most {MAX_FILE_BYTES} are allowed")
    if len(data) < 8:
        raise BundleFormatError(f"file has {len(data)} bytes; a bundle starts with an 8-byte header length")
    (length,) = struct.unpack_from("<Q", data)
    if length > MAX_HEADER_BYTES:
        raise BundleFormatError(f"header length is {length}; at most {MAX_HEADER_BYTES} are allowed")
    if 8 + length > len(data):
        raise BundleFormatError(f"header of {length} bytes is truncated: the file has {len(data)} bytes")
    header = load_json(data[8 : 8 + length], "header")
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or set(metadata) != {MANIFEST_KEY} or not isinstance(metadata[MANIFEST_KEY], str):
        raise BundleFormatError(f"header metadata must hold exactly the string {MANIFEST_KEY!r}")
    if len(header) > MAX_TENSORS:
        raise BundleFormatError(f"file has {len(header)} payloads; at most {MAX_TENSORS} are allowed")
    body = memoryview(data)[8 + length :]
    spans = sorted((*_parse_entry(name, entry)[2:], name) for name, entry in header.items())
    expected = 0
    for begin, end, name in spans:
        if begin != expected:
            raise BundleFormatError(f"payload {name!r} starts at {begin}; gaps and overlaps are not allowed ({expected})")
        expected = end
    if expected != len(body):
        raise BundleFormatError(f"payloads end at {expected} but the file holds {len(body)} bytes of them")
    payloads = {}
    for name, entry in header.items():
        dtype, shape, begin, end = _parse_entry(name, entry)
        payloads[name] = Payload(dtype, shape, body[begin:end])
    return Container(metadata[MANIFEST_KEY].encode("utf-8"), payloads)
