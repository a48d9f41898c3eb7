"""Short fit of a layer of any family to the trained convolution it would replace.

Every family gets the same treatment, so that a special initialisation favours none: the dense filters where the layer
has a place for them, then steps of Adam on the layer's own output.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seedcnn.layers import ConvLayer, copy_leading_filters
from seedcnn.layers.low_pass import plain_type

__all__ = ["fit", "start_from_dense"]

_RATE = 0.03  # learning rate, as a share of a tensor's root mean square
_SMALLEST = 1e-2
_TINY = 1e-12
_ALL_BUT_C = (0, 2, 3)


def start_from_dense(layer: nn.Module, conv: nn.Conv2d) -> None:
    """Copy the dense filters into a layer that has a place for them, in place; other layers keep fresh weights.

    Seed and primary filters are the first dense ones; a depthwise-separable layer gets the best separable fit.
    """
    if isinstance(layer, ConvLayer):
        layer.start_from(conv)
    elif plain_type(layer) is nn.Conv2d:
        copy_leading_filters(layer, conv)


class Target:
    """The trained layer's output, which a form has to reproduce.

    What the form misses and the gradient of that are written out here, since autograd takes several times as long.

    Args:
        y: float32 [N, C, H, W].
        importance: [C], of channels that a norm follows, which undoes any scale and shift; None if there is no norm.
    """

    def __init__(self, y: Tensor, importance: Tensor | None) -> None:
        self.y, self.importance = y, importance
        self.centred = y - y.mean(_ALL_BUT_C, keepdim=True)
        self.spread = self.centred.square().mean(_ALL_BUT_C)
        self.places = y.numel() // y.shape[1]

    @torch.no_grad()
    def miss(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the share of the target that ``z`` misses, the correlations [C] of both, and the share's gradient.

        Without a norm the share is the mean squared error over the mean variance of the target, else 1 - correlation^2,
        averaged with the channels' importance.
        """
        zc = z - z.mean(_ALL_BUT_C, keepdim=True)
        both = (zc * self.centred).mean(_ALL_BUT_C)
        norm = (zc.square().mean(_ALL_BUT_C) * self.spread + _TINY).sqrt()
        correlation = both / norm
        if self.importance is None:
            apart, scale = z - self.y, self.spread.mean() + _TINY
            return apart.square().mean() / scale, correlation, apart.mul_(2 / (scale * z.numel()))
        share = self.importance / (self.importance.sum() + _TINY)
        slope = -2 * share * correlation / (self.places * norm)
        turn = -slope * both * self.spread / norm.square()
        gradient = zc.mul_(turn.view(-1, 1, 1)).addcmul_(self.centred, slope.view(-1, 1, 1))
        return (share * (1 - correlation.square())).sum(), correlation, gradient


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
    optimizer = torch.optim.Adam(groups, fused=True)
    target = Target(y, importance)
    layer.train()
    state = [tensor.detach() for tensor in (*layer.parameters(), *layer.buffers())]
    least, best, found = float("inf"), [tensor.clone() for tensor in state], torch.ones(y.shape[1])
    for step in range(steps + 1):
        optimizer.zero_grad(set_to_none=True)
        with torch.set_grad_enabled(step < steps):
            z = layer(x)
        missed, correlation, gradient = target.miss(z.detach())
        if float(missed) < least:
            least, found = float(missed), correlation
            for kept, tensor in zip(best, state, strict=True):
                kept.copy_(tensor)
        if step < steps:
            z.backward(gradient)
            optimizer.step()
    for kept, tensor in zip(best, state, strict=True):
        tensor.copy_(kept)
    layer.eval()
    return found.clamp(-1, 1)
