"""Bytes outside all payloads, and payloads or bytes that no tensor takes, which could hide something."""

from __future__ import annotations

import pytest

from tests.bundle.bundles import integers_of, with_header, with_integers, with_manifest, with_payloads


@pytest.mark.parametrize("name", ["f32", "f16", "bytes"])
def test_a_payload_left_out_of_the_header(tiny, refused, name):
    refused(with_header(tiny, lambda h: h.pop(name)), "no gap and no overlap|payloads end at|has no payload 'bytes'")


def test_an_empty_header_over_a_full_file(tiny, refused):
    def change(header):
        for name in [name for name in header if name not in ("__metadata__", "bytes")]:
            del header[name]
        header["bytes"].update(shape=[0], data_offsets=[0, 0])

    refused(with_header(tiny, change), "payloads end at 0 but")


def test_bytes_inserted_between_payloads(tiny, refused):
    def change(header):
        begin, end = header["bytes"]["data_offsets"]
        header["bytes"]["data_offsets"] = [begin + 16, end + 16]

    shifted = with_header(tiny, change)
    body = 8 + int.from_bytes(shifted[:8], "little")
    refused(shifted[: body + 40] + bytes(16) + shifted[body + 40 :], "starts at 56, not 40")


def test_a_payload_of_another_name(tiny, refused):
    def change(header):
        header["extra"] = header.pop("f16")

    refused(with_header(tiny, change), "the file has a payload 'extra'; it must be one of f32, bf16, f16, bytes")


@pytest.mark.parametrize("name", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("by", [-2, 2])
def test_more_or_fewer_floats_than_the_tensors_take(tiny, refused, name, by):
    def change(payloads):
        payloads[name] = payloads[name][: 2 * by] if by < 0 else payloads[name] + bytes(2 * by)

    refused(with_payloads(tiny, change), f"payload '{name}' has [0-9]+ bytes; the tensors take [12]0")


@pytest.mark.parametrize("name", ["f32", "f16", "bf16"])
def test_no_floats_where_the_tensors_take_some(tiny, refused, name):
    refused(with_payloads(tiny, lambda payloads: payloads.pop(name)), f"payload '{name}' has 0 bytes")


def test_an_empty_payload_of_floats(refused):
    from tests.bundle.bundles import tiny_bundle, tiny_tensors

    data = tiny_bundle(tensors=tiny_tensors()[1:4])
    empty = {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]}
    refused(with_header(data, lambda header: header.update(f16=empty)), "payload 'f16' has 0 bytes")


def test_no_tensor_at_all_leaves_floats_over(tiny, refused):
    refused(with_manifest(tiny, lambda m: m.update(tensors=[])), "payload 'f32' has 20 bytes; the tensors take 0")


def test_integers_without_a_tensor_on_a_grid(refused):
    from tests.bundle.bundles import tiny_bundle, tiny_tensors

    data = tiny_bundle(tensors=[tiny_tensors()[3]])
    assert integers_of(data) == b""
    refused(with_integers(data, b"x"), "the stream of integers has 1 bytes, but no tensor is on a grid")
