"""Payloads that share bytes, in the file or through the manifest."""

from __future__ import annotations

import pytest

from tests.bundle.bundles import with_header, with_manifest

MESSAGE = "no gap and no overlap|payloads end at|dtype and shape say otherwise|aligned"


def test_two_payloads_on_the_same_bytes(tiny, refused):
    def change(header):
        header["head.bias"]["data_offsets"] = [0, 20]
        header["canned.logits"]["data_offsets"] = [0, 24]

    refused(with_header(tiny, change), "no gap and no overlap")


@pytest.mark.parametrize("name", ["head.bias", "canned.logits", "conv.weight", "head.weight", "graph.onnx"])
@pytest.mark.parametrize("shift", [-8, -4, -1, 1, 4, 8])
def test_one_payload_moved(tiny, refused, name, shift):
    def change(header):
        begin, end = header[name]["data_offsets"]
        header[name]["data_offsets"] = [begin + shift, end + shift]

    refused(with_header(tiny, change), MESSAGE + "|an offset is -")


@pytest.mark.parametrize(
    "offsets", [[4, 0], [0], [0, 4, 8], "0,4", 0, None, [0, "4"], [0.0, 4], [True, 5], [0, 10**30]]
)
def test_offsets_that_make_no_sense(tiny, refused, offsets):
    refused(with_header(tiny, lambda h: h["head.bias"].update(data_offsets=offsets)), "head.bias|number 0.0")


def test_one_payload_used_twice_by_the_manifest(tiny, refused):
    def change(manifest):
        manifest["canned"]["payload"] = manifest["graph"]["payload"]

    refused(with_manifest(tiny, change), "uses one payload twice")


def test_a_tensor_that_takes_the_graph(tiny, refused):
    refused(with_manifest(tiny, lambda m: m["tensors"][0].update(name="graph.onnx")), "uses one payload twice")


def test_a_length_that_is_not_aligned(tiny, refused):
    length = int.from_bytes(tiny[:8], "little")
    data = (length + 1).to_bytes(8, "little") + tiny[8 : 8 + length] + b" " + tiny[8 + length :]
    refused(data, "must be a multiple of 8")


def test_floats_that_are_not_aligned(tiny, refused):
    # Floats after bytes: there is no gap, but a float would start at an odd address.
    def change(header):
        spans = sorted(header[name]["data_offsets"] + [name] for name in header if name != "__metadata__")
        odd = next(span for span in spans if (span[1] - span[0]) % 2)
        offset = 0
        for begin, end, name in [odd, *(span for span in spans if span is not odd)]:
            header[name]["data_offsets"] = [offset, offset + end - begin]
            offset += end - begin

    refused(with_header(tiny, change), "which is not aligned")
