"""PerturbativeConv2d: the function written out, one mask for every map size, what is refused."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from seedcnn import rng
from seedcnn.layers import PerturbativeConv2d


def layer(**kwargs):
    options = {"in_channels": 4, "out_channels": 10, "kernel_size": 3, "padding": 1} | kwargs
    torch.manual_seed(0)
    return PerturbativeConv2d(**options)


def test_the_layer_written_out():
    module = layer(norm=True, bias=True, level=0.5, seed=3)
    drawn = rng.uniform(3, rng.FixedPoint.from_range(-0.5, 0.5), tensor_id=0, count=4 * 32 * 32)
    mask = torch.from_numpy(drawn).view(4, 32, 32)[:, :6, :7]
    x = torch.randn(2, 4, 6, 7)
    y = F.batch_norm((x + mask).relu(), None, None, training=True)
    torch.testing.assert_close(module(x), F.conv2d(y, module.pointwise.weight, module.pointwise.bias))


def test_maps_beyond_the_tile_meet_it_again():
    module = layer(mask_size=3)
    with torch.no_grad():
        module.pointwise.weight.abs_()
    y = module(torch.full((1, 4, 5, 8), 1.0))
    torch.testing.assert_close(y[..., 3:5, :], y[..., 0:2, :])
    torch.testing.assert_close(y[..., :, 3:6], y[..., :, 0:3])
    assert not torch.allclose(y[..., 0, :], y[..., 1, :])


def test_a_layer_that_has_seen_one_size_loads_into_one_that_has_seen_another():
    source, target = layer(seed=5), layer(seed=6)
    source(torch.rand(1, 4, 9, 9))
    target(torch.rand(1, 4, 4, 6))
    target.load_state_dict(source.state_dict())
    assert set(source.state_dict()) == {"pointwise.weight", "seed"}
    x = torch.rand(2, 4, 40, 33)
    assert torch.equal(source(x), target(x))


def test_stride_and_kernel_only_set_the_geometry():
    x = torch.rand(2, 4, 9, 7)
    assert layer(stride=2)(x).shape == F.conv2d(x, torch.rand(10, 4, 3, 3), stride=2, padding=1).shape
    assert torch.equal(layer(kernel_size=5, padding=2)(x), layer()(x))
    assert torch.equal(layer(kernel_size=5, padding="same")(x), layer()(x))


@pytest.mark.parametrize(
    "option",
    [{"level": 0.3}, {"mask_size": 5}, {"norm": True}, {"bias": True}, {"groups": 2}, {"seed": 8}, {"stride": 2}],
    ids=str,
)
def test_every_argument_has_an_effect(option):
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(2))
    base, changed = layer()(x), layer(**option)(x)
    assert base.shape != changed.shape or not torch.allclose(base, changed)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"padding": 0}, ["padding", "(0, 0)", "same", "kernel_size"]),
        ({"kernel_size": 4, "padding": 1}, ["padding", "(1, 1)", "(4, 4)"]),
        ({"padding_mode": "reflect"}, ["padding_mode", "reflect", "zeros"]),
        ({"level": 0}, ["level", "0"]),
        ({"level": float("inf")}, ["level", "inf"]),
        ({"mask_size": 0}, ["mask_size", "0"]),
        ({"groups": 3}, ["in_channels", "4", "groups", "3"]),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_by_name(options, words):
    with pytest.raises(ValueError) as caught:
        layer(**options)
    for word in words:
        assert word in str(caught.value)
