"""The outer file: a safetensors file with one payload of bytes, and one for the floats of each precision.

Layout: the header's length in 8 little-endian bytes, a JSON header, and the payloads without gaps. The header names the
format, two sizes and the SHA-256 of all payloads. This reader is stricter than the safetensors library (caps, four
payloads, compact header, alignment) and needs only the standard library; whatever it accepts, the safetensors library
accepts too.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seedcnn.bundle.canonical import compact_json, load_json
from seedcnn.bundle.limits import MAX_FILE_BYTES, MAX_HEADER_BYTES, MAX_MANIFEST_BYTES
from seedcnn.errors import BundleFormatError, DigestError

__all__ = ["BYTES", "FORMAT", "ITEM_BYTES", "KEY", "Container", "read_container", "write_container"]

FORMAT = "seedcnn-bundle/1"
KEY = "seedcnn"
BYTES = "bytes"
ITEM_BYTES = {"f32": 4, "bf16": 2, "f16": 2, BYTES: 1}
"""Bytes of an item of each payload, in the order of the file: the widest first, so that floats are aligned."""

_DTYPES = {"f32": "F32", "bf16": "BF16", "f16": "F16", BYTES: "U8"}
_ALIGN = 8
_METADATA = "__metadata__"
_NUMBER = r"(0|[1-9][0-9]{0,9})"
_FACTS = re.compile(rf"([a-z]+-[a-z]+/[1-9][0-9]*) {_NUMBER} {_NUMBER} ([0-9a-f]{{64}})")
_OTHER_KINDS = {
    "seedcnn.checkpoint": "a checkpoint of seedcnn, not a bundle: `seedcnn pack` makes a bundle of it",
    "seedcnn.manifest": "a bundle or delta of an earlier version of seedcnn, which this one does not read: pack again",
}


@dataclass(frozen=True)
class Container:
    """A parsed file.

    Attributes:
        format: of the manifest, such as ``seedcnn-bundle/1``.
        manifest_size: bytes of the manifest, after it is decompressed.
        head_size: bytes that manifest and graph take in the payload of bytes, which begins with them.
        payloads: by name; the payload of bytes is always there.
    """

    format: str
    manifest_size: int
    head_size: int
    payloads: Mapping[str, bytes | memoryview]

    @property
    def head(self) -> memoryview:
        """Manifest and graph, compressed."""
        return memoryview(self.payloads[BYTES])[: self.head_size]

    @property
    def rest(self) -> memoryview:
        """The bytes behind the head."""
        return memoryview(self.payloads[BYTES])[self.head_size :]


def write_container(container: Container) -> bytes:
    """Serialise to a file; the same input gives the same bytes. Empty payloads of floats are left out."""
    order = [name for name in ITEM_BYTES if name == BYTES or len(container.payloads.get(name, b""))]
    digest = hashlib.sha256()
    for name in order:
        digest.update(container.payloads[name])
    facts = f"{container.format} {container.manifest_size} {container.head_size} {digest.hexdigest()}"
    header: dict[str, Any] = {_METADATA: {KEY: facts}}
    offset = 0
    for name in order:
        size = len(container.payloads[name])
        header[name] = {
            "dtype": _DTYPES[name],
            "shape": [size // ITEM_BYTES[name]],
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = compact_json(header)
    text += b" " * (-len(text) % _ALIGN)
    return struct.pack("<Q", len(text)) + text + b"".join(container.payloads[name] for name in order)


def _natural(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_FILE_BYTES:
        raise BundleFormatError(f"{what} is {value!r:.80}; it must be an integer in [0, {MAX_FILE_BYTES}]")
    return value


def _parse_entry(name: str, entry: Any) -> tuple[int, int]:
    if name not in _DTYPES:
        raise BundleFormatError(f"the file has a payload {name!r:.80}; it must be one of {', '.join(_DTYPES)}")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise BundleFormatError(f"payload {name!r} must have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype != _DTYPES[name]:
        raise BundleFormatError(f"payload {name!r} has dtype {dtype!r:.80}; it must be {_DTYPES[name]}")
    if not isinstance(shape, list) or len(shape) != 1:
        raise BundleFormatError(f"payload {name!r} has shape {shape!r:.80}; it must be a list of one size")
    size = _natural(shape[0], f"payload {name!r}: a size")
    if not isinstance(offsets, list) or len(offsets) != 2:
        raise BundleFormatError(f"payload {name!r} has data_offsets {offsets!r:.80}; it must be [begin, end]")
    begin, end = (_natural(offset, f"payload {name!r}: an offset") for offset in offsets)
    if end - begin != size * ITEM_BYTES[name]:
        raise BundleFormatError(f"payload {name!r} spans {end - begin} bytes, which its dtype and shape do not make")
    if begin % ITEM_BYTES[name]:
        raise BundleFormatError(f"payload {name!r} of dtype {dtype} starts at {begin}, which is not aligned")
    return begin, end


def _facts_of(metadata: Any, wanted: str) -> tuple[str, int, int, str]:
    """Parse what the header says of the file. The format is checked first: a later version may change all else."""
    keys = list(metadata) if isinstance(metadata, dict) else []
    if (kind := next((_OTHER_KINDS[key] for key in keys if key in _OTHER_KINDS), None)) is not None:
        raise BundleFormatError(f"this is {kind}")
    if keys != [KEY] or not isinstance(metadata[KEY], str):
        raise BundleFormatError(f"header metadata must hold exactly the string {KEY!r}")
    text = metadata[KEY]
    version = text.partition(" ")[0]
    if version.startswith("seedcnn-delta/") and not wanted.startswith("seedcnn-delta/"):
        raise BundleFormatError("this is a delta, not a bundle: `seedcnn apply` makes one of it and its parent")
    if version.startswith("seedcnn-bundle/") and not wanted.startswith("seedcnn-bundle/"):
        raise BundleFormatError("this is a bundle, not a delta")
    if version != wanted:
        kind = wanted.partition("/")[0].removeprefix("seedcnn-")
        raise BundleFormatError(f"{kind} format is {version!r:.80}; this version of seedcnn reads {wanted!r}")
    found = _FACTS.fullmatch(text)
    if found is None:
        raise BundleFormatError(f"header metadata {KEY!r} is {text!r:.120}; it must be a format, two sizes, a SHA-256")
    size = int(found[2])
    if not 1 <= size <= MAX_MANIFEST_BYTES:
        raise BundleFormatError(f"manifest has {size} bytes; 1 to {MAX_MANIFEST_BYTES} are allowed")
    return version, size, int(found[3]), found[4]


def _parse_header(text: bytes, wanted: str) -> tuple[tuple[str, int, int, str], dict[str, tuple[int, int]]]:
    header = load_json(text, "header")
    try:
        if compact_json(header) != text.rstrip(b" "):
            raise BundleFormatError("header is not compact JSON followed by spaces")
    except UnicodeEncodeError:
        raise BundleFormatError("header holds a surrogate, which UTF-8 cannot carry") from None
    facts = _facts_of(header.pop(_METADATA, None), wanted)
    if BYTES not in header:
        raise BundleFormatError(f"the file has no payload {BYTES!r}")
    return facts, {name: _parse_entry(name, entry) for name, entry in header.items()}


def read_container(data: bytes, wanted: str) -> Container:
    """Parse a file held in memory and check the digest of its payloads, which are views into ``data``, not copies.

    Args:
        wanted: the format, such as ``seedcnn-bundle/1``.

    Raises:
        BundleFormatError: if the file is truncated, malformed, of another format or over a cap, or has gaps, overlaps
            or trailing bytes.
        DigestError: if the payloads do not match their digest.
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
    (version, size, head, digest), entries = _parse_header(data[8 : 8 + length], wanted)
    body = memoryview(data)[8 + length :]
    expected = 0
    for name in sorted(entries, key=lambda name: entries[name]):
        begin, end = entries[name]
        if begin != expected:
            raise BundleFormatError(
                f"payload {name!r} starts at {begin}, not {expected}: no gap and no overlap is allowed"
            )
        expected = end
    if expected != len(body):
        raise BundleFormatError(f"payloads end at {expected} but the file holds {len(body)} bytes of them")
    if head > entries[BYTES][1] - entries[BYTES][0]:
        raise BundleFormatError(f"manifest and graph take {head} bytes, more than payload {BYTES!r} has")
    if hashlib.sha256(body).hexdigest() != digest:
        raise DigestError("the stored bytes do not match their digest")
    return Container(version, size, head, {name: body[begin:end] for name, (begin, end) in entries.items()})
