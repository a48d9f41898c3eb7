"""Writing and opening whole bundles."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from seedcnn.bundle import encode_raw, encode_seeded, open_bundle, read_bundle
from seedcnn.bundle.limits import MAX_FILE_BYTES
from seedcnn.errors import BundleError, BundleFormatError, DigestError
from seedcnn.rng import random_words
from tests.bundle.bundles import tiny_bundle, tiny_tensors


def test_every_coding_comes_back_bit_equal(tiny):
    bundle = read_bundle(tiny)
    expected = {coded.entry.name: coded.expanded for coded in tiny_tensors()}
    tensors = bundle.tensors()
    assert list(tensors) == [coded.entry.name for coded in tiny_tensors() if not coded.entry.role]
    for name, value in tensors.items():
        assert value.dtype == np.float32
        assert value.shape == expected[name].shape
        assert value.tobytes() == expected[name].tobytes()
    assert bundle.graph() == b"not a real graph, but " * 9
    assert bundle.canned_logits().tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert (bundle.size, bundle.sha256) == (len(tiny), hashlib.sha256(tiny).hexdigest())


def test_the_writer_is_deterministic(tiny):
    assert tiny_bundle() == tiny
    assert tiny_bundle(release=4) != tiny


def test_a_seeded_tensor_takes_no_payload():
    coded = tiny_tensors()[3]
    larger = encode_seeded(
        "conv.phase", (50_000,), coded.entry.seeded.__class__(1, 1, 0, coded.entry.seeded.fixed, 50_000, 1)
    )
    assert abs(len(tiny_bundle(tensors=[larger])) - len(tiny_bundle(tensors=[coded]))) < 32


def test_a_scalar_tensor_stays_a_scalar():
    bundle = read_bundle(tiny_bundle(tensors=[encode_raw("scale", np.float32(2.5))]))
    assert bundle.tensors()["scale"].shape == ()
    assert bundle.tensors()["scale"] == np.float32(2.5)


def test_canned_images_are_the_bytes_of_their_seed(tiny):
    images = read_bundle(tiny).canned_images()
    assert images.dtype == np.uint8
    assert images.shape == (2, 4, 4, 3)
    assert images.tobytes() == random_words(77, tensor_id=0, count=24).astype("<u4").tobytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"release": 0}, r"manifest\.release"),
        ({"min_release": 4}, r"manifest\.min_release"),
        ({"labels": []}, r"canned\.logits has shape \(2, 3\); it must be \[count, 0\]"),
        ({"labels": ["cat", "dog"]}, "canned.logits"),
        ({"model": "x" * 257}, r"manifest\.model"),
        ({"graph": b""}, r"manifest\.graph\.size"),
        ({"canned_logits": np.zeros((2, 3, 1), np.float32)}, "canned.logits"),
        ({"canned_logits": np.full((2, 3), np.nan, np.float32)}, "not finite"),
        ({"canned_logits": np.full((2, 3), 1.1), "canned_tolerance": 1e-5}, "a tolerance of 1e-05 is too small"),
        ({"canned_tolerance": -1.0}, r"manifest\.canned\.tolerance_e6"),
        ({"tensors": [encode_raw("a", [1.0]), encode_raw("a", [2.0])]}, "duplicate name"),
        ({"tensors": [encode_raw("empty", np.zeros((0, 3)))]}, r"tensors\[\]\.shape"),
    ],
)
def test_the_writer_returns_nothing_that_it_could_not_read(changes, message):
    with pytest.raises(BundleFormatError, match=message):
        tiny_bundle(**changes)


def test_a_file_is_opened_and_a_damaged_one_is_named(tiny, tmp_path):
    path = tmp_path / "model.bundle"
    path.write_bytes(tiny)
    assert open_bundle(path).sha256 == open_bundle(str(path)).sha256 == hashlib.sha256(tiny).hexdigest()
    path.write_bytes(tiny[:-1])
    with pytest.raises(BundleFormatError, match=r"model\.bundle: payloads end at"):
        open_bundle(path)
    path.write_bytes(tiny[:-1] + bytes([tiny[-1] ^ 1]))
    with pytest.raises(DigestError, match=r"model\.bundle: the stored bytes"):
        open_bundle(path)


@pytest.mark.parametrize("name", ["bytes", "f32", "__metadata__", "seedcnn"])
def test_a_tensor_may_have_any_name(name):
    found = read_bundle(tiny_bundle(tensors=[encode_raw(name, [1.0])])).tensors()
    assert {key: value.tolist() for key, value in found.items()} == {name: [1.0]}


def test_a_file_over_the_cap_is_refused_unread(tmp_path):
    path = tmp_path / "huge.bundle"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(BundleError, match="file has 1073741825 bytes; at most 1073741824"):
        open_bundle(path)


def test_a_file_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_bundle(tmp_path / "absent")
