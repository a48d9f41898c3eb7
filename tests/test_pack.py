"""Packing: what the grid costs is measured, and a bundle that lost too much is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seedcnn.bundle import read_bundle
from seedcnn.convert import GroupNLConfig
from seedcnn.errors import BundleError, ExportError
from seedcnn.evaluate import accuracy, bundle_predictor
from seedcnn.export import BundleInfo
from seedcnn.pack import pack, preprocessing_of
from seedcnn.train import TrainConfig, TrainData, TrainProgress, train


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small network that has learned the colours of its pictures, and the pictures."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 512)
    colours = np.random.default_rng(99).integers(40, 215, (10, 3))
    images = (colours[labels][:, None, None, :] + rng.integers(-40, 41, (512, 32, 32, 3))).clip(0, 255).astype(np.uint8)
    data = TrainData(images, labels, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    config = TrainConfig(
        model="resnet8_cifar",
        model_options={"widths": (16, 16, 32), "patch": 4},
        convert=GroupNLConfig(normalize="batch"),
        epochs=5,
        batch_size=32,
        lr=0.1,
    )
    path = tmp_path_factory.mktemp("pack") / "a.ckpt"
    model, _ = train(config, data, path, progress=TrainProgress("", 5, 16, quiet=True))
    return model, images, labels


INFO = BundleInfo("small", "tests", 4, preprocessing_of((0.5,) * 3, (0.25,) * 3), list("abcdefghij"), min_release=2)


def test_a_fine_grid_costs_nothing_and_is_smaller(trained):
    model, images, labels = trained
    exact = pack(model, INFO, images, labels, step=None)
    fine = pack(model, INFO, images, labels, step=1 / 512)
    assert exact.before.top1 > 80
    assert exact.drop == 0
    assert exact.grid.max_rel < 1e-5
    assert abs(fine.drop) <= 1
    assert fine.export.max_rel < 1e-5
    assert 2 < fine.bits_per_weight < 16
    assert exact.bits_per_weight == 32
    assert len(fine.data) < len(exact.data)
    manifest = read_bundle(fine.data).manifest
    assert (manifest.release, manifest.min_release, manifest.family) == (4, 2, "tests")
    assert fine.seeded_values == sum(e.elements for e in manifest.tensors if e.seeded) > 0


def test_what_is_reported_is_what_the_bundle_does(trained):
    model, images, labels = trained
    result = pack(model, INFO, images, labels, step=1 / 16)
    found = accuracy(bundle_predictor(read_bundle(result.data)), images, labels)
    assert found.top1 == result.after.top1 == result.on_grid.top1
    assert result.grid.max_rel > 1e-3


def test_too_coarse_a_grid_is_refused(trained):
    model, images, labels = trained
    with pytest.raises(ExportError, match=r"a grid step of 2\.0 costs \d+\.\d+ points .*at most 0\.5 is accepted"):
        pack(model, INFO, images, labels, step=2.0, max_drop=0.5)
    with pytest.raises(BundleError, match="at most 32767"):
        pack(model, INFO, images, labels, step=1e-7)


def test_packing_leaves_the_network_alone(trained):
    model, images, labels = trained
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pack(model, INFO, images[:50], labels[:50], step=1 / 16)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
