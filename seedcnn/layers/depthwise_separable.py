"""Depthwise-separable convolution: the control that every other family has to beat."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from seedcnn.layers._base import ConvLayer, slow_gradient
from seedcnn.layers._checks import IntPair, conv2d
from seedcnn.layers._norms import BatchNorm2d

__all__ = ["DepthwiseSeparableConv2d"]


class DepthwiseSeparableConv2d(ConvLayer):
    """A depthwise k x k convolution, BatchNorm, ReLU, and a dense 1x1 convolution (MobileNet, without its last norm).

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, padding_mode: as in ``nn.Conv2d``; the
            geometry is the depthwise convolution's.
        groups: must be 1: the depthwise convolution has in_channels groups, the pointwise one.
        bias: of the pointwise convolution.
        norm: BatchNorm after the depthwise convolution.
        relu: ReLU after it.
        device, dtype: of the weights.

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
        norm: bool = True,
        relu: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, padding_mode)
        if groups != 1:
            raise ValueError(f"`groups` (={groups}) must be 1: a depthwise-separable convolution chooses its own")
        place: Any = {"device": device, "dtype": dtype}
        geometry: Any = (self.kernel_size, self.stride, self.padding, self.dilation)
        self.depthwise = conv2d(
            in_channels, in_channels, *geometry, groups=in_channels, bias=False, padding_mode=padding_mode, **place
        )
        self.norm: nn.Module = BatchNorm2d(in_channels, **place) if norm else nn.Identity()
        self.relu: nn.Module = nn.ReLU() if relu else nn.Identity()
        self.pointwise: nn.Module = nn.Conv2d(in_channels, out_channels, 1, bias=bias, **place)

    def forward(self, x: Tensor) -> Tensor:
        """[N, c_in, H, W] to [N, c_out, H', W']; channels_last and the autocast dtype are kept."""
        return self.pointwise(self.relu(self.norm(self._filtered(x))))

    def _filtered(self, x: Tensor) -> Tensor:
        if slow_gradient(x, self.depthwise.stride):
            with torch.autocast("cpu", enabled=False):
                return self.depthwise(x.float())
        return self.depthwise(x)
