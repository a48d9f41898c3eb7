"""A release as a request from Python: the same bundle as by ``pack``, and refusals that name the fields."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from seedcnn.bundle import read_bundle
from seedcnn.bundle.delta import apply_delta, read_delta
from seedcnn.data.sets.named import load_test
from seedcnn.errors import BundleError, ConfigError
from seedcnn.export import BundleInfo
from seedcnn.models import create_model
from seedcnn.pack import PackRequest, Parent, pack, preprocessing_of
from seedcnn.pack.request import _enough


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = create_model("resnet8_cifar", widths=(8, 8, 16), patch=4)
    model.train()(torch.randn(16, 3, 32, 32))  # the norms' statistics
    return model.eval()


def test_the_bundle_is_that_of_pack_and_the_next_release_follows(network, cifar10, tmp_path):
    test = load_test("cifar10")
    info = BundleInfo(
        "small", "f", 3, preprocessing_of(test.mean, test.std), test.test.classes, min_release=1, data="cifar10"
    )
    expected = pack(network, info, cifar10.test_images, cifar10.test_labels, step=0.01)
    found = PackRequest("f", 3, 1, data="cifar10", step=0.01).pack(network, "small")
    assert found.data == expected.data
    measured = read_bundle(found.data).manifest.measured
    assert (measured.data, measured.count, measured.top1) == ("cifar10", 10000, found.after.top1)
    assert found.before.n == 10000
    (tmp_path / "3.bundle").write_bytes(found.data)
    parent = read_bundle(found.data)
    options = {"calibration_pictures": 32, "delta_price": 1e9, "data": "cifar10"}
    child = PackRequest("f", 4, 1, parent=tmp_path / "3.bundle", **options)
    following = child.pack(network, "small")
    made = read_bundle(apply_delta(parent, read_delta(following.delta)))
    assert made.manifest.content_sha256() == read_bundle(following.data).manifest.content_sha256()
    assert made.manifest.release == 4
    assert made.manifest.measured.top1 == pytest.approx(following.after.top1)


class Untouched(nn.Module):
    def forward(self, *_):
        raise AssertionError("the network was run")


def test_a_parent_of_the_other_kind_is_refused_before_data_are_loaded(network, tmp_path):
    info = BundleInfo("small", "f", 3, preprocessing_of((0.5,) * 3, (0.25,) * 3), list("abcdefghij"))
    path, images = tmp_path / "3.bundle", np.zeros((8, 32, 32, 3), np.uint8)
    path.write_bytes(pack(network, info, images, np.arange(8)).data)
    with pytest.raises(
        BundleError, match="the parent, small release 3, has a graph in float32 and the child one in int8"
    ):
        PackRequest("f", 4, parent=path, int8=True, data="never loaded").pack(Untouched(), "small")


def test_a_release_that_does_not_grow_is_refused_before_data_are_loaded(network, tmp_path):
    info = BundleInfo("small", "f", 3, preprocessing_of((0.5,) * 3, (0.25,) * 3), list("abcdefghij"))
    path, images = tmp_path / "3.bundle", np.zeros((8, 32, 32, 3), np.uint8)
    path.write_bytes(pack(network, info, images, np.arange(8)).data)
    for release, family, words in [
        (3, "f", "a delta leads to a later release"),
        (4, "g", "has the family g and the parent f"),
    ]:
        with pytest.raises(BundleError, match=words):
            PackRequest(family, release, parent=path, data="never loaded").pack(Untouched(), "small")


def test_what_a_request_searches_and_quantizes():
    assert PackRequest("f", 1, max_accuracy_drop=0.2).searches
    assert not PackRequest("f", 1, max_accuracy_drop=0.2, step=0.01).searches
    assert not PackRequest("f", 1, max_accuracy_drop=0.2, parent="p").searches
    assert PackRequest("f", 1).searches
    assert PackRequest("f", 1).searched_drop == 0.5
    assert PackRequest("f", 1, max_accuracy_drop=0.2).searched_drop == 0.2
    assert not PackRequest("f", 1, step=0.0).searches
    assert PackRequest("f", 1, int8=True).quantizes
    assert PackRequest("f", 1, force_int8=True).quantizes
    assert not PackRequest("f", 1).quantizes
    assert PackRequest("f", 1).delta_price == Parent.price


def test_few_calibration_images_get_shifted_copies():
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (60, 20, 30, 1), np.uint8), rng.integers(0, 9, 60)
    more, theirs = _enough(images, labels)
    assert more.shape == (60 * 17, 20, 30, 1)
    assert np.array_equal(more[:60], images)
    assert np.array_equal(theirs, np.tile(labels, 17))
    assert len({each.tobytes() for each in more}) == len(more)
    assert len(_enough(images[:3], labels[:3])[0]) == 3 * 25
    many = np.repeat(images, 20, axis=0)
    assert len(_enough(many, np.repeat(labels, 20))[0]) == 1200


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"compression": "lz4"}, "`compression` is 'lz4'; it must be one of entropy, zstd, zlib, xz"),
        ({"target": "tensorrt"}, "`target` is 'tensorrt'; it must be one of onnxruntime"),
        ({"parent": "p", "step": 0.1}, "`parent` brings its own grid; leave `step` out"),
        ({"calibration_pictures": 0}, "`calibration_pictures` is 0; it must be at least 1"),
    ],
    ids=str,
)
def test_requests_that_contradict_themselves(fields, words):
    with pytest.raises(ConfigError, match=words):
        PackRequest("f", 1, **fields)
