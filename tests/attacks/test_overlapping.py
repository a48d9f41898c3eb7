"""Payloads that share bytes, in the file or through the manifest."""

from __future__ import annotations

import pytest

from tests.bundle.bundles import with_header

MESSAGE = "no gap and no overlap|payloads end at|dtype and shape say otherwise|aligned"


def test_two_payloads_on_the_same_bytes(tiny, refused):
    def change(header):
        header["bf16"]["data_offsets"] = [0, 10]
        header["f16"]["data_offsets"] = [0, 10]

    refused(with_header(tiny, change), "no gap and no overlap")


@pytest.mark.parametrize("name", ["f32", "bf16", "f16", "bytes"])
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
    refused(with_header(tiny, lambda h: h["f32"].update(data_offsets=offsets)), "f32|number 0.0")


def test_a_length_that_is_not_aligned(tiny, refused):
    length = int.from_bytes(tiny[:8], "little")
    data = (length + 1).to_bytes(8, "little") + tiny[8 : 8 + length] + b" " + tiny[8 + length :]
    refused(data, "must be a multiple of 8")


def test_floats_that_are_not_aligned(tiny, refused):
    # Floats after bytes: there is no gap, but a float would start at an odd address.
    def change(header):
        spans = sorted(header[name]["data_offsets"] + [name] for name in header if name != "__metadata__")
        odd = next(span for span in spans if span[2] == "bytes")
        assert (odd[1] - odd[0]) % 4
        offset = 0
        for begin, end, name in [odd, *(span for span in spans if span is not odd)]:
            header[name]["data_offsets"] = [offset, offset + end - begin]
            offset += end - begin

    refused(with_header(tiny, change), "which is not aligned")
