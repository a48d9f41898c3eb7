"""DepthwiseSeparableConv2d: the function written out, what every argument does, what is refused."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from seedcnn.layers import DepthwiseSeparableConv2d


def layer(**kwargs):
    options = {"in_channels": 4, "out_channels": 10, "kernel_size": 3, "padding": 1} | kwargs
    torch.manual_seed(0)
    return DepthwiseSeparableConv2d(**options)


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("relu", [True, False])
def test_the_layer_written_out(norm, relu):
    module = layer(norm=norm, relu=relu, bias=True, stride=2)
    x = torch.randn(2, 4, 6, 7)
    y = F.conv2d(x, module.depthwise.weight, stride=2, padding=1, groups=4)
    y = F.batch_norm(y, None, None, training=True) if norm else y
    y = y.relu() if relu else y
    torch.testing.assert_close(module(x), F.conv2d(y, module.pointwise.weight, module.pointwise.bias))
    assert sum(p.numel() for p in module.parameters()) == 4 * 9 + 8 * norm + 40 + 10


def test_strided_gradients_are_as_exact_in_autocast_as_the_rest():
    x = torch.randn(8, 4, 8, 8, requires_grad=True)
    module = layer(stride=2, norm=False, relu=False)
    wanted = torch.autograd.grad(module.depthwise(x).square().sum(), [x, module.depthwise.weight])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        kept = []
        module.depthwise.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
        assert module(x).dtype == torch.bfloat16
        found = torch.autograd.grad(kept[0].float().square().sum(), [x, module.depthwise.weight])
    assert all(torch.allclose(one, other, rtol=1e-4, atol=1e-5) for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize(
    "option",
    [{"norm": False}, {"relu": False}, {"bias": True}, {"stride": 2}, {"padding_mode": "reflect"}, {"padding": 0}],
    ids=str,
)
def test_every_argument_has_an_effect(option):
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(2))
    base, changed = layer()(x), layer(**option)(x)
    assert base.shape != changed.shape or not torch.allclose(base, changed)


def test_groups_are_refused_by_name():
    with pytest.raises(ValueError, match=r"`groups` \(=2\) must be 1"):
        layer(groups=2)
