"""Folding the families beside GroupNL: the same function, in torch and in ONNX Runtime, fixed numbers as seeds."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from seedcnn.convert import (
    DepthwiseSeparableConfig,
    GhostConfig,
    LocalBinaryConfig,
    MonoConfig,
    PerturbativeConfig,
    ShiftConfig,
    SineFMConfig,
    convert_,
)
from seedcnn.export import fold, to_onnx
from seedcnn.export.bundles import encode_tensors
from seedcnn.layers import ConvLayer, MonoConv2d
from seedcnn.layers.forms import ChannelAffine
from seedcnn.layers.mono import FoldedMono
from seedcnn.models import create_model
from seedcnn.runtime.session import open_session
from tests.layers.families import FORMS, IN, OUT, build, settle

CONFIGS = [
    MonoConfig(seed_filters=4),
    GhostConfig(),
    SineFMConfig(t=3),
    LocalBinaryConfig(),
    PerturbativeConfig(),
    ShiftConfig(),
    DepthwiseSeparableConfig(),
]


def relative(a, b):
    return float(np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(np.asarray(b)).max())


def answers(exported, x):
    tensors = {item.entry.name: item.expanded for item in encode_tensors(exported, None)}
    return open_session(exported.graph, tensors).run(["logits"], {"image": x.numpy()})[0]


@pytest.mark.parametrize("norm", [True, False], ids=["norm after", "no norm after"])
@pytest.mark.parametrize("form", FORMS)
def test_folded_layer_is_the_same_function_without_norms(form, norm):
    model = settle(nn.Sequential(build(form), *([nn.BatchNorm2d(OUT)] if norm else []), nn.ReLU()))
    x = torch.randn(2, IN, 5, 7)
    folded = fold(model)
    with torch.no_grad():
        assert relative(folded(x), model(x)) < 1e-5
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_converted_network_leaves_as_the_same_function(config):
    torch.manual_seed(0)
    model = create_model("resnet8_cifar")
    convert_(model, config, seed=3)
    settle(model)
    x = torch.randn(2, 3, 32, 32)
    folded = fold(model)
    with torch.no_grad():
        assert relative(folded(x), model(x)) < 1e-4
    assert not any(isinstance(module, ConvLayer) and list(module.parameters()) for module in folded.modules())


def mono_network():
    torch.manual_seed(0)
    layers = [
        MonoConv2d(3, 16, 3, padding=1, seed_filters=2, bias=True, seed=5),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        MonoConv2d(16, 32, 3, stride=2, padding=1, pointwise=True, fgf="gaussian", seed=6),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        MonoConv2d(32, 16, 3, padding_mode="circular", padding=1, fgf="polynomial", terms=2, groups=2, seed=7),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    ]
    return settle(nn.Sequential(*layers))


@pytest.mark.parametrize("form", ["graph", "expanded"])
def test_mono_filters_are_generated_in_the_graph_or_materialised(form):
    model = mono_network()
    x = torch.randn(3, 3, 8, 10)
    folded = fold(model, mono=form)
    exported = to_onnx(folded, (3, 8, 10))
    with torch.no_grad():
        assert relative(folded(x), model(x)) < 1e-5
        assert relative(answers(exported, x), model(x)) < 1e-5
    in_graph = form == "graph"
    assert sum(isinstance(module, FoldedMono) for module in folded.modules()) == (3 if in_graph else 0)
    assert sorted(exported.seeded) == (["0.beta", "3.0.beta", "6.beta"] if in_graph else [])
    first = exported.tensors["0.weight"]
    assert first.shape == ((2, 3, 3, 3) if in_graph else (16, 3, 3, 3))
    operations = {node.op_type for node in onnx.load_from_string(exported.graph).graph.node}
    assert ("Sign" in operations) == in_graph


def test_seeded_exponents_come_back_bit_equal_to_the_layer():
    model = mono_network()
    exported = to_onnx(fold(model), (3, 8, 10))
    tensors = {item.entry.name: item.expanded for item in encode_tensors(exported, None)}
    np.testing.assert_array_equal(tensors["0.beta"], model[0].beta.numpy())
    np.testing.assert_array_equal(tensors["6.beta"], model[6].beta.numpy())


def test_a_network_of_the_remaining_forms_agrees_in_onnx_runtime():
    forms = ["pnn norm", "lbc norm", "ghost eq14", "ghost pointwise", "dws plain"]
    layers = [nn.Conv2d(3, IN, 1)]
    for form in forms:
        layers += [build(form), nn.BatchNorm2d(OUT), nn.ReLU(), nn.Conv2d(OUT, IN, 1)]
    model = settle(nn.Sequential(*layers))
    x = torch.randn(2, 3, 9, 7)
    exported = to_onnx(fold(model), (3, 9, 7))
    with torch.no_grad():
        assert relative(answers(exported, x), model(x)) < 1e-5
    assert sorted(exported.seeded) == ["1.noise", "5.draws"]


def test_norm_that_follows_no_convolution_leaves_as_scale_and_shift():
    model = settle(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 10)))
    x = torch.randn(2, 3, 6, 6)
    folded = fold(model)
    assert isinstance(folded.get_submodule("0"), ChannelAffine)
    exported = to_onnx(folded, (3, 6, 6))
    with torch.no_grad():
        assert relative(answers(exported, x), model(x)) < 1e-5
    assert {"0.scale", "0.shift"} <= set(exported.tensors)


def test_unknown_mono_form_is_refused_by_name():
    with pytest.raises(ValueError, match=r"`mono` \(='packed'\) must be one of 'graph', 'expanded'"):
        fold(mono_network(), mono="packed")
