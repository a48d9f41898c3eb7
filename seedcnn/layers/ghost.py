"""Ghost: convolve some channels and generate the others from them by a cheap linear operation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seedcnn.layers._base import ConvLayer, copy_leading_filters
from seedcnn.layers._checks import IntPair, check_positive, conv2d, require
from seedcnn.layers.families import ConversionConfig, conv_arguments, options_of, register, share_of
from seedcnn.layers.norms import BatchNorm2d

__all__ = ["CHEAP", "GhostConv2d"]

CHEAP = ("depthwise", "pointwise")


class GhostConv2d(ConvLayer):
    """The Ghost module as a convolution (GhostNet; GroupNL Eq. 6 and 14).

    The primary convolution makes ``c0 = ceil(c_out / ratio)`` channels, and a cheap operation makes (ratio - 1) times
    as many from them; the output is both, cropped to c_out.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode: as in ``nn.Conv2d``,
            for the primary convolution.
        bias: add a bias to both convolutions.
        ratio: c_out / c0; 1 gives a plain convolution.
        primary_channels: c0, instead of ``ratio``; the cheap part then makes the smallest multiple of it that suffices.
        cheap: "depthwise" (d x d, one group for each primary channel) or "pointwise" (dense 1x1, as in MonoCNN's
            comparison).
        cheap_kernel_size: d, odd; used by the depthwise form only.
        norm: add a BatchNorm after both parts (False is GroupNL's Eq. 14).
        relu: add a ReLU after both parts.
        device, dtype: device and dtype of the weights.

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
        ratio: int = 2,
        primary_channels: int | None = None,
        cheap: str = "depthwise",
        cheap_kernel_size: int = 3,
        norm: bool = True,
        relu: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        in_channels, out_channels = check_positive(in_channels=in_channels, out_channels=out_channels)
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, padding_mode)
        ratio, cheap_kernel_size = check_positive(ratio=ratio, cheap_kernel_size=cheap_kernel_size)
        require("cheap", cheap, CHEAP)
        if cheap_kernel_size % 2 == 0:
            raise ValueError(f"`cheap_kernel_size` (={cheap_kernel_size}) must be odd, to keep the size of the map")
        if primary_channels is None:
            primary_channels, times = -(-out_channels // ratio), ratio - 1
        else:
            (primary_channels,) = check_positive(primary_channels=primary_channels)
            times = -(-out_channels // primary_channels) - 1
        if primary_channels > out_channels:
            raise ValueError(
                f"`primary_channels` (={primary_channels}) must not exceed `out_channels` (={out_channels})"
            )
        self.primary_channels, self.cheap_kind = primary_channels, cheap
        self.generated_channels = out_channels - primary_channels
        place = {"device": device, "dtype": dtype}

        def part(conv: nn.Conv2d) -> nn.Sequential:
            norms = [BatchNorm2d(conv.out_channels, **place)] if norm else []
            return nn.Sequential(conv, *norms, *([nn.ReLU()] if relu else []))

        geometry: Any = (self.kernel_size, self.stride, self.padding, self.dilation)
        self.primary = part(
            conv2d(
                in_channels, primary_channels, *geometry, groups=groups, bias=bias, padding_mode=padding_mode, **place
            )
        )
        if self.generated_channels:
            depthwise = cheap == "depthwise"
            side = cheap_kernel_size if depthwise else 1
            self.cheap = part(
                nn.Conv2d(
                    primary_channels,
                    primary_channels * times,
                    side,
                    padding=side // 2,
                    groups=primary_channels if depthwise else 1,
                    bias=bias,
                    **place,
                )
            )

    def inner_widths(self) -> tuple[int, ...]:
        """Return the primary channels."""
        return (self.primary_channels,)

    def start_from(self, conv: nn.Conv2d) -> None:
        """Copy the first filters into the primary convolution."""
        copy_leading_filters(next(iter(self.primary)), conv)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, c_in, H, W] to [N, c_out, H', W'], keeping channels_last and the autocast dtype."""
        y = self.primary(x)
        if not self.generated_channels:
            return y
        return torch.cat([y, self.cheap(y)[..., : self.generated_channels, :, :]], dim=-3)

    def extra_repr(self) -> str:
        """Return the arguments that differ from the defaults."""
        return f"{super().extra_repr()}, primary_channels={self.primary_channels}, cheap={self.cheap_kind}"


@dataclass(frozen=True)
class GhostConfig(ConversionConfig):
    """Config of :class:`seedcnn.layers.GhostConv2d`; the arguments are that layer's.

    Args:
        ratio: c_out / c0 of the block's spatial convolutions, like GroupNL's ``reduction_ratio``.
        cheap, cheap_kernel_size, norm, relu: see the layer. ``norm=False, relu=False`` is GroupNL's Eq. 14;
            ``ratio=4, cheap="pointwise"`` is the form of MonoCNN's Table 1.
    """

    ratio: int = 2
    cheap: str = "depthwise"
    cheap_kernel_size: int = 3
    norm: bool = True
    relu: bool = True

    def check_fields(self) -> None:
        """Refuse what the layer does not know, and what it ignores."""
        self.one_of("cheap", CHEAP)
        if self.cheap == "pointwise":
            self.without_effect("cheap_kernel_size", "with cheap='pointwise', which is 1x1")


def _ghost(config: GhostConfig, conv: nn.Conv2d, width: int, seed: int) -> nn.Module:  # noqa: ARG001
    options = options_of(config)
    # The ratio may apply to another width than the layer's own, as in a bottleneck's shortcut.
    if width != conv.out_channels:
        options["primary_channels"] = share_of("ratio", config.ratio, width)
    return GhostConv2d(**conv_arguments(conv), **options)


register("ghost", GhostConfig, _ghost)
