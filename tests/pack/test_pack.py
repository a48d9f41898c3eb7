"""Packing: what the grid costs is measured, and a bundle that lost too much is refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from seedcnn.bundle import read_bundle
from seedcnn.errors import BundleError, ExportError
from seedcnn.evaluate import accuracy, bundle_predictor
from seedcnn.evaluate.equivalence import Equivalence
from seedcnn.latency import Latency
from seedcnn.pack import Int8, pack
from seedcnn.pack.int8 import Int8Result, draw_calibration
from seedcnn.runtime.custom_op import build
from tests.pack.trained import INFO, small_trained


@pytest.fixture(scope="module")
def trained():
    return small_trained()


@pytest.fixture(scope="module")
def fine(trained):
    """The network in steps of 1/512."""
    return pack(trained[0], INFO, *trained[1:], step=1 / 512)


def test_a_fine_grid_costs_nothing_and_is_smaller(trained, fine):
    model, images, labels = trained
    exact = pack(model, INFO, images, labels, step=None)
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


def test_int8_keeps_the_accuracy_and_the_tensors(trained, fine):
    model, images, labels = trained
    int8 = Int8(draw_calibration(images, labels, 64), force=True, rounds=5)
    result = pack(model, INFO, images, labels, step=1 / 512, int8=int8)
    assert abs(result.drop) <= 1
    assert result.export.max_rel < 1e-5
    assert result.int8.calibration == 64
    assert result.int8.runtime == "onnxruntime"
    assert 0 < result.int8.logits.max_rel < 0.1
    assert result.int8.logits.agreement > 97
    found, before = read_bundle(result.data), read_bundle(fine.data)
    assert found.manifest.tensors == before.manifest.tensors
    assert found.manifest.graph != before.manifest.graph
    assert accuracy(bundle_predictor(found), images, labels).top1 == result.after.top1


def test_int8_in_openvino(trained):
    pytest.importorskip("openvino")
    model, images, labels = trained
    int8 = Int8(draw_calibration(images, labels, 32), force=True, rounds=3)
    result = pack(model, INFO, images[:64], labels[:64], target="openvino", max_drop=5, int8=int8)
    assert result.int8.runtime == "openvino"
    assert result.int8.logits.agreement > 95


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler here")
def test_int8_with_the_fused_operator(trained, tmp_path):
    model, images, labels = trained
    library = build(tmp_path / "op.so")
    int8 = Int8(draw_calibration(images, labels, 32), force=True, rounds=3)
    options = {"target": "onnxruntime-custom-op", "max_drop": 5, "int8": int8}
    result = pack(model, INFO, images[:64], labels[:64], libraries=[library], **options)
    assert result.export.max_rel < 1e-5
    assert result.int8.logits.agreement > 95
    with pytest.raises(BundleError, match="which is not loaded"):
        pack(model, INFO, images[:64], labels[:64], **options)


def test_int8_with_too_narrow_ranges_loses_accuracy_and_is_refused(trained):
    """One grey picture says nothing about the ranges of the others."""
    model, images, labels = trained
    grey = np.full((1, 32, 32, 3), 128, np.uint8)
    with pytest.raises(ExportError, match=r"int8 costs \d+\.\d+ points .*at most 1\.0 is accepted: use float32"):
        pack(model, INFO, images, labels, int8=Int8(grey, force=True, rounds=2))


def latency(median):
    return Latency(median, median - 0.1, median + 0.1, 60)


def test_int8_that_is_slower_is_refused_with_both_numbers():
    same = Equivalence(0.1, 0.01, 99.0, 100)
    with pytest.raises(ExportError, match=r"int8 takes 2\.590 ms an image in onnxruntime here and float32 1\.530 ms"):
        Int8Result("onnxruntime", 256, same, latency(1.53), latency(2.59)).require_faster()
    with pytest.raises(ExportError, match="slower"):
        Int8Result("openvino", 256, same, latency(2.0), latency(2.0)).require_faster()
    Int8Result("onnxruntime", 256, same, latency(2.0), latency(1.9)).require_faster()


def test_calibration_pictures_are_drawn_evenly_and_by_the_seed():
    labels = np.repeat(np.arange(4), [3, 50, 50, 50])
    images = np.arange(153, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    drawn = draw_calibration(images, labels, 40)[:, 0, 0, 0]
    assert len(set(drawn)) == 40
    counts = np.bincount(labels[drawn])
    assert counts[0] == 3  # there are no more
    assert counts[1:].max() - counts[1:].min() <= 1
    assert np.array_equal(drawn, draw_calibration(images, labels, 40)[:, 0, 0, 0])
    assert not np.array_equal(drawn, draw_calibration(images, labels, 40, seed=1)[:, 0, 0, 0])
    for count in (0, 154):
        with pytest.raises(ValueError, match=rf"`count` \(={count}\) must be in \[1, 153\]"):
            draw_calibration(images, labels, count)
