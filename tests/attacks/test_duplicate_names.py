"""The same name twice: two readers might pick two different values."""

from __future__ import annotations

import json

from seedcnn.bundle import read_bundle
from tests.bundle.bundles import with_header_text, with_manifest, with_text


def _header_text(data: bytes) -> bytes:
    return data[8 : 8 + int.from_bytes(data[:8], "little")].rstrip(b" ")


def test_in_the_payload_table(tiny, refused):
    text = _header_text(tiny)
    entry = json.loads(text)["f32"]
    twice = text[:-1] + b',"f32":' + json.dumps(entry, separators=(",", ":")).encode() + b"}"
    refused(with_header_text(tiny, twice), "duplicate key")


def test_in_a_payload_entry(tiny, refused):
    refused(
        with_header_text(tiny, _header_text(tiny).replace(b'"dtype":"F32"', b'"dtype":"F32","dtype":"F32"')),
        "duplicate",
    )


def test_the_metadata(tiny, refused):
    text = _header_text(tiny)
    refused(with_header_text(tiny, text[:-1] + b',"__metadata__":{}}'), "duplicate key")


def test_in_the_manifest(tiny, refused):
    text = read_bundle(tiny).manifest.dump().replace(b'"model":"tiny"', b'"model":"tiny","model":"evil"')
    refused(with_text(tiny, text), "duplicate key")


def test_in_the_tensor_table(tiny, refused):
    refused(with_manifest(tiny, lambda m: m["tensors"].append(m["tensors"][0])), "duplicate name")
    refused(with_manifest(tiny, lambda m: m["tensors"].append(m["tensors"][3])), "duplicate name")
    refused(with_manifest(tiny, lambda m: m["tensors"][3].update(name="head.bias")), "duplicate name")
