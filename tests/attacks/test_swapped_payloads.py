"""Valid parts in the wrong place, and valid parts of two bundles combined."""

from __future__ import annotations

import numpy as np

from seedcnn.bundle import encode_grid, encode_raw, grid_of_step, read_bundle
from tests.bundle.bundles import integers_of, tiny_bundle, tiny_tensors, with_integers, with_manifest, with_payloads

WRONG = "expanded values of the tensors do not match their digest"


def test_two_entries_of_the_manifest(refused):
    def swap(manifest):
        one, two = manifest["tensors"]
        manifest["tensors"] = [two, one]

    raw = tiny_bundle(tensors=[encode_raw("a", np.ones(4)), encode_raw("b", np.zeros((2, 1)))])
    other = read_bundle(with_manifest(raw, swap)).manifest  # the same values; that they lie elsewhere is its content
    assert other.content_sha256() != read_bundle(raw).manifest.content_sha256()
    values = np.arange(4.0)
    coded = tiny_bundle(tensors=[encode_grid("a", values, grid_of_step(1)), encode_grid("b", values, grid_of_step(2))])
    refused(with_manifest(coded, swap), WRONG)


def test_floats_of_two_precisions(tiny, refused):
    def swap(payloads):
        payloads["f16"], payloads["bf16"] = payloads["bf16"], payloads["f16"]

    refused(with_payloads(tiny, swap), WRONG + "|not finite")


def _other():
    raw, small, wide, *others = tiny_tensors()
    moved = encode_grid("conv.weight", small.expanded + np.float32(0.05), grid_of_step(0.05))
    return tiny_bundle(tensors=[encode_raw("head.bias", raw.expanded + 1), moved, wide, *others])


def test_parts_of_another_release(tiny, refused):
    from seedcnn.bundle.container import FORMAT, read_container

    other = _other()
    refused(with_integers(tiny, integers_of(other)), WRONG)
    floats = bytes(read_container(other, FORMAT).payloads["f32"])
    refused(with_payloads(tiny, lambda payloads: payloads.update(f32=floats)), WRONG)
    graph = tiny_bundle(graph=b"another graph, but 198 bytes too".ljust(198))
    head, old = (bytes(read_container(data, FORMAT).head) for data in (graph, tiny))
    assert head != old

    def whole(manifest):
        manifest["graph"]["sha256"] = "0" * 64

    refused(with_manifest(tiny, whole), "graph: the decompressed bytes do not match their digest")


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
        refused(with_manifest(tiny, lambda m, i=index, c=change: m["tensors"][i].update(c)), WRONG)
