"""Bytes after the end: of the file, of the header, of a frame, of the manifest."""

from __future__ import annotations

import hashlib

import pytest

from seedcnn.bundle.codings import compress
from seedcnn.bundle.container import Payload, read_container, write_container
from tests.bundle.bundles import with_header_text, with_manifest, with_payloads


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
def test_after_a_frame(tiny, refused, tail):
    frame = bytes(read_container(tiny).payloads["graph.onnx"].data) + tail
    data = with_payloads(tiny, lambda p: p.update({"graph.onnx": Payload.of_bytes(frame)}))
    digest = hashlib.sha256(frame).hexdigest()
    refused(with_manifest(data, lambda m: m["graph"].update(coded_sha256=digest)), "exactly 198 bytes")


@pytest.mark.parametrize("tail", [b" ", b"\n", b"{}", b"x"])
def test_after_the_manifest(tiny, refused, tail):
    container = read_container(tiny)
    refused(write_container(container.manifest + tail, container.payloads), "canonical form|not JSON")
