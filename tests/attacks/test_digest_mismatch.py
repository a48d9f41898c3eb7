"""Every digest of a bundle, wrong by a digit: each is checked, and the error says which one failed."""

from __future__ import annotations

import pytest

from seedcnn.bundle import read_bundle
from seedcnn.errors import DigestError
from tests.bundle.bundles import explore, with_header, with_manifest


def _digit(place, name):
    place[name] = ("1" if place[name][0] != "1" else "2") + place[name][1:]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (("tensors_sha256",), "the expanded values of the tensors do not match their digest"),
        (("graph", "sha256"), "graph: the decompressed bytes do not match their digest"),
        (("canned", "sha256"), "canned vectors: the stored bytes do not match their digest"),
    ],
)
def test_of_the_manifest(tiny, path, words):
    def change(manifest):
        *way, last = path
        for step in way:
            manifest = manifest[step]
        _digit(manifest, last)

    with pytest.raises(DigestError, match=words):
        explore(read_bundle(with_manifest(tiny, change)))


def test_of_the_pictures(tiny):
    from seedcnn.errors import ImageError
    from seedcnn.runtime.pictures import check_canned_pictures

    bundle = read_bundle(with_manifest(tiny, lambda manifest: _digit(manifest["canned"], "pictures_sha256")))
    with pytest.raises(ImageError, match="the canned pictures do not become the bytes that the bundle states"):
        check_canned_pictures(bundle)


def test_of_the_stored_bytes(tiny):
    def change(header):
        facts, _, digest = header["__metadata__"]["seedcnn"].rpartition(" ")
        header["__metadata__"]["seedcnn"] = f"{facts} {'1' if digest[0] != '1' else '2'}{digest[1:]}"

    with pytest.raises(DigestError, match="the stored bytes do not match their digest"):
        read_bundle(with_header(tiny, change))
