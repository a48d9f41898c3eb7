"""Every digest of a bundle, wrong by a digit: each is checked, and the error says which one failed."""

from __future__ import annotations

import pytest

from seedcnn.bundle import read_bundle
from seedcnn.errors import DigestError
from tests.bundle.bundles import explore, with_header, with_manifest


def _digit(place, name):
    place[name] = ("1" if place[name][0] != "1" else "2") + place[name][1:]


@pytest.mark.parametrize("name", ["coded_sha256", "expanded_sha256"])
@pytest.mark.parametrize("index", range(6))
def test_of_a_tensor(tiny, index, name):
    entry = read_bundle(tiny).manifest.tensors[index]
    if name == "coded_sha256" and entry.seeded is not None:
        pytest.skip("nothing is stored of a tensor that travels as a seed")
    data = with_manifest(tiny, lambda manifest: _digit(manifest["tensors"][index], name))
    with pytest.raises(DigestError, match=entry.name):
        explore(read_bundle(data))


@pytest.mark.parametrize("name", ["coded_sha256", "sha256"])
def test_of_the_graph(tiny, name):
    with pytest.raises(DigestError, match="graph: the"):
        explore(read_bundle(with_manifest(tiny, lambda manifest: _digit(manifest["graph"], name))))


def test_of_the_canned_vectors(tiny):
    with pytest.raises(DigestError, match="canned vectors"):
        explore(read_bundle(with_manifest(tiny, lambda manifest: _digit(manifest["canned"], "sha256"))))


def test_of_the_manifest(tiny):
    with pytest.raises(DigestError, match="manifest: the text does not match its digest"):
        read_bundle(
            with_header(tiny, lambda header: _digit(header["__metadata__"], "seedcnn.manifest.sha256")),
        )
