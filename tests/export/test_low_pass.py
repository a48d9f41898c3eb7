"""A network with low-pass filters as folded network, graph and bundle: nothing travels, and it answers the same."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import onnx
import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from seedcnn.bundle import read_bundle
from seedcnn.convert import DepthwiseSeparableConfig, GhostConfig, GroupNLConfig, MonoConfig, convert_, lowpass_
from seedcnn.evaluate import accuracy, bundle_predictor
from seedcnn.export import BundleInfo, fold, to_bundle, to_onnx
from seedcnn.layers import LowPass
from seedcnn.layers.low_pass import LowPassed, binomial
from seedcnn.models import create_model
from seedcnn.pack import Int8, Parent, Search, draw_calibration, pack, preprocessing_of
from seedcnn.train.rate import on_the_grid
from tests.few import few
from tests.pack.trained import INFO, small_trained

CONFIGS = [
    None,
    GroupNLConfig(normalize="batch"),
    MonoConfig(),
    GhostConfig(),
    DepthwiseSeparableConfig(scope="spatial"),
]


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def network(config=None, where="stem+strides", **options):
    torch.manual_seed(0)
    model = create_model("resnet8_cifar", widths=(8, 16, 16), **options)
    if config is not None:
        convert_(model, config)
    for _ in range(3):
        model(torch.randn(8, 3, 32, 32))  # statistics that are not 0 and 1
    plain = copy.deepcopy(model).eval()
    lowpass_(model, where)
    return model.eval(), plain


def filters(graph):
    return sum(node.target is binomial for node in graph.graph.nodes)


@pytest.mark.parametrize(
    ("config", "where"),
    few([*((config, "stem+strides") for config in CONFIGS), (None, "stem"), (CONFIGS[1], "strides")], [1, 5]),
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_folded_it_answers_the_same_with_the_same_tensors(config, where):
    model, plain = network(config, where)
    x = noise(4, 3, 32, 32)
    folded, other = fold(model, check=x), fold(plain, check=x)
    torch.testing.assert_close(folded(x), model(x), atol=1e-4, rtol=1e-4)
    assert (folded(x) - other(x)).abs().max() > 1e-3  # the filters do something
    assert dict(folded.named_parameters()).keys() == dict(other.named_parameters()).keys()
    assert filters(folded) > 0
    assert filters(other) == 0
    exported, without = to_onnx(folded), to_onnx(other)
    assert exported.tensors.keys() == without.tensors.keys()
    assert exported.seeded.keys() == without.seeded.keys()
    assert not exported.constants


def test_layers_that_read_one_map_share_a_filter():
    model, _ = network(None, "strides")
    assert filters(fold(model)) == 2  # four layers in two blocks, each with its shortcut


def test_the_graph_makes_its_numbers_itself_and_folds_its_norms():
    model, plain = network(GroupNLConfig(normalize="batch"))
    graph = onnx.load_from_string(to_onnx(fold(model)).graph).graph
    kinds = [node.op_type for node in graph.node]
    assert "BatchNormalization" not in kinds
    assert kinds.count("Pad") == 3
    inside = [tensor for tensor in graph.initializer if tensor.data_location != onnx.TensorProto.EXTERNAL]
    assert {tuple(tensor.dims) for tensor in inside if tensor.data_type == onnx.TensorProto.FLOAT} == {
        (3, 1, 3, 3),
        (8, 1, 3, 3),
        (16, 1, 3, 3),
    }
    assert len(fold(plain).graph.nodes) + 3 == len(fold(model).graph.nodes)


class Untraceable(nn.Module):
    """Code that cannot be traced, with a convolution and a norm, and a pooling."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.pool = nn.Conv2d(1, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.MaxPool2d(2)
        self.last, self.fc = nn.Conv2d(8, 16, 3, 2, 1), nn.Linear(16, 10)

    def forward(self, x):
        if x.sum() > 1e9:
            x = x * 2
        return self.fc(F.relu(self.last(self.pool(F.relu(self.bn(self.conv(x)))))).mean((2, 3)))


def test_a_network_whose_code_cannot_be_traced():
    torch.manual_seed(0)
    model = Untraceable()
    x = noise(4, 1, 32, 32)
    model(x)
    model.eval()
    before = model(x)
    lowpass_(model, "stem+strides")
    folded = fold(model, check=x)
    torch.testing.assert_close(folded(x), model(x), atol=1e-5, rtol=1e-4)
    assert (before - model(x)).abs().max() > 1e-3
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())


