"""Bytes outside all payloads, and payloads outside the manifest, which could hide something."""

from __future__ import annotations

from seedcnn.bundle.container import Payload
from tests.bundle.bundles import with_header, with_manifest, with_payloads


def test_a_payload_left_out_of_the_header(tiny, refused):
    for name in ("head.bias", "conv.weight", "graph.onnx"):
        refused(with_header(tiny, lambda h, name=name: h.pop(name)), "no gap and no overlap|payloads end at")


def test_an_empty_header_over_a_full_file(tiny, refused):
    def change(header):
        for name in [name for name in header if name != "__metadata__"]:
            del header[name]

    refused(with_header(tiny, change), "payloads end at 0 but")


def test_bytes_inserted_between_payloads(tiny, refused):
    def change(header):
        for name, entry in header.items():
            if name != "__metadata__" and entry["dtype"] == "U8":
                entry["data_offsets"] = [offset + 16 for offset in entry["data_offsets"]]

    shifted = with_header(tiny, change)
    body = 8 + int.from_bytes(shifted[:8], "little")
    refused(shifted[: body + 64] + bytes(16) + shifted[body + 64 :], "starts at 80, not 64")


def test_a_payload_that_the_manifest_does_not_name(tiny, refused):
    data = with_payloads(tiny, lambda p: p.update(extra=Payload.of_bytes(b"hello")))
    refused(data, "payloads that the manifest does not name: extra")
    empty = with_payloads(tiny, lambda p: p.update(extra=Payload.of_bytes(b"")))
    refused(empty, "payloads that the manifest does not name: extra")


def test_a_payload_that_is_not_there(tiny, refused):
    for name in ("head.bias", "conv.weight", "graph.onnx", "canned.logits"):
        refused(with_payloads(tiny, lambda p, name=name: p.pop(name)), f"not in the file: {name}")


def test_a_payload_for_a_tensor_that_travels_as_a_seed(tiny, refused):
    data = with_payloads(tiny, lambda p: p.update({"conv.phase": Payload.of_bytes(b"12345678")}))
    refused(data, r"does not name: conv\.phase")


def test_no_tensor_at_all_leaves_payloads_over(tiny, refused):
    refused(
        with_manifest(tiny, lambda m: m.update(tensors=[])),
        r"does not name: conv\.weight, deep\.weight, deep\.weight\.scale, head\.bias",
    )
