"""Deltas: they make a bundle of the published content, or nothing."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from seedcnn.bundle import encode_grid, encode_raw, encode_seeded, read_bundle
from seedcnn.bundle.codings import encode_integers
from seedcnn.bundle.delta import apply_delta, read_delta, write_delta
from seedcnn.errors import BundleError
from tests.bundle.bundles import explore, tiny_bundle, with_manifest
from tests.bundle.deltas import BODY, GRID, bundle, tensors


@pytest.fixture(scope="module")
def parent():
    return read_bundle(bundle(3))


@pytest.fixture(scope="module")
def child():
    return read_bundle(bundle(4, 0.02))


@pytest.fixture(scope="module")
def delta(parent, child) -> bytes:
    return write_delta(parent, child)


def names(parent, opened):
    """Name and coding of every change."""
    return [(parent.manifest.tensors[change.index].name, change.coding) for change in opened.tensors]


def test_a_delta_makes_what_was_published(parent, child, delta):
    made = read_bundle(apply_delta(parent, read_delta(delta)))
    explore(made)
    assert made.manifest.content_sha256() == child.manifest.content_sha256() != parent.manifest.content_sha256()
    for name, value in child.tensors().items():
        assert made.tensors()[name].tobytes() == value.tobytes()
    assert made.graph() == child.graph()
    assert made.canned_logits().tobytes() == child.canned_logits().tobytes()
    assert (made.manifest.release, made.manifest.labels) == (4, child.manifest.labels)


def test_a_delta_holds_what_changed_only(parent, child, delta):
    opened = read_delta(delta)
    assert names(parent, opened) == [("body.weight", "difference-i8"), ("head.bias", "raw-f32")]
    assert len(delta) < child.size / 2
    assert (opened.size, opened.sha256) == (len(delta), hashlib.sha256(delta).hexdigest())


@pytest.mark.parametrize("storage", ["zstd", "zlib", "xz"])
def test_other_storages(parent, storage):
    old = read_bundle(bundle(3, compression=storage))
    assert old.manifest.content_sha256() == parent.manifest.content_sha256()
    new = read_bundle(bundle(4, 0.02, compression=storage))
    opened = read_delta(write_delta(old, new, compression=storage))
    assert (opened.integers, opened.tensors[0].coding) == (storage, "difference-i8")
    # The delta applies to every bundle with its parent's content, however it is stored.
    for place in (old, parent):
        assert read_bundle(apply_delta(place, opened)).manifest.content_sha256() == new.manifest.content_sha256()


def test_deltas_chain(parent, child):
    third = read_bundle(bundle(5, 0.04, seed=1))
    first = read_delta(write_delta(parent, child))
    second = read_delta(write_delta(child, third))
    made = read_bundle(apply_delta(read_bundle(apply_delta(parent, first)), second))
    assert made.manifest.content_sha256() == third.manifest.content_sha256()
    with pytest.raises(BundleError, match=f"applies to the bundle with content {second.parent}; this one has"):
        apply_delta(parent, second)
    skipping = read_delta(write_delta(parent, third))
    assert read_bundle(apply_delta(parent, skipping)).manifest.content_sha256() == third.manifest.content_sha256()


def test_a_tensor_that_changes_much_travels_as_a_whole(parent):
    changed = tensors()
    values = np.random.default_rng(2).standard_normal(BODY) * 0.1
    changed[0] = encode_grid("body.weight", values, GRID)
    opened = read_delta(write_delta(parent, read_bundle(tiny_bundle(tensors=changed, release=4))))
    assert names(parent, opened) == [("body.weight", "grid-i8")]


def test_a_tensor_on_another_grid_travels_as_a_whole(parent):
    new = read_bundle(bundle(4, 0.02, step=0.007))
    opened = read_delta(write_delta(parent, new))
    assert opened.tensors[0].coding == "grid-i8"
    assert read_bundle(apply_delta(parent, opened)).manifest.content_sha256() == new.manifest.content_sha256()


def test_a_new_seed_takes_no_payload(parent):
    changed = tensors()
    changed[3] = encode_seeded("body.mask", (64, 9), replace(changed[3].entry.seeded, seed=6))
    new = read_bundle(tiny_bundle(tensors=changed, release=4))
    opened = read_delta(write_delta(parent, new))
    assert names(parent, opened) == [("body.mask", "seedcnn-rng/1")]
    assert read_bundle(apply_delta(parent, opened)).manifest.content_sha256() == new.manifest.content_sha256()


def test_a_release_that_changes_nothing_else(parent):
    opened = read_delta(write_delta(parent, read_bundle(bundle(4))))
    assert opened.tensors == ()
    assert read_bundle(apply_delta(parent, opened)).manifest.release == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"release": 3}, "not from 3 to 3"),
        ({"release": 2}, "not from 3 to 2"),
        ({"labels": ["cat", "dog", "cow"]}, "differ in labels"),
        ({"graph": b"another", "family": "other"}, "differ in family, graph"),
        ({"model": "other"}, "differ in model"),
    ],
)
def test_bundles_that_are_no_parent_and_child(parent, options, words):
    with pytest.raises(BundleError, match=words):
        write_delta(parent, read_bundle(bundle(**{"release": 4} | options)))


def test_a_parent_of_another_architecture(parent):
    with pytest.raises(BundleError, match="differ in the names or shapes of their tensors"):
        write_delta(parent, read_bundle(tiny_bundle(release=4)))


def test_differences_beyond_16_bits_travel_as_a_whole():
    q = np.zeros((4, 9), np.int16)
    q[1, 2], other = 32767, q.copy()
    other[1, 2] = -32767
    coded = [[encode_integers("w", each, GRID)] for each in (q, other)]
    old, new = (read_bundle(tiny_bundle(tensors=coded[i], release=3 + i)) for i in (0, 1))
    opened = read_delta(write_delta(old, new))
    assert names(old, opened) == [("w", "grid-i16")]
    assert read_bundle(apply_delta(old, opened)).tensors()["w"].tobytes() == new.tensors()["w"].tobytes()


def test_raw_tensors_of_every_precision():
    values = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    codings = ("raw-f32", "raw-f16", "raw-bf16", "raw-f16")
    both = [[encode_raw(str(i), values + i + s, coding) for i, coding in enumerate(codings)] for s in (0, 1)]
    old, new = (read_bundle(tiny_bundle(tensors=both[s], release=3 + s)) for s in (0, 1))
    made = read_bundle(apply_delta(old, read_delta(write_delta(old, new))))
    assert {name: value.tobytes() for name, value in made.tensors().items()} == {
        name: value.tobytes() for name, value in new.tensors().items()
    }


def test_a_damaged_parent_makes_nothing(parent, delta):
    damaged = read_bundle(with_manifest(bundle(3), lambda manifest: manifest.update(integers="zlib")))
    assert damaged.manifest.content_sha256() == parent.manifest.content_sha256()
    with pytest.raises(BundleError, match="stream of integers"):
        apply_delta(damaged, read_delta(delta))
