"""Inference forms: the modules a folded network is made of."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from seedcnn.layers import norms
from seedcnn.layers._base import ConvLayer, SeededConv2d, conv_like
from seedcnn.layers.targets import Target
from seedcnn.rng import FixedPoint

__all__ = [
    "ChannelAffine",
    "DepthwiseSum",
    "FoldedSeeded",
    "Rescaled",
    "SeedSpec",
    "affine_of",
    "column",
    "geometry_of",
    "is_affine",
    "seed_conv_of",
    "split_norm",
    "still_channels",
    "with_norm",
]


_STILL = 1e-4  # fraction of a norm's eps below which a variance is rounding noise

# Norms with running statistics -> the axes after the channel's; None: any number.
_NORM_AXES: dict[type[nn.Module], int | None] = {
    nn.BatchNorm1d: None,
    nn.BatchNorm2d: 2,
    norms.BatchNorm2d: 2,
    nn.BatchNorm3d: 3,
    nn.SyncBatchNorm: None,
    nn.InstanceNorm1d: 1,
    nn.InstanceNorm2d: 2,
    nn.InstanceNorm3d: 3,
}


def is_affine(module: nn.Module) -> bool:
    """Return whether a module is a norm that scales and shifts each channel in eval mode, whatever its input.

    Such a norm has running statistics; a subclass with code of its own may do anything else.
    """
    if not isinstance(module, nn.modules.batchnorm._NormBase) or module.training:
        return False
    known = any(isinstance(module, kind) and type(module).forward is kind.forward for kind in _NORM_AXES)
    return known and module.track_running_stats and module.running_mean is not None and module.running_var is not None


def _axes_of(norm: nn.Module) -> int | None:
    return next(axes for kind, axes in reversed(_NORM_AXES.items()) if isinstance(norm, kind))


def column(values: Tensor) -> nn.Parameter:
    """Return per-channel numbers [C] of any precision as a float32 parameter [C, 1, 1]."""
    return nn.Parameter(values.float()[:, None, None].contiguous())


@dataclass(frozen=True)
class SeedSpec:
    """Rule for redrawing a fixed tensor: ``count`` draws, each repeated ``repeat`` times in a row."""

    seed: int
    tensor_id: int
    fixed: FixedPoint
    count: int
    repeat: int


def affine_of(norm: nn.BatchNorm2d | None, channels: int) -> tuple[Tensor, Tensor]:
    """Return a BatchNorm in eval mode as scale and shift, both [channels] in float64; ones and zeros for None.

    They give the norm's function for every channel, even one that never varied in training, whose scale is near
    sqrt(1 / eps); see :func:`still_channels`.
    """
    if norm is None:
        return torch.ones(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a BatchNorm without running statistics cannot be folded")
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -norm.running_mean.double() * scale
    return scale, shift if norm.bias is None else shift + norm.bias.detach().double()


def still_channels(norm: nn.BatchNorm2d | None, channels: int) -> Tensor:
    """Return a mask of the channels that never varied in training but that the norm amplifies: bool [channels].

    Folding such a large scale into a weight would give useless large values that spoil the integer grid of all other
    channels, so the scale and shift of these channels stay outside (:class:`Rescaled`).
    """
    if norm is None or norm.running_var is None:
        return torch.zeros(channels, dtype=torch.bool)
    scale, _ = affine_of(norm, channels)
    return (norm.running_var <= _STILL * norm.eps) & (scale.abs() > 1)


class Rescaled(nn.Module):
    """A module followed by the scale and shift of its still channels: ``scale * body(x) + shift``.

    Args:
        body: a module that returns [N, C, H, W].
        scale, shift: [C]; 1 and 0 for a channel that is left alone.
    """

    def __init__(self, body: nn.Module, scale: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.body, self.scale, self.shift = body, column(scale), column(shift)

    def forward(self, x: Tensor) -> Tensor:
        """Map the body's input to [N, C, H, W]."""
        y: Tensor = self.body(x) * self.scale + self.shift
        return y


def split_norm(norm: nn.BatchNorm2d) -> tuple[nn.BatchNorm2d, Callable[[nn.Module], nn.Module]]:
    """Return a norm without its still channels, and a function that reapplies these after the folded module."""
    still = still_channels(norm, norm.num_features)
    if not still.any() or norm.running_mean is None or norm.running_var is None:
        return norm, lambda body: body
    scale, shift = affine_of(norm, norm.num_features)
    rest = nn.BatchNorm2d(norm.num_features, norm.eps).eval()
    rest.load_state_dict(norm.state_dict(), strict=False)
    rest.running_mean[still], rest.running_var[still] = 0.0, 1.0 - norm.eps  # type: ignore[index]
    with torch.no_grad():
        rest.weight[still], rest.bias[still] = 1.0, 0.0
    one, nothing = torch.ones_like(scale), torch.zeros_like(shift)
    return rest, lambda body: Rescaled(body, torch.where(still, scale, one), torch.where(still, shift, nothing))


