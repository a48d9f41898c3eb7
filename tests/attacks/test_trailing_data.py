"""Bytes after the end: of the file, of the header, of a frame, of the manifest."""

from __future__ import annotations

import zlib

import pytest

from seedcnn.bundle import read_bundle
from seedcnn.bundle.compression import STORAGES, compress
from seedcnn.bundle.container import FORMAT, read_container
from tests.bundle.bundles import integers_of, tiny_bundle, with_head, with_header_text, with_integers, with_text


@pytest.mark.parametrize("tail", [b"\x00", b"\n", b"PK\x03\x04", bytes(4096)])
def test_after_the_payloads(tiny, refused, tail):
    refused(tiny + tail, "payloads end at")


def test_a_second_bundle(tiny, refused):
    refused(tiny + tiny, "payloads end at")


@pytest.mark.parametrize("tail", [b"\n", b"\t", b"\x00", b"{}", b" {}", b"x"])
def test_after_the_header(tiny, refused, tail):
    text = tiny[8 : 8 + int.from_bytes(tiny[:8], "little")].rstrip(b" ")
    refused(with_header_text(tiny, text + tail), "compact|not JSON")


@pytest.mark.parametrize("head", [b" ", b"\n", b"\xef\xbb\xbf"])
def test_before_the_header(tiny, refused, head):
    text = tiny[8 : 8 + int.from_bytes(tiny[:8], "little")].rstrip(b" ")
    refused(with_header_text(tiny, head + text), "compact|not JSON")


@pytest.mark.parametrize("tail", [b"\x00", compress(b""), compress(b"more"), b"\x50\x2a\x4d\x18\x01\x00\x00\x00!"])
@pytest.mark.parametrize("storage", STORAGES)
def test_after_the_integers(refused, storage, tail):
    data = tiny_bundle(compression=storage)
    refused(with_integers(data, integers_of(data) + tail), "exactly 81 bytes|does not end where its values do")


@pytest.mark.parametrize("tail", [b"\x00", zlib.compress(b"more")])
def test_after_the_graph(tiny, refused, tail):
    head = bytes(read_container(tiny, FORMAT).head)
    refused(with_head(tiny, head + tail), "the graph does not decompress to exactly 198 bytes")


@pytest.mark.parametrize("tail", [b" ", b"\n", b"{}", b"x"])
def test_after_the_manifest(tiny, refused, tail):
    refused(with_text(tiny, read_bundle(tiny).manifest.dump() + tail), "canonical form|not JSON")
