"""Networks that leave with the fused operator: the same function, the same tensors, fewer operations."""

from __future__ import annotations

import shutil

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from seedcnn.bundle import read_bundle
from seedcnn.convert import GroupNLConfig
from seedcnn.errors import BundleError
from seedcnn.export import fold, load_tensors, to_bundle, to_onnx
from seedcnn.export.custom_op import FusedGroupNL
from seedcnn.layers import GroupNLConv2d
from seedcnn.layers.group_nl_form import FoldedGroupNL
from seedcnn.runtime.custom_op import OPERATOR, build
from seedcnn.runtime.session import open_session
from tests.export.small import INFO, SIZE, settled, small_network

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler here")

TARGET = "onnxruntime-custom-op"
CONFIGS = {
    "sine": {},
    "r = 4": {"reduction_ratio": 4},
    "sparse": {"sparse": True},
    "abs": {"nlf": "abs"},
}
STOCK = {"laplace": {"nlf": "laplace"}, "l2": {"normalize": "l2"}}


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return build(tmp_path_factory.mktemp("operator") / "op.so")


def network(options):
    return small_network(GroupNLConfig.paper(**({"normalize": "batch"} | options)))


def operators(exported):
    return [node.op_type for node in onnx.load_model_from_string(exported.graph).graph.node]


@pytest.mark.parametrize("name", CONFIGS)
def test_whole_networks_agree_with_eager(library, name):
    model = network(CONFIGS[name])
    folded = fold(model, target=TARGET)
    exported = to_onnx(folded, SIZE)
    layers = sum(isinstance(module, GroupNLConv2d) for module in model.modules())
    assert operators(exported).count(OPERATOR.split("::")[1]) == layers
    assert operators(exported).count("Relu") == 2  # of the stem, and after the skip
    assert not {"Sin", "Concat"} & set(operators(exported))
    bundle = read_bundle(to_bundle(exported, INFO, step=None, libraries=[library]))
    session = open_session(bundle.graph(), bundle.tensors(), libraries=[library])
    x = torch.randn(3, *SIZE)
    with torch.no_grad():
        expected = model(x)
        assert torch.allclose(folded(x), expected, atol=1e-5 * float(expected.abs().max()))
    for batch in (x, x[:1]):
        (logits,) = session.run(["logits"], {"image": batch.numpy()})
        off = np.abs(logits - expected[: len(batch)].numpy()).max() / float(expected.abs().max())
        assert off < 1e-5


def test_what_travels_is_what_travels_in_the_stock_form():
    model = network({})
    exported, stock = to_onnx(fold(model, target=TARGET), SIZE), to_onnx(fold(model), SIZE)
    assert exported.tensors.keys() == stock.tensors.keys()
    assert all(np.array_equal(value, stock.tensors[name]) for name, value in exported.tensors.items())
    assert exported.seeded == stock.seeded
    assert OPERATOR.split("::")[1] not in operators(stock)


@pytest.mark.parametrize("name", STOCK)
def test_what_the_operator_cannot_do_stays_in_its_stock_form(name):
    folded = fold(network(STOCK[name]), target=TARGET)
    assert any(isinstance(module, FoldedGroupNL) for module in folded.modules())
    assert not any(isinstance(module, FusedGroupNL) for module in folded.modules())


class Branching(nn.Module):
    """A converted layer whose output is read twice, once through a ReLU, and one with a functional ReLU."""

    def __init__(self) -> None:
        super().__init__()
        options = {"padding": 1, "normalize": "batch"}
        self.first, self.norm = GroupNLConv2d(3, 8, 3, seed=1, **options), nn.BatchNorm2d(8)
        self.second, self.norm2 = GroupNLConv2d(8, 8, 3, seed=2, **options), nn.BatchNorm2d(8)
        self.last = nn.Linear(8, 10)

    def forward(self, x):
        y = self.norm(self.first(x))
        y = torch.relu(y) + y
        return self.last(self.norm2(self.second(y)).relu().mean((2, 3)))


def test_a_relu_is_fused_only_where_nothing_else_reads(library):
    model = settled(Branching())
    folded = fold(model, target=TARGET)
    fused = {name: module.relu for name, module in folded.named_modules() if isinstance(module, FusedGroupNL)}
    assert fused == {"first": False, "second": True}
    exported = to_onnx(folded, SIZE)
    assert operators(exported).count("Relu") == 1
    bundle = read_bundle(to_bundle(exported, INFO, step=None, libraries=[library]))
    session = open_session(bundle.graph(), bundle.tensors(), libraries=[library])
    x = torch.randn(2, *SIZE)
    with torch.no_grad():
        expected = model(x).numpy()
    assert np.abs(session.run(None, {"image": x.numpy()})[0] - expected).max() < 1e-5 * np.abs(expected).max()


def test_tensors_of_a_bundle_can_be_loaded_again(library):
    folded = fold(network({}), target=TARGET)
    bundle = read_bundle(to_bundle(to_onnx(folded, SIZE), INFO, step=1 / 64, libraries=[library]))
    load_tensors(folded, bundle.tensors())
    x = torch.randn(2, *SIZE)
    session = open_session(bundle.graph(), bundle.tensors(), libraries=[library])
    with torch.no_grad():
        expected = folded(x).numpy()
    assert np.abs(session.run(None, {"image": x.numpy()})[0] - expected).max() < 1e-5 * np.abs(expected).max()


def test_without_the_library_the_bundle_is_refused_with_the_command(library):
    exported = to_onnx(fold(network({}), target=TARGET), SIZE)
    with pytest.raises(BundleError, match=f"{OPERATOR}, which is not loaded: build it with `python -m"):
        to_bundle(exported, INFO, step=None)
    bundle = read_bundle(to_bundle(exported, INFO, step=None, libraries=[library]))
    with pytest.raises(BundleError, match=OPERATOR):
        open_session(bundle.graph(), bundle.tensors())
