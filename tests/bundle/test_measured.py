"""The accuracy that a bundle states: written, read, carried by deltas, refused where it cannot be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from seedcnn.bundle import Measured, apply_delta, read_bundle, read_delta, with_accuracy, write_delta
from seedcnn.errors import BundleFormatError
from tests.bundle.bundles import explore, tiny_bundle, with_manifest
from tests.bundle.c_reader import agree

FOUND = Measured("photos", 351, 400)


def test_a_bundle_states_its_accuracy_and_is_the_same_otherwise():
    plain = read_bundle(tiny_bundle())
    stated = read_bundle(with_accuracy(plain, FOUND))
    explore(stated)
    assert plain.manifest.measured is None
    assert stated.manifest == replace(plain.manifest, measured=FOUND)
    assert stated.stored == plain.stored
    assert stated.manifest.measured.top1 == 87.75
    assert stated.manifest.content_sha256() != plain.manifest.content_sha256()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"correct": 401}, "manifest.measured.correct must be an integer in 0 to 400|correct .*400"),
        ({"correct": -1}, "manifest.measured.correct"),
        ({"count": 0}, "manifest.measured.count"),
        ({"data": "x" * 257}, "manifest.measured.data must be a string of at most 256 bytes"),
        ({"points": 3}, "manifest.measured"),
    ],
    ids=str,
)
def test_an_accuracy_that_cannot_be_is_refused(change, message):
    data = with_accuracy(read_bundle(tiny_bundle()), FOUND)
    changed = with_manifest(data, lambda manifest: manifest["measured"].update(change))
    with pytest.raises(BundleFormatError, match=message):
        read_bundle(changed)


@pytest.mark.parametrize("change", [{}, {"correct": 401}, {"count": 0}, {"data": ""}, {"points": 3}], ids=str)
def test_the_reader_in_c_agrees(reader, tmp_path, change):
    data = with_accuracy(read_bundle(tiny_bundle()), FOUND)
    agree(reader, tmp_path / "changed", with_manifest(data, lambda manifest: manifest["measured"].update(change)))


@pytest.mark.parametrize("before", [None, Measured("", 0, 1)], ids=["none before", "another before"])
@pytest.mark.parametrize("after", [None, FOUND], ids=["none after", "one after"])
def test_a_delta_carries_the_accuracy_of_its_result(before, after):
    def made(release, measured):
        bundle = read_bundle(tiny_bundle(release=release))
        return bundle if measured is None else read_bundle(with_accuracy(bundle, measured))

    parent, result = made(3, before), made(4, after)
    found = read_bundle(apply_delta(parent, read_delta(write_delta(parent, result))))
    assert found.manifest.measured == after
    assert found.manifest.content_sha256() == result.manifest.content_sha256()
