"""Deltas: they make a bundle of the published content, or nothing."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nst

from seedcnn.bundle import encode_grid, encode_seeded, read_bundle
from seedcnn.bundle.delta import Sparse, apply_delta, read_delta, write_delta
from seedcnn.bundle.sparse import add_sparse, sparse_difference
from seedcnn.errors import BundleError, BundleFormatError
from tests.bundle.bundles import explore, tiny_bundle
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


INTEGERS = nst.arrays(np.int16, nst.array_shapes(max_dims=3, max_side=9), elements=st.integers(-32767, 32767))


@settings(deadline=None)
@given(st.data())
def test_differences_come_back(data):
    before = data.draw(INTEGERS)
    after = before.copy()
    for _ in range(data.draw(st.integers(0, 4))):
        after.reshape(-1)[data.draw(st.integers(0, before.size - 1))] = data.draw(st.integers(-32767, 32767))
    coded, count = sparse_difference(before, after)
    assert count == int((before != after).sum())
    assert 2 * count <= len(coded) <= 8 * count
    assert (add_sparse(before, coded, count, "t") == after).all()


def test_the_bytes_are_those_of_the_document():
    before = np.zeros(400, np.int16)
    after = before.copy()
    after[[0, 1, 131, 300]] = [1, -1, 200, -32767]
    coded, count = sparse_difference(before, after)
    # gaps 0 0 129 168, differences 1 -1 200 -32767 as 1 2 399 65534
    assert coded == bytes([0, 0, 129, 1, 168, 1, 1, 2, 143, 3, 254, 255, 3])
    assert count == 4


@pytest.mark.parametrize(
    ("data", "count", "words"),
    [
        (b"\x00", 1, "holds 1 numbers; 1 changes take 2"),
        (b"\x00\x01\x00", 1, "holds 3 numbers"),
        (b"\x00\x81", 1, "ends in the middle of a number"),
        (b"\x80", 1, "ends in the middle of a number"),
        (b"\x80\x00\x01", 1, "could be written shorter"),
        (b"\x81\x81\x81\x81\x01\x01", 1, "longer than 4 bytes"),
        (b"\x04\x01", 1, "changes value 4; the tensor has 4"),
        (b"\x00\x03\x01\x01", 2, "changes value 4"),
        (b"\x00\x00", 1, "change by 0"),
        (b"\x00\xfd\xff\x03", 1, "beyond 32767"),
        (b"\x00\xfe\xff\x07", 1, "beyond 32767"),
    ],
)
def test_differences_that_are_refused(data, count, words):
    with pytest.raises(BundleFormatError, match=f"t .*{words}"):
        add_sparse(np.ones((2, 2), np.int16), data, count, "t")


def test_a_delta_makes_what_was_published(parent, child, delta):
    made = read_bundle(apply_delta(parent, read_delta(delta)))
    explore(made)
    assert made.manifest.content_sha256() == child.manifest.content_sha256() != parent.manifest.content_sha256()
    for name, value in child.tensors().items():
        assert made.tensors()[name].tobytes() == value.tobytes()
    assert made.graph() == child.graph()
    assert made.canned_logits().tobytes() == child.canned_logits().tobytes()
    assert (made.manifest.release, made.manifest.labels) == (4, child.manifest.labels)


def test_a_delta_holds_what_changed_only(child, delta):
    opened = read_delta(delta)
    assert [(entry.name, entry.coding) for entry in opened.tensors] == [
        ("body.weight", "sparse-zstd"),
        ("head.bias", "raw-f32"),
    ]
    assert isinstance(opened.tensors[0], Sparse)
    assert 40 < opened.tensors[0].count < 100
    assert len(delta) < child.size / 2
    assert (opened.size, opened.sha256) == (len(delta), hashlib.sha256(delta).hexdigest())


@pytest.mark.parametrize("compression", ["zlib", "xz"])
def test_other_compressions(parent, compression):
    old = read_bundle(bundle(3, compression=compression))
    assert old.manifest.content_sha256() == parent.manifest.content_sha256()
    new = read_bundle(bundle(4, 0.02, compression=compression))
    opened = read_delta(write_delta(old, new, compression=compression))
    assert opened.tensors[0].coding == f"sparse-{compression}"
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
    assert [(entry.name, entry.coding) for entry in opened.tensors] == [("body.weight", "grid-i8-zstd")]


def test_a_tensor_on_another_grid_travels_as_a_whole(parent):
    new = read_bundle(bundle(4, 0.02, step=0.007))
    opened = read_delta(write_delta(parent, new))
    assert opened.tensors[0].coding == "grid-i8-zstd"
    assert read_bundle(apply_delta(parent, opened)).manifest.content_sha256() == new.manifest.content_sha256()


def test_a_new_seed_takes_no_payload(parent):
    changed = tensors()
    changed[3] = encode_seeded("body.mask", (64, 9), replace(changed[3].entry.seeded, seed=6))
    new = read_bundle(tiny_bundle(tensors=changed, release=4))
    opened = read_delta(write_delta(parent, new))
    assert [(entry.name, entry.coding) for entry in opened.tensors] == [("body.mask", "seedcnn-rng/1")]
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
