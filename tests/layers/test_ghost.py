"""GhostConv2d: the function written out, cropping, what every argument does, what is refused."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from seedcnn.layers import GhostConv2d


def layer(**kwargs):
    options = {"in_channels": 4, "out_channels": 10, "kernel_size": 3, "padding": 1} | kwargs
    torch.manual_seed(0)
    return GhostConv2d(**options)


def test_equation_14_written_out():
    module = layer(norm=False, relu=False, ratio=3, cheap_kernel_size=5)
    x = torch.randn(2, 4, 6, 7)
    primary, cheap = module.primary[0].weight, module.cheap[0].weight
    assert primary.shape == (4, 4, 3, 3)  # ceil(10 / 3)
    assert cheap.shape == (8, 1, 5, 5)
    y = F.conv2d(x, primary, padding=1)
    z = F.conv2d(y, cheap, padding=2, groups=4)
    torch.testing.assert_close(module(x), torch.cat([y, z], 1)[:, :10])


def test_norm_and_relu_follow_both_parts():
    module = layer(ratio=2)
    x = torch.randn(3, 4, 6, 7)
    y = F.relu(F.batch_norm(F.conv2d(x, module.primary[0].weight, padding=1), None, None, training=True))
    z = F.relu(F.batch_norm(F.conv2d(y, module.cheap[0].weight, padding=1, groups=5), None, None, training=True))
    torch.testing.assert_close(module(x), torch.cat([y, z], 1), rtol=1e-4, atol=1e-5)


def test_dense_cheap_operation():
    module = layer(ratio=4, cheap="pointwise", norm=False, relu=False)
    x = torch.randn(2, 4, 6, 7)
    assert module.cheap[0].weight.shape == (9, 3, 1, 1)
    y = F.conv2d(x, module.primary[0].weight, padding=1)
    torch.testing.assert_close(module(x), torch.cat([y, F.conv2d(y, module.cheap[0].weight)], 1)[:, :10])


def test_primary_channels_instead_of_a_ratio():
    module = layer(primary_channels=3, norm=False)
    assert module.primary[0].weight.shape[0] == 3
    assert module.cheap[0].weight.shape[0] == 9
    assert module(torch.rand(1, 4, 6, 6)).shape == (1, 10, 6, 6)


def test_ratio_one_is_a_plain_convolution():
    module = layer(ratio=1, norm=False, relu=False)
    x = torch.randn(2, 4, 6, 7)
    torch.testing.assert_close(module(x), F.conv2d(x, module.primary[0].weight, padding=1))


@pytest.mark.parametrize(
    "option",
    [
        {"ratio": 3},
        {"primary_channels": 2},
        {"cheap": "pointwise"},
        {"cheap_kernel_size": 1},
        {"norm": False},
        {"relu": False},
        {"bias": True},
        {"stride": 2},
        {"dilation": 2, "padding": 2},
        {"padding_mode": "reflect"},
        {"padding": 0},
    ],
    ids=str,
)
def test_every_argument_has_an_effect(option):
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(2))
    base, changed = layer(norm="norm" in option), layer(**({"norm": False} | option))
    assert base(x).shape != changed(x).shape or not torch.allclose(base(x), changed(x))


def test_groups_reach_the_primary_convolution():
    assert layer(groups=2, primary_channels=4).primary[0].weight.shape == (4, 2, 3, 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ratio": 0}, ["ratio", "0"]),
        ({"cheap": "sparse"}, ["cheap", "sparse", "depthwise"]),
        ({"cheap_kernel_size": 2}, ["cheap_kernel_size", "2", "odd"]),
        ({"primary_channels": 11}, ["primary_channels", "11", "out_channels", "10"]),
        ({"groups": 3}, ["in_channels", "4", "groups", "3"]),
        ({"groups": 0}, ["groups", "0"]),
        ({"stride": 0}, ["stride", "0"]),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_by_name(options, words):
    with pytest.raises(ValueError) as caught:
        layer(**options)
    for word in words:
        assert word in str(caught.value)
