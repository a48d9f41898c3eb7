"""Which norm follows which convolution: call order, not registration order, decides."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from seedcnn.convert import GroupNLConfig, convert_
from seedcnn.convert.copies import copy_without_weights
from seedcnn.convert.tracing import norm_after


class ReluBetween(nn.Module):
    """Registered side by side, called with an in-place activation between."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.conv = nn.Conv2d(8, 8, 3)
        self.bn = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.bn(self.relu(self.conv(self.stem(x)))).mean((2, 3))


class CrossedNames(nn.Module):
    """Two convolutions and two norms, called in the other order than registered."""

    def __init__(self):
        super().__init__()
        self.a, self.norm_b = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.b, self.norm_a = nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)

    def forward(self, x):
        return self.norm_b(self.b(self.norm_a(self.a(x))))


class Branching(CrossedNames):
    """The same, with a branch on the input's numbers that no tracer follows, and on its shape."""

    def forward(self, x):
        if x.shape[-1] < 4:
            raise ValueError("too small")
        return super().forward(x)


class ReadTwice(CrossedNames):
    def forward(self, x):
        y = self.a(x)
        return self.norm_a(y) + y


class CalledTwice(CrossedNames):
    def forward(self, x):
        y = self.norm_b(self.b(self.norm_a(self.a(x))))
        return self.norm_b(self.b(y))


class Outer(nn.Module):
    """A block that cannot be traced inside one that can."""

    def __init__(self):
        super().__init__()
        self.inner, self.last, self.norm = Branching(), nn.Conv2d(8, 8, 1), nn.GroupNorm(2, 8)

    def forward(self, x):
        return self.norm(self.last(self.inner(x)))


CROSSED = {"a": "norm_a", "b": "norm_b"}


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        (ReluBetween, {}),
        (CrossedNames, CROSSED),
        (Branching, CROSSED),
        (ReadTwice, {}),
        (CalledTwice, {"a": "norm_a"}),
        (Outer, {"inner.a": "inner.norm_a", "inner.b": "inner.norm_b", "last": "norm"}),
    ],
)
def test_the_norm_is_the_one_that_is_called(network, expected):
    assert norm_after(network()) == expected
    assert norm_after(network(), (3, 16, 16)) == expected


def test_a_model_that_takes_no_usual_size_answers_for_its_own():
    class Odd(Branching):
        def forward(self, x):
            if x.shape[-1] != 50:
                raise ValueError("50 wide, please")
            return super().forward(x)

    assert norm_after(Odd()) == {}
    assert norm_after(Odd(), (3, 50, 50)) == CROSSED


def test_norms_with_an_activation_inside_count():
    found = norm_after(timm.create_model("mobilenetv2_050", num_classes=10))
    assert len(found) == 52
    assert found["conv_stem"] == "bn1"


def test_converted_layers_count_as_convolutions():
    model = CrossedNames()
    convert_(model, GroupNLConfig())
    assert norm_after(model) == CROSSED


def test_an_activation_in_place_between_layer_and_norm_trains():
    model = ReluBetween()
    convert_(model, GroupNLConfig())
    assert model.conv.save == "seeds"
    model(torch.randn(4, 3, 16, 16)).sum().backward()
    assert model.conv.weight.grad is not None


def test_the_norm_that_is_called_lets_the_layer_keep_its_output():
    model = CrossedNames()
    convert_(model, GroupNLConfig())
    assert model.b.save == "output"


def test_a_copy_without_weights_shares_nothing():
    model = CrossedNames()
    copied = copy_without_weights(model)
    assert all(tensor.is_meta for tensor in copied.state_dict().values())
    assert not any(tensor.is_meta for tensor in model.state_dict().values())
