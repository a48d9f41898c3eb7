"""ConditionalReductionConv2d: both forms written out, the rule, what every argument does, what is refused."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from seedcnn.layers import ConditionalReductionConv2d


def layer(c_in=6, c_out=16, **kwargs):
    torch.manual_seed(0)
    return ConditionalReductionConv2d(c_in, c_out, **kwargs)


def normed(x, relu=True):
    y = F.batch_norm(x, None, None, training=True)
    return y.relu() if relu else y


@pytest.mark.parametrize("relu", [True, False])
def test_gc_written_out(relu):
    module = layer(mode="gc", relu=relu)
    x = torch.randn(3, 6, 5, 7)
    weight = module.primary[0].weight
    assert weight.shape == (16, 3, 1, 1)
    torch.testing.assert_close(module(x), normed(F.conv2d(x, weight, groups=2), relu), rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in module.parameters()) == 6 * 16 // 2 + 2 * 16


@pytest.mark.parametrize("relu", [True, False])
def test_c1dw_written_out(relu):
    module = layer(mode="c1dw", alpha=0.3, relu=relu)  # m = ceil(4.8) = 5, beta = ceil(11 / 5) = 3
    x = torch.randn(3, 6, 5, 7)
    first, second = module.primary[0].weight, module.cheap[0].weight
    assert first.shape == (5, 6, 1, 1)
    assert second.shape == (15, 1, 3, 3)
    y = normed(F.conv2d(x, first), relu)
    z = normed(F.conv2d(y, second, padding=1, groups=5), relu)
    torch.testing.assert_close(module(x), torch.cat([y, z], 1)[:, :16], rtol=1e-4, atol=1e-5)


def test_auto_goes_by_the_channels():
    assert layer(6, 8).mode == "c1dw"
    assert layer(8, 8).mode == "gc"
    assert layer(8, 6).mode == "gc"


def test_stride_is_the_first_convolution_s_in_both_forms():
    x = torch.randn(2, 6, 5, 8)
    for mode in ("gc", "c1dw"):
        assert layer(mode=mode, stride=2)(x).shape == (2, 16, 3, 4)


def test_alpha_one_generates_nothing():
    module = layer(mode="c1dw", alpha=1, norm=False, relu=False)
    x = torch.randn(2, 6, 5, 7)
    torch.testing.assert_close(module(x), F.conv2d(x, module.primary[0].weight))


@pytest.mark.parametrize(
    "option",
    [
        {"mode": "gc"},
        {"mode": "gc", "groups": 1},
        {"alpha": 0.25},
        {"relu": False},
        {"norm": False},
        {"bias": True, "norm": False},
        {"stride": 2},
        {"padding": 1},
    ],
    ids=str,
)
def test_every_argument_has_an_effect(option):
    x = torch.randn(2, 6, 5, 5, generator=torch.Generator().manual_seed(2))
    others = [{}, {"mode": "gc"}, {"norm": False}]
    same = [other for other in others if set(other) <= set(option) and other != option]
    for other in same:
        base, changed = layer(**other)(x), layer(**option)(x)
        assert base.shape != changed.shape or not torch.allclose(base, changed)
    assert same


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kernel_size": 3, "padding": 1}, ["kernel_size", "3", "must be 1"]),
        ({"mode": "dw"}, ["mode", "dw", "c1dw"]),
        ({"mode": "gc", "groups": 4}, ["in_channels", "6", "groups", "4"]),
        ({"mode": "gc", "groups": 3}, ["out_channels", "16", "groups", "3"]),
        ({"groups": 0}, ["groups", "0"]),
        ({"alpha": 0}, ["alpha", "0"]),
        ({"alpha": 1.5}, ["alpha", "1.5"]),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_by_name(options, words):
    with pytest.raises(ValueError) as caught:
        layer(**options)
    for word in words:
        assert word in str(caught.value)