class DepthwiseSum(nn.Module):
    """A grouped convolution with one output per group, as a depthwise convolution and a sum over each group's inputs.

    It computes the same function as ``conv`` (groups == out_channels), several times faster in most runtimes.

    Args:
        conv: the grouped convolution.
        sums: one of :data:`seedcnn.layers.targets.SUMS`.
    """

    def __init__(self, conv: nn.Conv2d, sums: str = "rows") -> None:
        super().__init__()
        self.sums, self.outputs = sums, conv.out_channels
        self.per_output = conv.in_channels // conv.out_channels
        self.depthwise = conv_like(conv, conv.in_channels, conv.in_channels, groups=conv.in_channels)
        self.depthwise.weight = nn.Parameter(conv.weight.detach().reshape(self.depthwise.weight.shape))
        self.bias = nn.Parameter(conv.bias.detach()[:, None, None]) if conv.bias is not None else None

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, c_in, H, W] to [N, c_out, H', W']."""
        y = self.depthwise(x)
        y = self._sum_by_rows(y) if self.sums == "rows" else self._sum_by_convolution(y)
        return y if self.bias is None else y + self.bias

    def _sum_by_rows(self, y: Tensor) -> Tensor:
        height, width = y.shape[2], y.shape[3]
        stacked = y.reshape(y.shape[0], self.outputs, self.per_output * height, width)
        total = stacked[:, :, :height]
        for index in range(1, self.per_output):
            total = total + stacked[:, :, index * height : (index + 1) * height]
        return total

    def _sum_by_convolution(self, y: Tensor) -> Tensor:
        block = _block(self.outputs)
        inputs = torch.arange(block * self.per_output, device=y.device) // self.per_output
        ones = (inputs == torch.arange(block, device=y.device)[:, None]).to(y.dtype)  # [block, block * per_output]
        groups = self.outputs // block
        return F.conv2d(y, ones[:, :, None, None].repeat(groups, 1, 1, 1), groups=groups)


def _block(outputs: int) -> int:
    """Return how many sums each group of the 1x1 convolution makes.

    16 if that divides ``outputs``, else 8, else all of them: whole vectors, with as few products with zero as possible.
    """
    for unit in (16, 8):
        if outputs % unit == 0:
            return unit
    return outputs


def seed_conv_of(
    layer: Any, groups: int, scale: Tensor, shift: Tensor, target: Target, still: Tensor | None = None
) -> nn.Module:
    """Return the layer's seed convolution followed by ``scale * s + shift`` per seed channel, as one module.

    Args:
        layer: a :class:`ConvLayer` with ``seed_channels``, ``weight`` and ``bias``.
        still: channels whose scale and shift stay outside the weights, bool [c_seed].
    """
    if still is not None and still.any():
        one, nothing = torch.ones_like(scale), torch.zeros_like(shift)
        inside = torch.where(still, one, scale), torch.where(still, nothing, shift)
        body = seed_conv_of(layer, groups, *inside, target)
        return Rescaled(body, torch.where(still, scale, one), torch.where(still, shift, nothing))
    conv = conv_like(layer, layer.in_channels, layer.seed_channels, groups=groups, bias=True)
    bias = torch.zeros_like(shift) if layer.bias is None else layer.bias.detach().double()
    conv.weight = nn.Parameter((layer.weight.detach().double() * scale[:, None, None, None]).float())
    conv.bias = nn.Parameter((bias * scale + shift).float())
    if groups == layer.seed_channels and layer.in_channels > layer.seed_channels:
        return DepthwiseSum(conv, target.sums)
    return conv


class ChannelAffine(nn.Module):
    """A norm in eval mode that could not be folded: ``scale * x + shift`` per channel.

    Args:
        norm: a norm for which :func:`is_affine` holds.
    """

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.axes = _axes_of(norm)
        scale, shift = (part.float() for part in affine_of(norm, norm.num_features))
        self.scale, self.shift = (nn.Parameter(part[(..., *[None] * (self.axes or 0))]) for part in (scale, shift))

    def forward(self, input: Tensor) -> Tensor:
        """Scale and shift the norm's input, [N, C, ...] or [C, ...]."""
        if self.axes is not None:
            return input * self.scale + self.shift
        shape = (-1, *[1] * (input.dim() - 2))
        return input * self.scale.reshape(shape) + self.shift.reshape(shape)


class FoldedSeeded(nn.Module):
    """A seeded layer and the norm after it: the layer's own code, with its fixed tensors as parameters.

    Args:
        layer: the layer in eval mode; it is copied.
        norm: the BatchNorm that follows it, or None.

    Shape:
        [N, c_in, H, W] to [N, c_out, H', W'].
    """

    def __init__(self, layer: SeededConv2d, norm: nn.BatchNorm2d | None) -> None:
        super().__init__()
        inner: Any = copy.deepcopy(layer)
        inner.draw_fixed = lambda device: None  # noqa: ARG005
        specs = {}
        for name, fixed in layer.fixed().items():
            delattr(inner, name)
            numbers = getattr(layer, name).detach().cpu().clone()
            inner.register_parameter(name, nn.Parameter(numbers, requires_grad=False))
            specs[name] = SeedSpec(layer.seed, fixed.tensor_id, fixed.bounds, numbers.numel(), 1)
        inner.seed_specs = specs
        self.layer = inner
        self.after = nn.Identity() if norm is None else ChannelAffine(norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, c_in, H, W] to [N, c_out, H', W']."""
        y: Tensor = self.after(self.layer(x))
        return y


def geometry_of(layer: ConvLayer) -> ConvLayer:
    """Return a layer without weights that convolves with the geometry of ``layer``."""
    geometry: Any = (layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.padding_mode)
    return ConvLayer(layer.in_channels, layer.out_channels, *geometry)


def with_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> nn.Module:
    """Fold the norm that follows a convolution into it."""
    if norm is None:
        return conv
    rest, put_back = split_norm(norm)
    return put_back(fuse_conv_bn_eval(conv, rest))
