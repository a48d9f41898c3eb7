"""Depthwise-separable convolution: the control that every other family has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seedcnn.layers._base import ConvLayer, copy_leading_filters, slow_gradient
from seedcnn.layers._checks import IntPair, check_positive, conv2d
from seedcnn.layers.families import FAMILIES, ConversionConfig, conv_arguments, make_layer, register
from seedcnn.layers.norms import BatchNorm2d

__all__ = ["DepthwiseSeparableConv2d"]


class DepthwiseSeparableConv2d(ConvLayer):
    """A depthwise k x k convolution, BatchNorm, ReLU, and a dense 1x1 convolution (MobileNet without its last norm).

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, padding_mode: as in ``nn.Conv2d``; the
            geometry is the depthwise convolution's.
        groups: must be 1: the depthwise convolution has in_channels groups, the pointwise one has 1.
        bias: add a bias to the pointwise convolution.
        norm: add a BatchNorm after the depthwise convolution.
        relu: add a ReLU before the pointwise convolution.
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
        norm: bool = True,
        relu: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        in_channels, out_channels = check_positive(in_channels=in_channels, out_channels=out_channels)
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

    def inner_widths(self) -> tuple[int, ...]:
        """Return the depthwise channels and the pointwise layer's inner widths."""
        inside = self.pointwise.inner_widths() if isinstance(self.pointwise, ConvLayer) else ()
        return (self.in_channels, *inside)

    def use_norm_after(self, norm: bool) -> None:
        """Pass the call on to the pointwise layer."""
        if isinstance(self.pointwise, ConvLayer):
            self.pointwise.use_norm_after(norm)

    @torch.no_grad()
    def start_from(self, conv: nn.Conv2d) -> None:
        """Set each input channel's spatial filter and pointwise column to its best rank-one fit, by SVD."""
        u, s, v = torch.linalg.svd(conv.weight.transpose(0, 1).flatten(2), full_matrices=False)  # [c_in, c_out, k * k]
        root = s[:, :1].sqrt()
        self.depthwise.weight.copy_((root * v[:, 0]).reshape(self.depthwise.weight.shape))
        dense = nn.Conv2d(self.in_channels, self.out_channels, 1, bias=conv.bias is not None)
        dense.weight.copy_((root * u[:, :, 0]).T[:, :, None, None])
        if dense.bias is not None and conv.bias is not None:
            dense.bias.copy_(conv.bias)
        if isinstance(self.pointwise, ConvLayer):
            self.pointwise.start_from(dense)
        else:
            copy_leading_filters(self.pointwise, dense)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, c_in, H, W] to [N, c_out, H', W'], keeping channels_last and the autocast dtype."""
        return self.pointwise(self.relu(self.norm(self._filtered(x))))

    def _filtered(self, x: Tensor) -> Tensor:
        if slow_gradient(x, self.depthwise.stride):
            with torch.autocast("cpu", enabled=False):
                return self.depthwise(x.float())
        return self.depthwise(x)


@dataclass(frozen=True)
class DepthwiseSeparableConfig(ConversionConfig):
    """Config of :class:`seedcnn.layers.DepthwiseSeparableConv2d`, the control; the arguments are that layer's.

    Args:
        norm, relu: see the layer.
        pointwise: config of the layer that replaces the 1x1 convolution in turn, such as a :class:`GroupNLConfig`; its
            scope must be the default, as it has no effect. None leaves the convolution dense.
    """

    norm: bool = True
    relu: bool = True
    pointwise: ConversionConfig | None = None

    def check_fields(self) -> None:
        """Refuse a scope of the inner config, which selects nothing."""
        if self.pointwise is not None:
            self.pointwise.without_effect("scope", "inside `pointwise`, which always replaces the 1x1 convolution")


def _depthwise_separable(config: DepthwiseSeparableConfig, conv: nn.Conv2d, width: int, seed: int) -> nn.Module:
    layer = DepthwiseSeparableConv2d(**conv_arguments(conv), norm=config.norm, relu=config.relu)
    if config.pointwise is not None:
        dense = layer.pointwise
        assert isinstance(dense, nn.Conv2d)
        if type(config.pointwise) not in {family.config for family in FAMILIES.values()}:
            raise ValueError(f"`pointwise` (={config.pointwise!r}) must be the config of a layer")
        layer.pointwise = make_layer(config.pointwise, dense, width, seed)
    return layer


register("dws", DepthwiseSeparableConfig, _depthwise_separable)
