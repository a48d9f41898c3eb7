"""A layer of any family, brought as near as a few steps can to the trained convolution it would replace.

Every family gets the same treatment, so that none looks better for having an initialisation of its own: the dense
filters where it has a place for them, then steps of Adam on the layer's own output.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from seedcnn.convert.from_dense import from_dense_weights
from seedcnn.layers import ConditionalReductionConv2d, DepthwiseSeparableConv2d, GhostConv2d, GroupNLConv2d

__all__ = ["fit", "start_from_dense"]

_RATE = 0.03  # of a tensor's root mean square, a step
_SMALLEST = 1e-2


def _leading(part: Any, weight: Tensor, bias: Tensor | None) -> None:
    """The first filters, cut to the input channels that each group sees."""
    rows, seen = part.out_channels // part.groups, part.in_channels // part.groups
    blocks = [weight[i * rows : (i + 1) * rows, i * seen : (i + 1) * seen] for i in range(part.groups)]
    part.weight.copy_(torch.cat(blocks))
    if part.bias is not None and bias is not None:
        part.bias.copy_(bias[: part.out_channels])


def _separated(layer: DepthwiseSeparableConv2d, weight: Tensor, bias: Tensor | None) -> None:
    """The best product of one spatial filter and one column of weights for each input channel, by its SVD."""
    u, s, v = torch.linalg.svd(weight.transpose(0, 1).flatten(2), full_matrices=False)  # [c_in, c_out, k * k]
    root = s[:, :1].sqrt()
    layer.depthwise.weight.copy_((root * v[:, 0]).reshape(layer.depthwise.weight.shape))
    dense = nn.Conv2d(layer.in_channels, layer.out_channels, 1, bias=bias is not None)
    dense.weight.copy_((root * u[:, :, 0]).T[:, :, None, None])
    if dense.bias is not None and bias is not None:
        dense.bias.copy_(bias)
    start_from_dense(layer.pointwise, dense)


@torch.no_grad()
def start_from_dense(layer: nn.Module, conv: nn.Conv2d) -> None:
    """Put the dense filters where the layer has a place for them, in place; other layers keep fresh weights.

    Seed and primary filters are the first ones; a depthwise-separable layer takes the best separable filters.
    """
    weight, bias = conv.weight, conv.bias
    if isinstance(layer, GroupNLConv2d):
        from_dense_weights(conv, layer)
    elif type(layer) is nn.Conv2d:
        _leading(layer, weight, bias)
    elif isinstance(layer, (GhostConv2d, ConditionalReductionConv2d)):
        _leading(next(iter(layer.primary)), weight, bias)
    elif isinstance(layer, DepthwiseSeparableConv2d):
        _separated(layer, weight, bias)


def _centred(x: Tensor) -> Tensor:
    return x - x.mean((0, 2, 3), keepdim=True)


def _miss(z: Tensor, y: Tensor, importance: Tensor | None) -> tuple[Tensor, Tensor]:
    """What is lost of ``y`` [N, C, H, W], as a share, and the correlations [C] of both.

    With ``importance`` [C] a norm follows, which takes any scale and shift of ``z`` back; without it nothing does.
    """
    zc, yc = _centred(z), _centred(y)
    tiny = 1e-12
    both = (zc * yc).mean((0, 2, 3))
    spread_z, spread_y = zc.square().mean((0, 2, 3)), yc.square().mean((0, 2, 3))
    correlation = both / (spread_z * spread_y + tiny).sqrt()
    if importance is None:
        return (z - y).square().mean() / (spread_y.mean() + tiny), correlation
    return (importance * (1 - correlation.square())).sum() / (importance.sum() + tiny), correlation


def fit(layer: nn.Module, x: Tensor, y: Tensor, norm: nn.BatchNorm2d | None, *, steps: int) -> Tensor:
    """Bring ``layer(x)`` near ``y``, in place, and leave the layer in eval mode.

    Args:
        x: [N, c_in, H, W], what the trained convolution was given.
        y: [N, c_out, H', W'], what it answered.
        norm: the BatchNorm that follows, whose squared scales say how much each channel matters; None if none does.
        steps: of Adam; the best of the layers on the way is kept, the start among them.

    Returns:
        Correlation of each output channel with the trained one, float32 [c_out].
    """
    importance = None if norm is None else torch.ones(y.shape[1])
    if norm is not None and norm.weight is not None:
        importance = norm.weight.detach().square()
    groups = [
        {"params": [p], "lr": _RATE * max(float(p.detach().square().mean().sqrt()), _SMALLEST)}
        for p in layer.parameters()
        if p.requires_grad
    ]
    optimizer = torch.optim.Adam(groups)
    layer.train()
    least, best, found = float("inf"), copy.deepcopy(layer.state_dict()), torch.ones(y.shape[1])
    for step in range(steps + 1):
        optimizer.zero_grad(set_to_none=True)
        loss, correlation = _miss(layer(x), y, importance)
        missed = float(loss.detach())
        if missed < least:
            least, best, found = missed, copy.deepcopy(layer.state_dict()), correlation.detach().clone()
        if step < steps:
            loss.backward()
            optimizer.step()
    layer.load_state_dict(best)
    layer.eval()
    return found.clamp(-1, 1)
