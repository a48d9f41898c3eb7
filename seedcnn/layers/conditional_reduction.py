"""Conditional Reduction: a 1x1 convolution made cheaper by groups, or by generating half of its channels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from seedcnn.layers._base import ConvLayer, copy_leading_filters
from seedcnn.layers._checks import IntPair, check_positive, conv2d, require
from seedcnn.layers.families import ConversionConfig, register
from seedcnn.layers.norms import BatchNorm2d

__all__ = ["MODES", "ConditionalReductionConv2d"]

MODES = ("auto", "gc", "c1dw")


class ConditionalReductionConv2d(ConvLayer):
    """A cheaper 1x1 convolution whose form depends on its input and output channels (CRnet, Section 3.1).

    "gc" is a grouped 1x1 convolution, BatchNorm, ReLU. "c1dw" is a 1x1 convolution to ``m = ceil(alpha * c_out)``
    channels, BatchNorm, ReLU, then a depthwise 3x3 from those to ``ceil((c_out - m) / m)`` times as many, BatchNorm,
    ReLU; the output is both, cropped to c_out. "auto" chooses c1dw if out_channels > in_channels and gc otherwise,
    including equal channels. There is no channel shuffle.

    Args:
        in_channels, out_channels, stride, padding, dilation, bias, padding_mode: as in ``nn.Conv2d``, for the 1x1
            convolution. The stride may exceed 1 in both modes: the depthwise part runs at the output's size.
        kernel_size: must be 1.
        groups: groups of mode "gc"; must divide both channel counts. Ignored in "c1dw".
        mode: "auto", "gc" or "c1dw".
        alpha: share of the output that "c1dw" convolves, in (0, 1]; ignored in "gc".
        relu: add a ReLU after each norm.
        norm: add a BatchNorm after each convolution; False is our addition, for a layer that another norm follows.
        device, dtype: device and dtype of the weights.

    Shape:
        [N, c_in, H, W] or [c_in, H, W] to [N, c_out, H', W'] or [c_out, H', W'].

    Raises:
        ValueError: naming the argument, its value and the rule.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair = 1,
        stride: IntPair = 1,
        padding: IntPair | str = 0,
        dilation: IntPair = 1,
        groups: int = 2,
        bias: bool = False,
        padding_mode: str = "zeros",
        *,
        mode: str = "auto",
        alpha: float = 0.5,
        relu: bool = True,
        norm: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        in_channels, out_channels = check_positive(in_channels=in_channels, out_channels=out_channels)
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, padding_mode)
        if self.kernel_size != (1, 1):
            raise ValueError(f"`kernel_size` (={kernel_size!r}) must be 1 in Conditional Reduction")
        require("mode", mode, MODES)
        (groups,) = check_positive(groups=groups)
        if not 0 < alpha <= 1:
            raise ValueError(f"`alpha` (={alpha!r}) must be in (0, 1]")
        if mode == "auto":
            mode = "c1dw" if out_channels > in_channels else "gc"
        self.mode, self.alpha = mode, alpha
        self.groups = groups if mode == "gc" else 1
        made = out_channels if mode == "gc" else min(out_channels, math.ceil(alpha * out_channels))
        self.generated_channels = out_channels - made
        place = {"device": device, "dtype": dtype}

        def part(conv: nn.Conv2d) -> nn.Sequential:
            norms = [BatchNorm2d(conv.out_channels, **place)] if norm else []
            return nn.Sequential(conv, *norms, *([nn.ReLU()] if relu else []))

        geometry: Any = (1, self.stride, self.padding, self.dilation)
        self.primary = part(
            conv2d(in_channels, made, *geometry, groups=self.groups, bias=bias, padding_mode=padding_mode, **place)
        )
        if self.generated_channels:
            wide = made * -(-self.generated_channels // made)
            self.cheap = part(conv2d(made, wide, 3, padding=1, groups=made, bias=False, **place))

    def inner_widths(self) -> tuple[int, ...]:
        """Return the channels of one group, or those that the 1x1 convolution computes."""
        return (self.out_channels // self.groups if self.mode == "gc" else self.out_channels - self.generated_channels,)

    def start_from(self, conv: nn.Conv2d) -> None:
        """Copy the first filters into the 1x1 convolution."""
        copy_leading_filters(next(iter(self.primary)), conv)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, c_in, H, W] to [N, c_out, H', W'], keeping channels_last and the autocast dtype."""
        y = self.primary(x)
        if not self.generated_channels:
            return y
        return torch.cat([y, self.cheap(y)[..., : self.generated_channels, :, :]], dim=-3)

    def extra_repr(self) -> str:
        """Return the arguments that differ from the defaults."""
        own = f"groups={self.groups}" if self.mode == "gc" else f"alpha={self.alpha}"
        return f"{super().extra_repr()}, mode={self.mode}, {own}"


@dataclass(frozen=True)
class ConditionalReductionConfig(ConversionConfig):
    """Config of :class:`seedcnn.layers.ConditionalReductionConv2d`; the arguments are that layer's.

    The layer replaces 1x1 convolutions only, hence its own default scope.
    """

    narrows: ClassVar[bool] = True

    scope: str = "pointwise"
    mode: str = "auto"
    groups: int = 2
    alpha: float = 0.5
    relu: bool = True
    norm: bool = True

    def check_fields(self) -> None:
        """Refuse what the layer does not know, and what it ignores."""
        self.one_of("mode", MODES)
        if self.mode == "gc":
            self.without_effect("alpha", "with mode='gc'; only 'c1dw' uses it")
        if self.mode == "c1dw":
            self.without_effect("groups", "with mode='c1dw'; only 'gc' uses it")


register("cr", ConditionalReductionConfig, ConditionalReductionConv2d)
