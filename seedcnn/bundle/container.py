"""The outer file: a safetensors file whose payloads are coded tensors and whose metadata holds one manifest.

Layout: the header's length in 8 little-endian bytes, a JSON header, and the payloads without gaps. This reader is
stricter than the safetensors library (caps, four dtypes, compact header, alignment) and needs only the standard
library; whatever it accepts, the safetensors library accepts too.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from seedcnn.bundle.canonical import compact_json, load_json
from seedcnn.bundle.limits import MAX_FILE_BYTES, MAX_HEADER_BYTES, MAX_NAME_BYTES, MAX_RANK, MAX_TENSORS
from seedcnn.errors import BundleFormatError

__all__ = ["DIGEST_KEY", "MANIFEST_KEY", "Container", "Payload", "read_container", "write_container"]

MANIFEST_KEY = "seedcnn.manifest"
DIGEST_KEY = "seedcnn.manifest.sha256"
_ITEM_BYTES = {"U8": 1, "F16": 2, "BF16": 2, "F32": 4}
_ALIGN = 8
_METADATA = "__metadata__"
_OTHER_KINDS = {"seedcnn.checkpoint": "a checkpoint of seedcnn, not a bundle: `seedcnn pack` makes a bundle of it"}


@dataclass(frozen=True)
class Payload:
    """One stored tensor: safetensors dtype ("U8", "F16", "BF16", "F32"), shape, and bytes (little-endian, C order)."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes | memoryview

    @classmethod
    def of_bytes(cls, data: bytes) -> Payload:
        """Make a payload of raw bytes."""
        return cls("U8", (len(data),), data)


@dataclass(frozen=True)
class Container:
    """A parsed file: the manifest's text, its stated SHA-256 (not checked yet), and the payloads by name."""

    manifest: bytes
    manifest_sha256: str
    payloads: Mapping[str, Payload]


def write_container(manifest: bytes, payloads: Mapping[str, Payload]) -> bytes:
    """Serialise to a file; the same input gives the same bytes.

    Raises:
        BundleFormatError: if a payload's length does not match its dtype and shape, or its name is reserved.
    """
    digest = hashlib.sha256(manifest).hexdigest()
    header: dict[str, Any] = {_METADATA: {MANIFEST_KEY: manifest.decode("utf-8"), DIGEST_KEY: digest}}
    offset = 0
    # safetensors orders payloads by alignment, then by name; with the widest items first, all of them are aligned.
    order = sorted(payloads, key=lambda name: (-_ITEM_BYTES[payloads[name].dtype], name))
    for name in order:
        payload = payloads[name]
        if name == _METADATA:
            raise BundleFormatError(f"payload name {name!r} is reserved by the safetensors format")
        size = prod(payload.shape) * _ITEM_BYTES[payload.dtype]
        if size != len(payload.data):
            raise BundleFormatError(f"payload {name!r} has {len(payload.data)} bytes; its dtype and shape make {size}")
        header[name] = {"dtype": payload.dtype, "shape": list(payload.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = compact_json(header)
    text += b" " * (-len(text) % _ALIGN)
    return struct.pack("<Q", len(text)) + text + b"".join(payloads[name].data for name in order)


def _natural(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_FILE_BYTES:
        raise BundleFormatError(f"{what} is {value!r:.80}; it must be an integer in [0, {MAX_FILE_BYTES}]")
    return value


def _parse_entry(name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    if len(name.encode("utf-8")) > MAX_NAME_BYTES:
        raise BundleFormatError(f"payload name has {len(name)} characters; at most {MAX_NAME_BYTES} bytes are allowed")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise BundleFormatError(f"payload {name!r} must have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise BundleFormatError(f"payload {name!r} has dtype {dtype!r:.80}; it must be one of {', '.join(_ITEM_BYTES)}")
    if not isinstance(shape, list) or len(shape) > MAX_RANK:
        raise BundleFormatError(
            f"payload {name!r} has shape {shape!r:.80}; it must be a list of at most {MAX_RANK} sizes"
        )
    sizes = tuple(_natural(size, f"payload {name!r}: a size") for size in shape)
    if not isinstance(offsets, list) or len(offsets) != 2:
        raise BundleFormatError(f"payload {name!r} has data_offsets {offsets!r:.80}; it must be [begin, end]")
    begin, end = (_natural(offset, f"payload {name!r}: an offset") for offset in offsets)
    if end - begin != prod(sizes) * _ITEM_BYTES[dtype]:
        raise BundleFormatError(f"payload {name!r} spans {end - begin} bytes, which its dtype and shape do not make")
    if begin % _ITEM_BYTES[dtype]:
        raise BundleFormatError(f"payload {name!r} of dtype {dtype} starts at {begin}, which is not aligned")
    return dtype, sizes, begin, end


def _parse_header(text: bytes) -> tuple[bytes, str, dict[str, Any]]:
    header = load_json(text, "header")
    try:
        if compact_json(header) != text.rstrip(b" "):
            raise BundleFormatError("header is not compact JSON followed by spaces")
    except UnicodeEncodeError:
        raise BundleFormatError("header holds a surrogate, which UTF-8 cannot carry") from None
    metadata = header.pop(_METADATA, None)
    keys = {MANIFEST_KEY, DIGEST_KEY}
    if (
        not isinstance(metadata, dict)
        or set(metadata) != keys
        or not all(isinstance(v, str) for v in metadata.values())
    ):
        kind = _OTHER_KINDS.get(next(iter(metadata), "")) if isinstance(metadata, dict) else None
        if kind is not None:
            raise BundleFormatError(f"this is {kind}")
        raise BundleFormatError(f"header metadata must hold exactly the strings {MANIFEST_KEY!r} and {DIGEST_KEY!r}")
    if len(header) > MAX_TENSORS:
        raise BundleFormatError(f"file has {len(header)} payloads; at most {MAX_TENSORS} are allowed")
    return metadata[MANIFEST_KEY].encode("utf-8"), metadata[DIGEST_KEY], header


def read_container(data: bytes) -> Container:
    """Parse a file held in memory. The payloads are views into ``data``, not copies.

    Raises:
        BundleFormatError: if the file is truncated, malformed or over a cap, or has gaps, overlaps or trailing bytes.
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
    if length % _ALIGN:
        raise BundleFormatError(f"header length is {length}; it must be a multiple of {_ALIGN}")
    manifest, manifest_sha256, header = _parse_header(data[8 : 8 + length])
    entries = {name: _parse_entry(name, entry) for name, entry in header.items()}
    body = memoryview(data)[8 + length :]
    expected = 0
    for name in sorted(entries, key=lambda name: entries[name][2:]):
        _, _, begin, end = entries[name]
        if begin != expected:
            raise BundleFormatError(
                f"payload {name!r} starts at {begin}, not {expected}: no gap and no overlap is allowed"
            )
        expected = end
    if expected != len(body):
        raise BundleFormatError(f"payloads end at {expected} but the file holds {len(body)} bytes of them")
    payloads = {name: Payload(dtype, shape, body[begin:end]) for name, (dtype, shape, begin, end) in entries.items()}
    return Container(manifest, manifest_sha256, payloads)
