"""A few bytes that ask for a lot: huge lengths, deep nesting, endless tables."""

from __future__ import annotations

import struct
import tracemalloc

import pytest

from seedcnn.bundle import read_bundle
from seedcnn.bundle.container import FORMAT, read_container
from seedcnn.errors import BundleError
from tests.bundle.bundles import with_head, with_header, with_header_text, with_manifest, with_text


@pytest.mark.parametrize("length", [(8 << 20) + 8, 1 << 31, 1 << 32, 1 << 62, 2**63, 2**64 - 8, 2**64 - 1])
def test_a_length_over_the_cap_is_refused_without_allocating(tiny, length):
    tracemalloc.start()
    with pytest.raises(BundleError, match=r"header length is .* at most 8388608"):
        read_bundle(struct.pack("<Q", length) + tiny[8:])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("length", [0, 8, 1 << 20, 8 << 20])
def test_a_length_that_lies(tiny, refused, length):
    refused(struct.pack("<Q", length) + tiny[8:], "truncated|not JSON")


@pytest.mark.parametrize("text", [b"[" * 200_000, b'{"a":' * 200_000, b'{"__metadata__":' + b"[" * 200_000])
def test_deep_nesting_in_the_header(tiny, refused, text):
    refused(with_header_text(tiny, text), "header is not JSON")


def test_nesting_that_closes(tiny, refused):
    refused(with_header_text(tiny, b'{"a":' + b"[" * 900 + b"]" * 900 + b"}"), "metadata|compact|not JSON")


@pytest.mark.parametrize(
    "text", [b'{"a":' + b"[" * 200_000, b'{"a":' * 200_000, b'{"a":' + b"[" * 50 + b"]" * 50 + b"}"]
)
def test_deep_nesting_in_the_manifest(tiny, refused, text):
    refused(with_text(tiny, text), "manifest is not JSON|deeper than 8")


def test_a_manifest_over_the_cap(tiny, refused):
    text = b'{"a":"' + b"x" * (4 << 20) + b'"}'
    refused(with_text(tiny, text), "manifest has 4194312 bytes; 1 to 4194304 are allowed")


@pytest.mark.parametrize("by", [-1, 1, 1 << 20])
def test_a_manifest_of_another_size(tiny, refused, by):
    bundle = read_container(tiny, FORMAT)
    refused(with_head(tiny, bytes(bundle.head), bundle.manifest_size + by), "not JSON|does not decompress")


def test_no_manifest(tiny, refused):
    refused(with_head(tiny, b"", 1), "not a zlib stream with the dictionary of this format")
    refused(with_head(tiny, bytes(read_container(tiny, FORMAT).head), 0), "manifest has 0 bytes")


def test_too_many_payloads(tiny, refused):
    entry = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    refused(with_header(tiny, lambda h: h.update({f"p{i}": entry for i in range(16_384)})), "has a payload 'p")


def test_too_many_tensors(tiny, refused):
    small = {"count": 1, "shape": [1], "repeat": 1}
    many = [{"name": f"t{i}"} for i in range(8000)]
    assert len(many) < 16_384
    refused(with_manifest(tiny, lambda m: m["tensors"].extend(m["tensors"][3] | small | t for t in many)), "digest")


@pytest.mark.parametrize("text", [b'{"a":' + b"9" * 5000 + b"}", b'{"a":-' + b"9" * 3000 + b"}", b'{"a":1e999999999}'])
def test_endless_numbers(tiny, refused, text):
    refused(with_header_text(tiny, text), "not JSON|metadata|number 1e")


def test_a_name_over_the_cap(tiny, refused):
    for name in ("n" * 257, "é" * 129):
        data = with_manifest(tiny, lambda m, name=name: m["tensors"][0].update(name=name))
        refused(data, r"tensors\[\]\.name must be a string of at most 256 bytes")


@pytest.mark.parametrize(
    "text", [b'{"\\ud800":1}', b'{"__metadata__":{"seedcnn":"\\udfff"}}', b'{"a":"\xff"}', b"\x00"]
)
def test_text_that_is_not_unicode(tiny, refused, text):
    refused(with_header_text(tiny, text), "surrogate|not JSON")
