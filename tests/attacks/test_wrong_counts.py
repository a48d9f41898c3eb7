"""Wrong counts: of draws, images, labels, sizes and changes."""

from __future__ import annotations

import pytest

from seedcnn.bundle.delta import apply_delta, read_delta
from seedcnn.errors import BundleError
from tests.bundle.bundles import with_manifest
from tests.bundle.deltas import setting, signed

SEEDED = 3  # of the tensors of the tiny bundle


@pytest.mark.parametrize("change", [{"count": 4}, {"count": 6}, {"repeat": 2}, {"repeat": 0}, {"count": 0}], ids=str)
def test_draws_that_do_not_fill_the_tensor(tiny, refused, change):
    refused(with_manifest(tiny, lambda m: m["tensors"][SEEDED].update(change)), "count|repeat|draws")


@pytest.mark.parametrize("count", [0, 1, 3, 64, 65, 1 << 40])
def test_images_that_are_not_as_many_as_their_logits(tiny, refused, count):
    refused(with_manifest(tiny, lambda m: m["canned"].update(count=count)), "canned|stream of integers")


@pytest.mark.parametrize("labels", [["cat"], ["cat", "dog"], ["a", "b", "c", "d"], []])
def test_labels_that_are_not_as_many_as_the_logits(tiny, refused, labels):
    refused(with_manifest(tiny, lambda m: m.update(labels=labels)), "labels|canned|stream of integers")


@pytest.mark.parametrize("by", [-1, 1])
def test_a_graph_of_another_size(tiny, refused, by):
    def change(manifest):
        manifest["graph"]["size"] += by

    refused(with_manifest(tiny, change), "graph")


@pytest.mark.parametrize("shape", [[3, 4], [3, 6], [5, 3, 1, 2], [16]], ids=str)
@pytest.mark.parametrize("index", [0, 1, 2])
def test_integers_that_are_not_as_many_as_the_values(tiny, refused, index, shape):
    refused(with_manifest(tiny, lambda m: m["tensors"][index].update(shape=shape)), "stream of integers|tensors")


def test_changes_of_tensors_that_are_not_there(parent, delta):
    opened = read_delta(signed(delta, setting("tensors", 0, "index", 99)))
    with pytest.raises(BundleError, match="changes tensor 99; its parent has 4 tensors"):
        apply_delta(parent, opened)


@pytest.mark.parametrize("index", [1, 2, 3])
def test_changes_of_a_tensor_of_another_size(parent, delta, index):
    with pytest.raises(BundleError, match=r"stream of integers|not on a grid|each once"):
        apply_delta(parent, read_delta(signed(delta, setting("difference-i8", [index]))))
