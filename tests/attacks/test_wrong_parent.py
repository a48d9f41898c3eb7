"""A valid delta for another bundle: refused before anything is changed."""

from __future__ import annotations

import pytest

from seedcnn.bundle import read_bundle
from seedcnn.bundle.delta import apply_delta, read_delta, write_delta
from seedcnn.errors import BundleError
from tests.bundle.bundles import tiny_bundle
from tests.bundle.deltas import bundle

REFUSED = "the delta applies to the bundle with content"


def test_the_delta_of_the_release_before(parent, delta):
    later = read_bundle(apply_delta(parent, read_delta(delta)))
    with pytest.raises(BundleError, match=REFUSED):
        apply_delta(later, read_delta(delta))


def test_a_link_of_the_chain_left_out(parent):
    releases = [read_bundle(bundle(release, 0.01 * release, seed=release)) for release in (4, 5, 6)]
    second = write_delta(releases[1], releases[2])
    with pytest.raises(BundleError, match=REFUSED):
        apply_delta(releases[0], read_delta(second))


@pytest.mark.parametrize(
    "options",
    [
        {"change": 0.01},
        {"labels": ["cat", "dog", "cow"]},
        {"min_release": 2},
        {"family": "other"},
        {"model": "other"},
        {"graph": b"another"},
        {"step": 0.012},
    ],
    ids=str,
)
def test_a_parent_of_the_same_release_that_says_something_else(delta, options):
    with pytest.raises(BundleError, match=REFUSED):
        apply_delta(read_bundle(bundle(3, **options)), read_delta(delta))


def test_another_network(delta):
    with pytest.raises(BundleError, match=REFUSED):
        apply_delta(read_bundle(tiny_bundle(release=3)), read_delta(delta))


@pytest.mark.parametrize("compression", ["zstd", "zlib", "xz"])
def test_the_same_content_in_another_compression_is_the_same_parent(parent, delta, compression):
    made = apply_delta(read_bundle(bundle(3, compression=compression)), read_delta(delta))
    wanted = read_bundle(apply_delta(parent, read_delta(delta))).manifest
    assert read_bundle(made).manifest.content_sha256() == wanted.content_sha256()


def test_a_bundle_is_no_delta_and_a_delta_no_bundle(tiny, delta):
    with pytest.raises(BundleError, match="this is a bundle, not a delta"):
        read_delta(tiny)
    with pytest.raises(BundleError, match="this is a delta, not a bundle"):
        read_bundle(delta)
