"""What cannot be packed is refused by name, and what has no seed form is packed as it is, and listed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from seedcnn.bundle import encode_raw, read_bundle
from seedcnn.convert import GroupNLConfig, convert_
from seedcnn.errors import BundleError, ExportError
from seedcnn.pack import Parent, Search, pack
from tests.bundle.bundles import tiny_bundle
from tests.pack.trained import INFO

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8)
LABELS = np.arange(20) % 10


class Network(nn.Module):
    """Two convolutions, a transposed one, and an operator of choice."""

    def __init__(self, operator=torch.relu, width: int = 16) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.body = nn.Conv2d(width, 32, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(32)
        self.head = nn.Linear(32, 10)
        self.operator = operator

    def forward(self, x):
        return self.head(self.operator(self.norm(self.body(self.up(self.stem(x))))).mean((2, 3)))


def network(*args, **kwargs):
    return Network(*args, **kwargs).eval()


def test_layers_without_a_seed_form_are_packed_as_they_are_and_listed():
    model = network()
    assert pack(model, INFO, IMAGES, LABELS).plain == ()  # it was never converted
    convert_(model, GroupNLConfig())
    result = pack(model, INFO, IMAGES, LABELS, step=None)
    assert result.plain == ("stem", "up")
    assert result.before.top1 == result.after.top1
    names = [entry.name for entry in read_bundle(result.data).manifest.tensors if entry.seeded is None]
    assert any("up" in name for name in names)


def test_an_operator_that_onnx_does_not_have_is_named():
    with pytest.raises(ExportError, match=r"ONNX: it has no form of the operator prims\.bessel_j0$"):
        pack(network(torch.special.bessel_j0), INFO, IMAGES, LABELS)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", ["body.weight", "norm.running_var", "head.bias"])
def test_weights_that_are_not_finite(place, bad):
    model = network()
    model.state_dict()[place].view(-1)[3] = bad
    with pytest.raises(ExportError, match=f"{place} holds 1 values that are not finite"):
        pack(model, INFO, IMAGES, LABELS)


def test_a_tensor_name_that_appears_twice():
    twice = [encode_raw("head.bias", np.zeros(3)), encode_raw("head.bias", np.ones(3))]
    with pytest.raises(BundleError, match=r"head\.bias.*twice|duplicate name"):
        tiny_bundle(tensors=twice)


def test_a_search_without_calibration_pictures():
    with pytest.raises(ValueError, match="a search needs at least one image"):
        Search(IMAGES[:0], LABELS[:0])
    with pytest.raises(ValueError, match="holds 20 calibration images and `labels` 19"):
        Search(IMAGES, LABELS[:19])


def test_a_parent_of_another_architecture():
    parent = read_bundle(pack(network(), INFO, IMAGES, LABELS, step=0.01).data)
    with pytest.raises(BundleError, match=r"has another architecture; these tensors differ: .*stem"):
        pack(network(width=32), replace(INFO, release=INFO.release + 1), IMAGES, LABELS, parent=Parent(parent))
