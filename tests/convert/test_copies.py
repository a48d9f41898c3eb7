"""Copies of networks share nothing with the original, whatever their attributes hold."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from seedcnn.convert.copies import copy_model, copy_without_weights
from seedcnn.evaluate import cost
from seedcnn.export import fold


class Holding(nn.Module):
    """A convolution that is called the way ``hold`` makes of it."""

    def __init__(self, hold):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.call = hold(self.conv)

    def forward(self, x):
        return self.call(x).mean((2, 3))


def closure(conv):
    return lambda x: conv(x)


def nested(conv):
    inner = closure(conv)
    return functools.partial(lambda call, x: call(x), lambda x: inner(x))


def default(conv):
    return lambda x, conv=conv: conv(x)


def listed(conv):
    layers = [conv]
    return lambda x: layers[0](x)


def itself(conv):
    def call(x, depth=1):
        return call(x, depth - 1) if depth else conv(x)

    return call


def weights(conv):
    weight, bias = conv.weight, conv.bias
    return lambda x: nn.functional.conv2d(x, weight, bias)


WAYS = pytest.mark.parametrize("hold", [closure, nested, default, listed, itself, weights])


@WAYS
def test_functions_close_over_the_copys_parts(hold):
    model, x = Holding(hold).eval(), torch.randn(2, 3, 6, 6)
    copied = copy_model(model)
    expected = model(x)
    torch.testing.assert_close(copied(x), expected, rtol=0, atol=0)
    with torch.no_grad():
        copied.conv.weight.zero_()
        copied.conv.bias.fill_(7)
    assert (copied(x) == 7).all()
    torch.testing.assert_close(model(x), expected, rtol=0, atol=0)
    assert copied.double()(x.double()).dtype == torch.float64
    assert model(x).dtype == torch.float32


def test_functions_that_hold_no_part_stay():
    offset = 2.0
    model = Holding(closure)
    model.shift = lambda x: x + offset
    assert copy_model(model).shift is model.shift


@WAYS
def test_costs_and_inference_forms_know_them(hold):
    model = Holding(hold)
    assert copy_without_weights(model)(torch.empty(1, 3, 6, 6, device="meta")).shape == (1, 4)
    if hold is not weights:  # a function of torch, which no layer counts
        assert cost(model, (3, 6, 6)).macs == 4 * 4 * 4 * 27
    x = torch.randn(2, 3, 6, 6)
    folded = fold(model.double())
    torch.testing.assert_close(folded(x).double(), model(x.double()), rtol=1e-5, atol=1e-5)
