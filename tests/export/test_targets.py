"""The forms for the runtimes: the same function whichever is asked for."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from seedcnn.bundle import read_bundle
from seedcnn.convert import GroupNLConfig, SineFMConfig
from seedcnn.export import TARGETS, BundleInfo, fold, to_bundle, to_onnx
from seedcnn.layers.forms import DepthwiseSum
from seedcnn.layers.targets import SUMS, polynomial_sine
from seedcnn.pack import preprocessing_of
from seedcnn.runtime.session import open_session
from tests.export.small import small_resnet
from tests.few import few

CONFIGS = {
    "sine": GroupNLConfig.paper(normalize="batch"),
    "sine, norm not absorbed": GroupNLConfig.paper(normalize="l2"),
    "r = 4": GroupNLConfig.paper(reduction_ratio=4, normalize="batch"),
    "sparse": GroupNLConfig.paper(sparse=True, normalize="batch"),
    "sparse, r = 4": GroupNLConfig.paper(sparse=True, reduction_ratio=4, normalize="batch"),
    "sinefm": SineFMConfig(),
}
TOLERANCE = {"sin": 1e-5, "polynomial": 2e-5}
RUNTIMES = ("onnxruntime", "openvino")
# The fused operator has tests of its own; litert is as onnxruntime, and ncnn differs from it where r > 2.
CASES = [(name, target) for name in CONFIGS for target in ("onnxruntime", "openvino")]
CASES += [(name, "ncnn") for name in CONFIGS if "r = 4" in name]
STOCK = [name for name, form in TARGETS.items() if not form.operator]
INFO = BundleInfo("tiny", "tests", 1, preprocessing_of((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)), list("abcdefghij"))


def network(name):
    """A converted network whose norms have seen pictures."""
    model = small_resnet(CONFIGS[name])
    with torch.no_grad():
        for _ in range(3):
            model.train()(torch.randn(8, 3, 32, 32))
    return model.eval()


@functools.cache
def exported_network(name, target):
    """The graph of ``network(name)`` for ``target``, made once: an export takes seconds."""
    return to_onnx(fold(network(name), target=target))


def relative(a, b):
    return float(np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(np.asarray(b)).max())


@pytest.mark.parametrize(("name", "target"), few(CASES, [0, 5, 12]))
def test_whole_networks_agree_with_eager_in_both_runtimes(name, target):
    model = network(name)
    folded = fold(model, target=target)
    x = torch.randn(2, 3, 32, 32)
    allowed = TOLERANCE[TARGETS[target].sine]
    with torch.no_grad():
        expected = model(x)
        assert relative(folded(x), expected) < allowed
    bundle = read_bundle(to_bundle(exported_network(name, target), INFO, step=None))
    tensors = bundle.tensors()
    for runtime in RUNTIMES:
        session = open_session(bundle.graph(), tensors, runtime=runtime)
        for batch in (x, x[:1]):
            (logits,) = session.run(["logits"], {"image": batch.numpy()})
            assert relative(logits, expected[: len(batch)]) < allowed, runtime


def test_the_polynomial_is_a_sine():
    u = torch.linspace(-100, 100, 200_001)
    assert ((polynomial_sine(u) - torch.sin(u)).abs() < 1e-6 + 1e-7 * u.abs()).all()
    assert torch.equal(polynomial_sine(-u), -polynomial_sine(u))
    assert polynomial_sine(torch.tensor(float("nan"))).isnan()


@pytest.mark.parametrize("sums", SUMS)
@pytest.mark.parametrize(("channels", "outputs"), [(64, 32), (64, 16), (24, 8), (30, 15), (9, 3), (2, 1)])
def test_every_way_to_sum_is_the_grouped_convolution(sums, channels, outputs):
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, outputs, 3, stride=2, padding=1, groups=outputs)
    x = torch.randn(2, channels, 7, 10)
    torch.testing.assert_close(DepthwiseSum(conv, sums)(x), conv(x), rtol=1e-5, atol=1e-6)


def test_no_target_puts_weights_into_the_graph():
    """What the form for OpenVINO adds is zeros and ones."""
    for target in ("onnxruntime", "openvino"):
        graph = onnx.load_from_string(exported_network("sparse", target).graph).graph
        inside = [onnx.numpy_helper.to_array(t) for t in graph.initializer if t.data_location != t.EXTERNAL]
        inside += [onnx.numpy_helper.to_array(n.attribute[0].t) for n in graph.node if n.op_type == "Constant"]
        assert all(value.size == 1 or value.dtype == np.int64 or set(np.unique(value)) <= {0, 1} for value in inside)


def test_r_2_needs_neither_split_nor_gather():
    """But on constants, which a runtime computes once."""
    for target in ("onnxruntime", "openvino"):
        graph = onnx.load_from_string(exported_network("sine", target).graph).graph
        constants = {tensor.name for tensor in graph.initializer}
        used = {node.op_type for node in graph.node if not set(node.input) <= constants}
        assert not used & {"Split", "Slice", "Gather", "Tile", "Expand"}
        assert sum(node.op_type == "Reshape" for node in graph.node) <= 1  # before the classifier


@pytest.mark.parametrize("target", STOCK)
@pytest.mark.parametrize("name", CONFIGS)
def test_every_form_is_the_same_function_in_eager(name, target):
    model = network(name)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert relative(fold(model, target=target)(x), model(x)) < TOLERANCE[TARGETS[target].sine]


def test_ncnn_gets_no_index_over_channels():
    """Its converter knows no gather there."""
    graph = fold(network("r = 4"), target="ncnn")
    program = torch.export.export(graph, (torch.randn(1, 3, 32, 32),))
    spread = [n for n in program.graph.nodes if "index_select" in str(n.target) and n.args[1] == 1]
    assert not spread
    assert any("cat" in str(n.target) for n in program.graph.nodes)


def test_unknown_target_is_refused():
    with pytest.raises(ValueError, match=r"`target` \(='tensorrt'\) must be one of 'onnxruntime', .*'openvino'"):
        fold(network("sine"), target="tensorrt")