@pytest.mark.parametrize("name", few(["mobilenetv3_small_050", "tf_efficientnet_lite0"], [1]))
def test_networks_of_timm(name):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5).eval()
    x = noise(2, 3, 64, 64)
    names = lowpass_(model, "stem+strides")
    folded = fold(model, check=x)
    exported = to_onnx(folded, (3, 64, 64))
    assert not exported.constants
    assert any(isinstance(model.get_submodule(each), LowPassed) for each in names)


def test_channels_last_and_one_channel():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    model.append(nn.Linear(8 * 7 * 7, 4))
    model = model.eval().to(memory_format=torch.channels_last)
    lowpass_(model, "stem+strides")
    x = noise(3, 1, 28, 28).to(memory_format=torch.channels_last)
    folded = fold(model, check=x)
    info = BundleInfo("one", "tests", 1, preprocessing_of((0.5,), (0.25,), (28, 28)), list("abcd"))
    data = to_bundle(to_onnx(folded, (1, 28, 28)), info, step=1 / 256)
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1)).astype(np.uint8)
    with torch.no_grad():
        wanted = model((torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25)
    for runtime in ("onnxruntime", "openvino"):
        found = bundle_predictor(read_bundle(data), runtime=runtime)(images)
        assert np.abs(found - wanted.numpy()).max() < 0.05


@pytest.fixture(scope="module")
def trained():
    return small_trained()


def with_filters(trained, where):
    model = copy.deepcopy(trained[0])
    lowpass_(model, where)
    return model


@pytest.mark.parametrize(
    ("where", "target"),
    few([("stem", "onnxruntime"), ("strides", "onnxruntime"), ("stem+strides", "openvino")], [1]),
)
def test_a_bundle_answers_as_the_network_for_a_few_bytes_more(trained, where, target):
    model, images, labels = with_filters(trained, where), *trained[1:]
    result = pack(model, INFO, images, labels, step=1 / 64, target=target)
    plain = pack(trained[0], INFO, images, labels, step=1 / 64, target=target)
    assert result.export.max_rel < 1e-5
    assert result.grid.max_rel < 0.2
    assert abs(result.drop) <= 1
    assert 0 < len(result.data) - len(plain.data) < 300
    found = read_bundle(result.data)
    assert {entry.name for entry in found.manifest.tensors} == {
        e.name for e in read_bundle(plain.data).manifest.tensors
    }
    assert accuracy(bundle_predictor(found), images, labels).top1 == result.after.top1


def test_a_search_a_delta_and_int8(trained):
    model, images, labels = with_filters(trained, "stem+strides"), *trained[1:]
    first = pack(model, INFO, images, labels, search=Search(images[:128], labels[:128], 5.0))
    assert first.drop <= 5
    tuned = copy.deepcopy(model)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter.add_(torch.randn_like(parameter) * 1e-3)
    child = pack(tuned, dataclasses.replace(INFO, release=5), images, labels, parent=Parent(read_bundle(first.data)))
    assert child.delta is not None
    assert len(child.delta) < len(child.data)
    assert child.export.max_rel < 1e-5
    int8 = Int8(draw_calibration(images, labels, 64), force=True, rounds=2)
    small = pack(model, INFO, images, labels, step=1 / 512, int8=int8)
    assert small.int8 is not None
    assert small.int8.logits.agreement > 97


@pytest.mark.slow
def test_a_network_that_was_trained_on_a_grid(trained):
    model, plain = network(GroupNLConfig(normalize="batch"), "stem+strides")
    steps = {}
    with torch.no_grad():
        for one in (model, plain):
            for name, p in on_the_grid(one).items():
                steps[name] = float(np.float32(p.abs().max() / 7)) if one is model else steps[name]
                p.copy_((p / steps[name]).round() * steps[name])
    results = [pack(each, INFO, *trained[1:], grid_steps=steps) for each in (model, plain)]
    tensors = [{entry.name: entry.grid for entry in read_bundle(each.data).manifest.tensors} for each in results]
    assert tensors[0] == tensors[1]
    assert results[0].export.max_rel < 1e-5
    assert results[0].before.top1 == results[0].after.top1


def test_the_layer_in_a_network_of_ones_own():
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), LowPass(2)]
    model = nn.Sequential(LowPass(), *body, nn.Flatten(), nn.Linear(8 * 8 * 8, 4)).eval()
    x = noise(2, 3, 16, 16)
    folded = fold(model, check=x)
    assert filters(folded) == 2
    exported = to_onnx(folded, (3, 16, 16))
    assert not exported.constants
    assert set(exported.tensors) == {"1.weight", "1.bias", "6.weight", "6.bias"}
