"""A few bytes that ask for a lot: huge lengths, deep nesting, endless tables."""

from __future__ import annotations

import struct
import tracemalloc

import pytest

from seedcnn.bundle import read_bundle
from seedcnn.bundle.container import write_container
from seedcnn.errors import BundleError
from tests.bundle.bundles import with_header, with_header_text, with_manifest


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
def test_deep_nesting_in_the_manifest(refused, text):
    refused(write_container(text, {}), "manifest is not JSON|deeper than 8")


def test_a_manifest_over_the_cap(refused):
    refused(write_container(b'{"a":"' + b"x" * (4 << 20) + b'"}', {}), "manifest has 4194312 bytes; at most 4194304")


def test_too_many_payloads(tiny, refused):
    entry = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    refused(with_header(tiny, lambda h: h.update({f"p{i}": entry for i in range(16_384)})), "at most 16384")


def test_too_many_tensors(tiny, refused):
    small = {"count": 1, "shape": [1], "repeat": 1}
    many = [{"name": f"t{i}"} for i in range(8000)]
    assert len(many) < 16_384
    refused(with_manifest(tiny, lambda m: m["tensors"].extend(m["tensors"][3] | small | t for t in many)), "digest")


@pytest.mark.parametrize("text", [b'{"a":' + b"9" * 5000 + b"}", b'{"a":-' + b"9" * 3000 + b"}", b'{"a":1e999999999}'])
def test_endless_numbers(tiny, refused, text):
    refused(with_header_text(tiny, text), "not JSON|metadata|number 1e")


def test_a_name_over_the_cap(tiny, refused):
    refused(with_header(tiny, lambda h: h.update({"n" * 257: h.pop("head.bias")})), "at most 256 bytes")
    refused(with_header(tiny, lambda h: h.update({"é" * 129: h.pop("head.bias")})), "at most 256 bytes")


@pytest.mark.parametrize(
    "text", [b'{"\\ud800":1}', b'{"__metadata__":{"seedcnn.manifest":"\\udfff"}}', b'{"a":"\xff"}', b"\x00"]
)
def test_text_that_is_not_unicode(tiny, refused, text):
    refused(with_header_text(tiny, text), "surrogate|not JSON")
