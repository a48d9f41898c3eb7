"""LocalBinaryConv2d: the function written out, the fixed filters, what every argument does, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from seedcnn import rng
from seedcnn.layers import LocalBinaryConv2d


def layer(**kwargs):
    options = {"in_channels": 4, "out_channels": 10, "kernel_size": 3, "padding": 1} | kwargs
    torch.manual_seed(0)
    return LocalBinaryConv2d(**options)


def test_the_layer_written_out():
    module = layer(mid_channels=7, norm=True, bias=True)
    x = torch.randn(2, 4, 6, 7)
    y = F.conv2d(F.batch_norm(x, None, None, training=True), module.filters, padding=1).relu()
    torch.testing.assert_close(module(x), F.conv2d(y, module.pointwise.weight, module.pointwise.bias))
    assert module.filters.shape == (7, 4, 3, 3)


def test_filters_are_the_draws_cut_at_the_threshold():
    module = layer(nonzero_fraction=0.3, seed=77)
    draws = rng.uniform(77, rng.FixedPoint.from_range(-1, 1), tensor_id=0, count=360)
    expected = np.where(draws >= np.float32(0.7), 1, np.where(draws < -np.float32(0.7), -1, 0))
    np.testing.assert_array_equal(module.filters.numpy().ravel(), expected)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9, 1.0])
def test_share_of_nonzero_elements_and_balance_of_signs(fraction):
    filters = layer(in_channels=64, out_channels=64, nonzero_fraction=fraction).filters
    count = filters.numel()
    assert set(filters.unique().tolist()) <= {-1.0, 0.0, 1.0}
    assert abs(float(filters.abs().mean()) - fraction) < 4 * 0.5 / count**0.5
    assert abs(float(filters.mean())) < 4 / count**0.5


@pytest.mark.parametrize(
    "option",
    [
        {"mid_channels": 5},
        {"nonzero_fraction": 0.2},
        {"norm": True},
        {"groups": 2},
        {"bias": True},
        {"seed": 1},
        {"stride": 2},
        {"padding_mode": "circular"},
        {"dilation": 2, "padding": 2},
    ],
    ids=str,
)
def test_every_argument_has_an_effect(option):
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(2))
    base, changed = layer()(x), layer(**option)(x)
    assert base.shape != changed.shape or not torch.allclose(base, changed)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"nonzero_fraction": 0}, ["nonzero_fraction", "0", "(0, 1]"]),
        ({"nonzero_fraction": 1.1}, ["nonzero_fraction", "1.1"]),
        ({"mid_channels": 0}, ["mid_channels", "0"]),
        ({"groups": 3}, ["in_channels", "4", "groups", "3"]),
        ({"groups": 2, "mid_channels": 5}, ["mid_channels", "5", "groups", "2"]),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_by_name(options, words):
    with pytest.raises(ValueError) as caught:
        layer(**options)
    for word in words:
        assert word in str(caught.value)
