"""Packing compares with the network it was given, whatever holds that network and whatever it returns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from seedcnn.bundle import read_bundle
from seedcnn.bundle.delta import apply_delta, read_delta
from seedcnn.errors import ExportError
from seedcnn.evaluate import cost, predict_logits, torch_predictor
from seedcnn.export import BundleInfo
from seedcnn.layers import GroupNLConv2d
from seedcnn.pack import Int8, Parent, Search, pack, preprocessing_of
from tests.export.alike import SIZE, around, conv, settled

MEAN, STD = (0.5,) * 3, (0.25,) * 3
INFO = BundleInfo("small", "tests", 1, preprocessing_of(MEAN, STD, (12, 12)), list("abcd"))
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 12, 12, 3), np.uint8)
LABELS = np.arange(40) % 4


def network(*middle):
    torch.manual_seed(0)
    layer = GroupNLConv2d(8, 8, 3, padding=1, normalize="batch", seed=5)
    return settled(around(nn.BatchNorm2d(8), layer, nn.BatchNorm2d(8), *middle))


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")], ids=["parallel", "compiled"]
)
def test_a_wrapped_network_is_packed_and_counted_as_what_is_inside(wrap):
    plain, wrapped = network(), wrap(network())
    assert pack(wrapped, INFO, IMAGES, LABELS).data == pack(plain, INFO, IMAGES, LABELS).data
    assert cost(wrapped, SIZE) == cost(plain, SIZE)


def test_a_network_with_hooks_is_refused():
    model = network()
    model[3].register_forward_hook(lambda module, args, output: -output)
    with pytest.raises(ExportError, match=r"3 \(BatchNorm2d\) has the forward hook"):
        pack(model, INFO, IMAGES, LABELS, step=None)


class Sly(nn.Module):
    """Code that does something else while it is traced."""

    def forward(self, x):
        return -x if isinstance(x, torch.Tensor) else x


def test_a_folded_network_that_answers_differently_is_refused():
    for options in ({"step": None}, {"int8": Int8(IMAGES, force=True)}, {"search": Search(IMAGES, LABELS, 50.0)}):
        with pytest.raises(ExportError, match="the inference form of Sequential answers differently from the network"):
            pack(network(Sly()), INFO, IMAGES, LABELS, **options)


def test_a_child_that_answers_differently_from_its_network_is_refused():
    parent = read_bundle(pack(network(nn.ReLU()), INFO, IMAGES, LABELS).data)
    with pytest.raises(ExportError, match="answers differently"):
        pack(network(Sly()), replace(INFO, release=2), IMAGES, LABELS, parent=Parent(parent))


class Named(nn.Module):
    """A network with an auxiliary head in front."""

    def __init__(self):
        super().__init__()
        self.network, self.aux = network(), nn.Linear(4, 4)

    def forward(self, x):
        y = self.network(x)
        return {"aux": self.aux(y), "out": y}


def test_evaluation_and_bundle_take_the_same_output():
    model = Named().eval()
    wanted = predict_logits(torch_predictor(model.network, MEAN, STD), IMAGES)
    np.testing.assert_array_equal(predict_logits(torch_predictor(model, MEAN, STD), IMAGES), wanted)
    result = pack(model, INFO, IMAGES, LABELS, step=None)
    assert result.export.max_rel < 1e-5
    assert result.after.top1 == pack(model.network, INFO, IMAGES, LABELS, step=None).after.top1


class Unregistered(nn.Module):
    """A convolution in a list that the module does not register."""

    def __init__(self):
        super().__init__()
        self.hidden = [conv().requires_grad_(False)]

    def forward(self, x):
        return self.hidden[0](x)


def test_constants_of_the_code_travel_exactly_through_every_way_to_pack():
    model = network(Unregistered())
    plain = pack(model, INFO, IMAGES, LABELS)
    parent = read_bundle(plain.data)
    constants = [entry.name for entry in parent.manifest.tensors if "lifted" in entry.name]
    values = [parent.tensors()[name] for name in constants]
    assert sorted(value.shape for value in values) == [(8,), (8, 8, 3, 3)]
    model[-1].weight.data += 0.05
    child = pack(model, replace(INFO, release=2), IMAGES, LABELS, parent=Parent(parent, IMAGES))
    applied = read_bundle(apply_delta(parent, read_delta(child.delta)))
    assert applied.manifest.content_sha256() == read_bundle(child.data).manifest.content_sha256()
    searched = pack(model, INFO, IMAGES, LABELS, search=Search(IMAGES, LABELS, 50.0))
    int8 = pack(model, INFO, IMAGES, LABELS, max_drop=100.0, int8=Int8(IMAGES, force=True, rounds=2))
    for result in (child, searched, int8):
        tensors = read_bundle(result.data).tensors()
        assert all(np.array_equal(tensors[name], value) for name, value in zip(constants, values, strict=True))


def test_computed_weights_are_packed_with_their_present_values():
    model = network(nn.ReLU(), parametrizations.spectral_norm(conv()), nn.BatchNorm2d(8))
    prune.l1_unstructured(model[2], "weight", 0.5)
    settled(model)
    result = pack(model, INFO, IMAGES, LABELS, step=None)
    assert result.grid.max_rel < 1e-5
    assert result.before.top1 == result.after.top1
