"""Short fit of a layer of any family to the trained convolution it would replace.

Every family gets the same treatment, so that a special initialisation favours none: the dense filters where the layer
has a place for them, then steps of Adam on the layer's own output.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from seedcnn.layers import ConvLayer, copy_leading_filters

__all__ = ["fit", "start_from_dense"]

_RATE = 0.03  # learning rate, as a share of a tensor's root mean square
_SMALLEST = 1e-2


def start_from_dense(layer: nn.Module, conv: nn.Conv2d) -> None:
    """Copy the dense filters into a layer that has a place for them, in place; other layers keep fresh weights.

    Seed and primary filters are the first dense ones; a depthwise-separable layer gets the best separable fit.
    """
    if isinstance(layer, ConvLayer):
        layer.start_from(conv)
    elif type(layer) is nn.Conv2d:
        copy_leading_filters(layer, conv)


def _centred(x: Tensor) -> Tensor:
    return x - x.mean((0, 2, 3), keepdim=True)


def _miss(z: Tensor, y: Tensor, importance: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the share of ``y`` [N, C, H, W] that ``z`` misses, and the correlations [C] of both.

    ``importance`` [C] means that a norm follows, which undoes any scale and shift of ``z``.
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
    """Fit ``layer(x)`` to ``y``, in place, and leave the layer in eval mode.

    Args:
        x: [N, c_in, H, W], the trained convolution's input.
        y: [N, c_out, H', W'], its output.
        norm: the BatchNorm that follows, whose squared scales weight the channels, or None.
        steps: steps of Adam; the best state on the way, including the start, is kept.

    Returns:
        The correlation of each output channel with the trained one, float32 [c_out].
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
