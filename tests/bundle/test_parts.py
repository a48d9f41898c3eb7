"""The bytes of a bundle by part add up to its size, and the fixed part is small."""

from __future__ import annotations

import numpy as np
import pytest

from seedcnn.bundle import encode_grid, encode_raw, grid_of_step, read_bundle
from seedcnn.bundle.compression import STORAGES
from seedcnn.bundle.integers import store_integers
from seedcnn.bundle.parts import alone, sizes_by_part
from seedcnn.pack.sizes import other_storages
from tests.bundle.bundles import tiny_bundle, tiny_tensors


@pytest.mark.parametrize("storage", STORAGES)
def test_the_parts_add_up(storage):
    data = tiny_bundle(compression=storage)
    found = sizes_by_part(read_bundle(data))
    assert sum(found.values()) == len(data)
    assert min(found.values()) > 0
    assert (found["vectors"], found["floats"]) == (2 * 2 * 3, 20 + 10 + 10)


@pytest.mark.parametrize("tensors", [[], tiny_tensors()[:1], tiny_tensors()[1:2], tiny_tensors()[7:]], ids=len)
def test_parts_that_are_not_there(tensors):
    tensors = [each for each in tensors if not each.entry.role]
    data = tiny_bundle(tensors=tensors)
    found = sizes_by_part(read_bundle(data))
    assert sum(found.values()) == len(data)
    assert (found["weights"] > 0) == any(each.integers is not None for each in tensors)


def test_each_tensor_alone():
    bundle = read_bundle(tiny_bundle())
    found = alone(bundle)
    assert list(found) == [entry.name for entry in bundle.manifest.tensors]
    assert (found["head.bias"], found["norm.half"], found["conv.phase"]) == (20, 10, 0)
    assert 20 < found["conv.weight"] < 80


def test_the_other_storages_are_what_they_would_be():
    data = tiny_bundle()
    assert other_storages(data) == {
        f"this bundle, {name}": len(data) - len(read_bundle(data).stored.integers) + _size(name)
        for name in ("zstd", "zlib", "xz")
    }
    assert other_storages(tiny_bundle(tensors=[encode_raw("a", [1.0])])) == {}


def _size(storage):
    coded = [each for each in tiny_tensors() if each.integers is not None]
    return len(store_integers([(each.integers, each.entry.width) for each in coded], storage))


def test_names_and_digests_take_few_bytes():
    """Twenty tensors more, with long names, take little more than their integers."""
    rng = np.random.default_rng(0)
    names = [f"stages.{i // 4}.{i % 4}.conv{1 + i % 2}.weight" for i in range(20)]
    some = [encode_grid(name, rng.laplace(0, 1, (16, 16, 3, 3)), grid_of_step(1)) for name in names]
    graph = b"".join(f"a node that reads {name}; ".encode() for name in names)
    sizes = [sizes_by_part(read_bundle(tiny_bundle(tensors=each, graph=graph))) for each in (some[:1], some)]
    assert sizes[1]["manifest"] + sizes[1]["graph"] - sizes[0]["manifest"] - sizes[0]["graph"] < 20 * 16
