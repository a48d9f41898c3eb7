"""Valid payloads in the wrong place, and valid parts of two bundles combined."""

from __future__ import annotations

import numpy as np

from seedcnn.bundle import encode_raw
from seedcnn.bundle.container import read_container
from tests.bundle.bundles import tiny_bundle, with_manifest, with_payloads


def _two() -> bytes:
    return tiny_bundle(tensors=[encode_raw("a", np.ones(4)), encode_raw("b", np.zeros(4))])


def test_two_tensors_of_one_shape(refused):
    def swap(payloads):
        payloads["a"], payloads["b"] = payloads["b"], payloads["a"]

    refused(with_payloads(_two(), swap), "'a': the stored bytes do not match")


def test_two_entries_of_the_manifest(refused):
    def swap(manifest):
        one, two = manifest["tensors"]
        one["name"], two["name"] = two["name"], one["name"]

    refused(with_manifest(_two(), swap), "the stored bytes do not match")


def test_a_frame_and_the_graph(tiny, refused):
    def swap(payloads):
        payloads["conv.weight"], payloads["graph.onnx"] = payloads["graph.onnx"], payloads["conv.weight"]

    refused(with_payloads(tiny, swap), "the stored bytes do not match")


def test_payloads_of_another_release(tiny, refused):
    other = tiny_bundle(canned_logits=np.ones((2, 3)), graph=b"another graph", tensors=_shifted())
    for name in ("head.bias", "conv.weight", "graph.onnx", "canned.logits"):
        payload = read_container(other).payloads[name]
        refused(with_payloads(tiny, lambda p, n=name, v=payload: p.update({n: v})), "do not match their digest")


def _shifted():
    from seedcnn.bundle import encode_grid, grid_of_step
    from tests.bundle.bundles import tiny_tensors

    raw, small, wide, *others = tiny_tensors()
    return [
        encode_raw(raw.entry.name, raw.expanded + 1),
        encode_grid(small.entry.name, small.expanded + np.float32(0.05), grid_of_step(0.05)),
        wide,
        *others,
    ]


def test_another_seed_step_or_range(tiny, refused):
    for index, name, value in [
        (3, "seed", "000000000000feee"),
        (3, "tensor_id", 0),
        (3, "stream", 1),
        (3, "lo_q", -8388609),
        (3, "span_q", 1 << 20),
        (3, "frac_bits", 22),
        (1, "step_mantissa", 1),
        (2, "step_exponent", 0),
    ]:
        change = {name: value}
        data = with_manifest(tiny, lambda m, i=index, c=change: m["tensors"][i].update(c))
        refused(data, "the expanded values do not match their digest")
