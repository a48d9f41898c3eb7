"""Shift convolution: a learnable offset for each channel, ReLU, and a 1x1 convolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seedcnn.layers._base import ConvLayer
from seedcnn.layers._checks import IntPair, check_positive, conv2d, same_size
from seedcnn.layers.families import ConversionConfig, register

__all__ = ["ChannelShift", "ShiftConv2d"]


def _moved(x: Tensor, dy: Tensor, dx: Tensor) -> Tensor:
    """Compute ``y[..., c, i, j] = x[..., c, i + dy[c], j + dx[c]]``, 0 outside the map. dy, dx: whole numbers [c]."""
    height, width = x.shape[-2], x.shape[-1]
    rows = torch.arange(height, device=x.device) + dy.long()[:, None]  # [c, H]
    columns = torch.arange(width, device=x.device) + dx.long()[:, None]  # [c, W]
    channels = torch.arange(dy.shape[0], device=x.device)[:, None, None]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    taken = x[..., channels, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]]
    return torch.where(inside, taken, torch.zeros((), dtype=x.dtype, device=x.device))


class ChannelShift(nn.Module):
    """Shift of each channel by a learnable offset, rounded to whole pixels; pixels from outside the map are 0.

    The offsets' gradient is that of bilinear interpolation at the real offset; the input's is that of the rounded
    shift. ``offsets`` is [channels, 2], (down, right) in pixels, initialised uniformly in [-1, 1).

    Shape:
        [..., channels, H, W] to the same shape.
    """

    def __init__(self, channels: int, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.offsets = nn.Parameter(torch.empty(channels, 2, device=device, dtype=dtype))
        nn.init.uniform_(self.offsets, -1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Shift [..., channels, H, W], keeping channels_last."""
        dy, dx = self.offsets.unbind(1)
        y = _moved(x, dy.round(), dx.round())
        if torch.is_grad_enabled() and self.offsets.requires_grad:
            between = _interpolated(x.detach(), dy, dx).to(x.dtype)
            y = y + (between - between.detach())  # adds 0 and the offsets' gradient
        if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
            return y.contiguous(memory_format=torch.channels_last)
        return y


def _interpolated(x: Tensor, dy: Tensor, dx: Tensor) -> Tensor:
    top, left = dy.detach().floor(), dx.detach().floor()
    down, right = (dy - top)[:, None, None], (dx - left)[:, None, None]
    upper = (1 - right) * _moved(x, top, left) + right * _moved(x, top, left + 1)
    lower = (1 - right) * _moved(x, top + 1, left) + right * _moved(x, top + 1, left + 1)
    return (1 - down) * upper + down * lower


class ShiftConv2d(ConvLayer):
    """A learnable shift of each channel, ReLU and a 1x1 convolution in place of a spatial convolution (active shift).

    Args:
        in_channels, out_channels, stride, groups, bias: as in ``nn.Conv2d``, for the 1x1 convolution.
        kernel_size, padding, dilation, padding_mode: geometry of the replaced convolution; it must keep the map's size
            (before the stride) and has no other effect.
        device, dtype: device and dtype of the weights and of the 2 * in_channels offsets.

    Shape:
        [N, c_in, H, W] or [c_in, H, W] to [N, c_out, H', W'] or [c_out, H', W'], H' and W' as in ``nn.Conv2d``.

    Raises:
        ValueError: naming the argument, its value and the rule.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: IntPair | str = 0,
        dilation: IntPair = 1,
        groups: int = 1,
        bias: bool = False,
        padding_mode: str = "zeros",
        *,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        in_channels, out_channels = check_positive(in_channels=in_channels, out_channels=out_channels)
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, padding_mode)
        same_size(self.kernel_size, self.padding, self.dilation, padding_mode)
        self.shift = ChannelShift(in_channels, device, dtype)
        self.pointwise: nn.Conv2d = conv2d(
            in_channels, out_channels, 1, self.stride, groups=groups, bias=bias, device=device, dtype=dtype
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, c_in, H, W] to [N, c_out, H', W'], keeping channels_last and the autocast dtype."""
        return self.pointwise(torch.relu(self.shift(x)))


@dataclass(frozen=True)
class ShiftConfig(ConversionConfig):
    """Config of :class:`seedcnn.layers.ShiftConv2d`."""


register("shift", ShiftConfig, ShiftConv2d)
