"""Packing networks that were trained on a grid: their own integers travel, with a scale for each output channel."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from seedcnn.bundle import read_bundle
from seedcnn.convert import GroupNLConfig, SineFMConfig, convert_
from seedcnn.errors import BundleError, ExportError
from seedcnn.export import BundleInfo, fold, to_onnx
from seedcnn.models import create_model
from seedcnn.pack import Int8, Parent, Search, pack, preprocessing_of
from seedcnn.pack.trained import trained_grids
from seedcnn.train.rate import on_the_grid
from tests.few import few
from tests.forms import FORMS

CLASSES = tuple("abcdefghij")


def on_grid(convert=None, *, seed=0, model="resnet8_cifar", widths=(8, 8, 16), scale=1.0):
    """A network whose weights are whole steps and whose norms are not trivial, and the steps."""
    torch.manual_seed(seed)
    network = create_model(model, widths=widths)
    if convert is not None:
        convert_(network, convert)
    steps = {}
    with torch.no_grad():
        for place, (name, p) in enumerate(on_the_grid(network).items()):
            steps[name] = float(np.float32(scale * float(p.abs().max()) / (3 + place % 5)))
            p.copy_((p / steps[name]).round() * steps[name])
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(-1.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.5, 2)
    return network.eval(), steps


def elsewhere(name, p, convert):
    """Whether a weight travels otherwise: as a vector after the fold, or on a grid of 255 levels."""
    sparse = getattr(convert, "sparse", False) and p.shape[2:] == (1, 1)
    return sparse or name.endswith("align.weight")


def pictures(n=64, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, n)


def info(release=1):
    rule = preprocessing_of((0.5,) * 3, (0.25,) * 3)
    return BundleInfo("resnet8", "test", release, rule, CLASSES)


def packed(network, steps, release=1, **options):
    return pack(network, info(release), *pictures(), grid_steps=steps, **options)


@pytest.mark.parametrize("convert", few(FORMS, [0, 2, 3, 4]), ids=lambda config: type(config).__name__)
def test_the_integers_of_every_form_travel(convert):
    """All integers of the network's weights are in the bundle, as often as in the network, and it answers the same."""
    network, steps = on_grid(convert)
    result = packed(network, steps)
    mixed = isinstance(convert, SineFMConfig)  # whose fold multiplies input channels, too
    assert result.grid.max_rel < 1e-2
    bundle = read_bundle(result.data)
    exported = to_onnx(fold(network))
    grids, others = trained_grids(network, steps, exported)
    assert all(name.endswith("align.weight") for name in others)
    assert bool(others) == mixed
    own = np.concatenate(
        [(p.detach() / steps[name]).round().flatten().numpy() for name, p in on_the_grid(network).items()]
    )
    entries = [entry for entry in bundle.manifest.tensors if entry.grid is not None and entry.name in grids]
    entries = [entry for entry in entries if grids[entry.name].integers is not None]
    integers = {}
    bundle.unscaled(integers)
    found = np.concatenate([integers[entry.name].flatten() for entry in entries])
    left = Counter(own.astype(np.int16).tolist())
    left.subtract(found.tolist())
    assert min(left.values()) >= 0
    assert left.total() == sum(p.numel() for name, p in on_the_grid(network).items() if elsewhere(name, p, convert))
    assert all((grids[entry.name].scale is None) == (not entry.scale) for entry in entries)


def test_a_weight_without_a_norm_has_no_scale():
    network, steps = on_grid()
    grids, _ = trained_grids(network, steps, to_onnx(fold(network)))
    assert grids["fc.weight"].scale is None
    assert grids["conv1.weight"].scale is not None


def test_dead_channels_keep_their_place():
    network, steps = on_grid()
    with torch.no_grad():
        network.conv1.weight[2] = 0
        network.stages[0][0].bn1.weight[3] = 0
        network.stages[1][0].conv1.weight.zero_()
    result = packed(network, steps)
    assert result.grid.max_rel < 1e-2


def test_a_network_that_was_changed_since_is_refused():
    network, steps = on_grid()
    with torch.no_grad():
        network.conv1.weight[0, 0, 0, 0] += steps["conv1.weight"] / 3
    with pytest.raises(ExportError, match=r"conv1\.weight is not on the grid it was trained on: .* changed since"):
        packed(network, steps)


def test_steps_of_another_network_are_refused():
    network, steps = on_grid()
    with pytest.raises(ExportError, match="there is a step for conv9, but the network has no such weight"):
        packed(network, steps | {"conv9": 0.5})
    with pytest.raises(ExportError, match=r"fc\.weight reaches .* at most 32767 fit"):
        packed(network, steps | {"fc.weight": steps["fc.weight"] / 2**16})


def test_a_search_contradicts_the_trained_grid():
    network, steps = on_grid()
    with pytest.raises(ValueError, match="`search` contradicts `grid_steps`"):
        packed(network, steps, search=Search(*pictures(), 0.5))


def test_a_child_on_the_same_steps_is_a_small_delta():
    """Norms alone: the delta names no weight. One weight more: it is among the changes."""
    network, steps = on_grid(GroupNLConfig())
    parent = read_bundle(packed(network, steps).data)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight *= 1.1
                module.bias += 0.01
    child = packed(network, steps, 2, parent=Parent(parent, pictures()[0]))
    assert child.grid.max_rel < 1e-2
    assert len(child.delta) < 0.6 * len(child.data)
    before, after = {}, {}
    parent.unscaled(before)
    read_bundle(child.data).unscaled(after)
    scaled = [entry for entry in parent.manifest.tensors if entry.scale]
    assert all(np.array_equal(before[entry.name], after[entry.name]) for entry in scaled)
    assert any(not np.array_equal(before[entry.scale], after[entry.scale]) for entry in scaled)
    with torch.no_grad():
        network.conv1.weight[0, 0, 0, 0] += steps["conv1.weight"]
    changed = packed(network, steps, 3, parent=Parent(parent, pictures()[0]))
    assert len(changed.delta) > len(child.delta)


def test_a_child_on_other_steps_is_refused():
    network, steps = on_grid()
    parent = read_bundle(packed(network, steps).data)
    other, finer = on_grid(scale=0.5)
    with pytest.raises(BundleError, match=r"the parent has .* on a grid of .*train it with the parent's steps"):
        packed(other, finer, 2, parent=Parent(parent, pictures()[0]))


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_other_runtimes_and_int8(target):
    network, steps = on_grid(widths=(16, 16, 16))
    images = pictures()[0]
    result = packed(network, steps, target=target, int8=Int8(images, force=True), max_drop=100.0)
    assert result.int8 is not None
    assert result.grid.max_rel < 1e-2


def test_a_plain_network_that_pools_before_its_norms():
    network, steps = on_grid(model="air_cifar", widths=(8, 8, 16))
    result = packed(network, steps)
    assert result.grid.max_rel < 1e-2
