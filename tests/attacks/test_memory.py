"""Opening a bundle takes the memory that it declares and 16 MB more, whatever its size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from seedcnn.bundle import Seeded, encode_grid, encode_raw, encode_seeded, grid_of_step
from seedcnn.rng import FixedPoint
from tests.attacks.memory import printed
from tests.bundle.bundles import tiny_bundle
from tests.few import few

SPARE = 16 << 20

# A small bundle first, so that imports are not counted.
CHILD = """
import gc, sys
from seedcnn.bundle import open_bundle
small = open_bundle(sys.argv[1])
small.tensors(); small.graph(); small.canned_images(); list(small.canned_pictures())
gc.collect()
before = peak()
bundle = open_bundle(sys.argv[2])
kept = bundle.tensors(), bundle.graph(), bundle.canned_images(), bundle.canned_logits()
print(peak() - before)
manifest = bundle.manifest
print(sum(4 * entry.elements for entry in manifest.tensors) + manifest.graph.size + kept[2].nbytes + bundle.size)
"""


def _tensors(coding: str) -> list:
    shape, tensors = ((512, 512, 3, 3), 5)
    if coding.startswith("one"):
        shape, tensors = ((4000, 3000) if coding == "one tensor" else (1, 12_000_000)), 1
    weights = np.random.default_rng(0).laplace(0, 0.03, shape).astype(np.float32)
    if coding == "seeds":
        count = int(np.prod(shape))
        seeded = [Seeded(i, 1, 2, FixedPoint.from_range(-1, 1), count, 1) for i in range(5)]
        return [encode_seeded(f"w{i}", shape, seed) for i, seed in enumerate(seeded)]
    if coding == "raw":
        return [encode_raw(f"w{i}", weights) for i in range(tensors)]
    coded = encode_grid("w0", weights, grid_of_step(1e-4 if coding == "wide" else 0.01))
    return [replace(coded, entry=replace(coded.entry, name=f"w{i}")) for i in range(tensors)]


@pytest.mark.parametrize("storage", ["entropy", "zlib"])
@pytest.mark.parametrize("coding", few(["narrow", "wide", "one tensor", "one row", "raw", "seeds"], [0, 3, 5]))
def test_the_declared_size_and_sixteen_megabytes(tmp_path, coding, storage):
    """Eleven million weights, as many as in a ResNet-18."""
    small, large = tmp_path / "small.bundle", tmp_path / "large.bundle"
    small.write_bytes(tiny_bundle())
    large.write_bytes(tiny_bundle(tensors=_tensors(coding), compression=storage))
    grown, declared = map(int, printed(CHILD, small, large))
    print(f"{coding}: {grown / 1e6:.1f} MB taken, {declared / 1e6:.1f} MB declared")
    assert declared > 47e6
    assert grown <= declared + SPARE


def test_the_watch_sees_what_is_taken():
    (grown,) = printed("before = peak(); taken = bytearray(64 << 20); print(peak() - before)")
    assert 60 << 20 < int(grown) < 80 << 20
