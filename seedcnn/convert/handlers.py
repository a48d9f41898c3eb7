"""From a config and a convolution to the layer that replaces it: one handler for each family."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from torch import nn

from seedcnn.convert.config import (
    ConditionalReductionConfig,
    ConversionConfig,
    DepthwiseSeparableConfig,
    GhostConfig,
    GroupNLConfig,
    LocalBinaryConfig,
    MonoConfig,
    PerturbativeConfig,
    ShiftConfig,
    SineFMConfig,
)
from seedcnn.layers import (
    ConditionalReductionConv2d,
    DepthwiseSeparableConv2d,
    GhostConv2d,
    GroupNLConv2d,
    LocalBinaryConv2d,
    MonoConv2d,
    PerturbativeConv2d,
    SeededConv2d,
    ShiftConv2d,
    SineFMConv2d,
)

__all__ = ["HANDLERS", "Handler"]

Handler = Callable[[Any, nn.Conv2d, int, int], nn.Module]
"""(config, convolution, width that a ratio applies to, seed) to the new layer; ValueError where it cannot be."""


def _conv_arguments(conv: nn.Conv2d) -> dict[str, Any]:
    return {
        "in_channels": conv.in_channels,
        "out_channels": conv.out_channels,
        "kernel_size": conv.kernel_size,
        "stride": conv.stride,
        "padding": conv.padding,
        "dilation": conv.dilation,
        "bias": conv.bias is not None,
        "padding_mode": conv.padding_mode,
        "device": conv.weight.device,
        "dtype": conv.weight.dtype,
    }


def _share(name: str, ratio: int, width: int) -> int:
    if isinstance(ratio, bool) or not isinstance(ratio, int) or ratio < 1:
        raise ValueError(f"`{name}` (={ratio!r}) must be a positive integer")
    if width % ratio:
        raise ValueError(
            f"its width (={width}) must be divisible by `{name}` (={ratio}); "
            "choose other widths or leave the layer out with filter_fn"
        )
    return width // ratio


def _group_nl(config: GroupNLConfig, conv: nn.Conv2d, width: int, seed: int) -> nn.Module:
    seed_channels = _share("reduction_ratio", config.reduction_ratio, width)
    groups = 1 if config.sparse else math.gcd(config.groups, conv.in_channels, seed_channels)
    return GroupNLConv2d(
        **_conv_arguments(conv),
        groups=groups,
        seed_channels=seed_channels,
        nlf_groups=config.nlf_groups,
        nlf=config.nlf,
        sparse=config.sparse,
        omega_range=config.omega_range,
        phi_range=config.phi_range,
        normalize=config.normalize,
        shuffle=config.shuffle,
        variant=config.variant,
        seed=seed,
    )


def _options(config: ConversionConfig) -> dict[str, Any]:
    """The options of a family, without those that every config has."""
    general = {item.name for item in fields(ConversionConfig)}
    return {item.name: getattr(config, item.name) for item in fields(config) if item.name not in general}


def _plainly(layer: Callable[..., nn.Module]) -> Handler:
    """The handler of a layer that takes the config's options as they are."""
    seeded = isinstance(layer, type) and issubclass(layer, SeededConv2d)

    def handler(config: ConversionConfig, conv: nn.Conv2d, width: int, seed: int) -> nn.Module:  # noqa: ARG001
        return layer(**_conv_arguments(conv), **_options(config), **({"seed": seed} if seeded else {}))

    return handler


def _mono(config: MonoConfig, conv: nn.Conv2d, width: int, seed: int) -> nn.Module:  # noqa: ARG001
    options = _options(config)
    if config.exp_factor is not None:
        options["seed_filters"] = None
    elif config.seed_filters >= 1:
        options["seed_filters"] = min(config.seed_filters, conv.out_channels)
    return MonoConv2d(**_conv_arguments(conv), **options, seed=seed)


def _ghost(config: GhostConfig, conv: nn.Conv2d, width: int, seed: int) -> nn.Module:  # noqa: ARG001
    options = _options(config)
    # Where the ratio is of another width than the layer's own, as in the shortcut of a bottleneck.
    if width != conv.out_channels:
        options["primary_channels"] = _share("ratio", config.ratio, width)
    return GhostConv2d(**_conv_arguments(conv), **options)


def _sine_fm(config: SineFMConfig, conv: nn.Conv2d, width: int, seed: int) -> nn.Module:
    options = _options(config) | {"seed_channels": _share("reduction_ratio", config.reduction_ratio, width)}
    return SineFMConv2d(**_conv_arguments(conv), **options, seed=seed)


def _depthwise_separable(config: DepthwiseSeparableConfig, conv: nn.Conv2d, width: int, seed: int) -> nn.Module:
    layer = DepthwiseSeparableConv2d(**_conv_arguments(conv), norm=config.norm, relu=config.relu)
    if config.pointwise is not None:
        if type(config.pointwise) not in HANDLERS:
            raise ValueError(f"`pointwise` (={config.pointwise!r}) must be the config of a layer")
        dense = layer.pointwise
        assert isinstance(dense, nn.Conv2d)
        layer.pointwise = HANDLERS[type(config.pointwise)](config.pointwise, dense, width, seed)
    return layer


HANDLERS: dict[type[ConversionConfig], Handler] = {
    GroupNLConfig: _group_nl,
    MonoConfig: _mono,
    GhostConfig: _ghost,
    SineFMConfig: _sine_fm,
    ConditionalReductionConfig: _plainly(ConditionalReductionConv2d),
    LocalBinaryConfig: _plainly(LocalBinaryConv2d),
    PerturbativeConfig: _plainly(PerturbativeConv2d),
    ShiftConfig: _plainly(ShiftConv2d),
    DepthwiseSeparableConfig: _depthwise_separable,
}
"""Config -> handler."""
