"""Weights with scales of their own channels in a bundle, and a child on the grids of such a parent."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch

from seedcnn.bundle import grid_of_step, read_bundle
from seedcnn.bundle.delta import apply_delta, read_delta
from seedcnn.errors import BundleError
from seedcnn.evaluate import accuracy, bundle_predictor, torch_predictor
from seedcnn.export import fold, to_bundle, to_onnx
from seedcnn.export.bundles import OnGrid, encode_learned, is_weight, vector_grids
from seedcnn.pack import Parent, pack
from tests.pack.trained import INFO, small_trained

STEP = 1 / 64


@pytest.fixture(scope="module")
def trained():
    return small_trained()


def _scaled(tensors):
    """Every weight with the root mean square of each output channel as its scale."""
    found = vector_grids(tensors)
    for name, values in tensors.items():
        if is_weight(values.shape):
            scale = np.sqrt(np.square(values).mean(axis=tuple(range(1, values.ndim)))).astype(np.float32)
            found[name] = OnGrid(grid_of_step(STEP), scale=scale)
    return found


@pytest.fixture(scope="module")
def parent(trained):
    exported = to_onnx(fold(trained[0]), INFO.preprocessing.shape)
    return read_bundle(to_bundle(exported, INFO, grids=_scaled(exported.tensors)))


def test_the_graph_gets_the_scaled_weights(trained, parent):
    model, images, labels = trained
    exported = to_onnx(fold(model), INFO.preprocessing.shape)
    found = parent.tensors()
    assert found.keys() == exported.tensors.keys() | exported.constants.keys() | exported.seeded.keys()
    scaled = [entry for entry in parent.manifest.tensors if entry.scale]
    assert [entry.scale for entry in scaled] == [f"{entry.name}.scale" for entry in scaled] != []
    for entry in scaled:
        scale = parent.unscaled()[entry.scale].reshape(-1, *[1] * (len(entry.shape) - 1))
        assert (np.abs(found[entry.name] - exported.tensors[entry.name]) <= 0.51 * STEP * scale).all()
    exact = accuracy(torch_predictor(model, (0.5,) * 3, (0.25,) * 3), images, labels).top1
    assert accuracy(bundle_predictor(parent), images, labels).top1 >= exact - 3


def test_a_child_keeps_its_parent_s_scales(trained, parent):
    model, images, labels = trained
    tuned = copy.deepcopy(model)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter.add_(torch.randn_like(parameter) * parameter.std().nan_to_num(0) * 0.1)
    info = dataclasses.replace(INFO, release=5)
    for images_of_parent in (None, images[:64]):
        child = pack(tuned, info, images, labels, parent=Parent(parent, images_of_parent))
        delta = read_delta(child.delta)
        assert any(is_weight(entry.shape) for entry in parent.manifest.tensors if entry.scale)
        table = parent.manifest.tensors
        assert delta.tensors
        assert not [change for change in delta.tensors if table[change.index].role]
        made, shipped = read_bundle(apply_delta(parent, delta)), read_bundle(child.data)
        assert made.manifest.content_sha256() == shipped.manifest.content_sha256()
        assert [(e.name, e.scale, e.role) for e in shipped.manifest.tensors] == [
            (e.name, e.scale, e.role) for e in parent.manifest.tensors
        ]


def test_a_scale_never_takes_the_name_of_a_tensor():
    values = np.ones((3, 4), np.float32)
    grids = {"w": OnGrid(grid_of_step(0.1), scale=np.ones(3, np.float32))}
    with pytest.raises(BundleError, match=r"would take the name of another one: 'w\.scale'"):
        encode_learned({"w": values, "w.scale": values}, grids)


def test_channels_without_scale_stay_zero():
    values = np.ones((2, 4), np.float32)
    weight, scale = OnGrid(grid_of_step(0.5), scale=np.asarray([0, 2], np.float32)).encode("w", values)
    assert weight.expanded.tolist() == [[0.0] * 4, [1.0] * 4]
    assert (scale.entry.name, scale.entry.coding) == ("w.scale", "raw-f32")
