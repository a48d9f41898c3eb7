"""The register of layer families: what a config is, which layer it makes, and under which name.

A family is one file: the layer, its config, how the layer is made from a convolution, and its inference form. The file
ends with a call of :func:`register`; a user's own file does the same (docs/plugins.md).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from torch import nn

from seedcnn import typed
from seedcnn.errors import ConfigError
from seedcnn.layers._base import SeededConv2d

__all__ = [
    "FAMILIES",
    "ConversionConfig",
    "Family",
    "Handler",
    "conv_arguments",
    "make_layer",
    "options_of",
    "register",
    "share_of",
]


@dataclass(frozen=True)
class ConversionConfig:
    """Base of the family configs.

    Args:
        scope: which convolutions are candidates, a key of :data:`seedcnn.convert.filters.SCOPES`: "paper" (every
            convolution but the stem, pointwise ones only where they are projection shortcuts, as the tables of the
            GroupNL paper imply), "stride1" (kernels above 1x1 with stride 1), "reference" (what the public code
            replaces in timm networks), "pointwise" (1x1 convolutions by input-output pattern and cost),
            "square" (those of "stride1" with as many inputs as outputs) or "spatial" (kernels above 1x1, but the stem).
    """

    scope: str = "paper"
    narrows: ClassVar[bool] = False
    """Whether the layer has a form for 1x1 convolutions whose channels do not grow (scope "pointwise")."""

    def __post_init__(self) -> None:
        typed.settle(self, type(self).__name__)

    def for_depthwise(self) -> ConversionConfig | None:
        """The config for a depthwise convolution, or None where the layer cannot replace one at equal cost."""
        return None


_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
Handler = Callable[[Any, nn.Conv2d, int, int], nn.Module]
"""(config, convolution, width that a ratio applies to, seed) -> the new layer; ValueError where there is none."""


@dataclass(frozen=True)
class Family:
    """One family.

    Attributes:
        name: of the method, as the command line and the recipes use it.
        config: its config's class.
        make: makes the layer.
        presets: other names, for forms with other defaults: name -> callable that gives the config.
    """

    name: str
    config: type[ConversionConfig]
    make: Handler
    presets: Mapping[str, Callable[..., ConversionConfig]] = field(default_factory=dict)


FAMILIES: dict[str, Family] = {}
"""Method name -> family, in the order of registration."""


def register(
    name: str,
    config: type[ConversionConfig],
    make: Handler | type[nn.Module],
    presets: Mapping[str, Callable[..., ConversionConfig]] | None = None,
) -> None:
    """Add a family, so that ``convert_``, the command line, recipes, checkpoints and plans know it.

    Args:
        name: of the method: lower-case letters, digits and hyphens.
        config: a frozen dataclass derived from :class:`ConversionConfig`.
        make: a layer class that takes ``nn.Conv2d``'s arguments and the config's options by keyword (and ``seed``, if
            it is a :class:`seedcnn.layers.SeededConv2d`), or a function (config, convolution, width that a ratio
            applies to, seed) -> layer.
        presets: further names for the same config with other defaults.

    Raises:
        ConfigError: if a name is taken or malformed, or the config has the wrong base.
    """
    if not (isinstance(config, type) and issubclass(config, ConversionConfig)) or config is ConversionConfig:
        raise ConfigError(f"method {name!r}: `config` (={config!r}) must be a class derived from ConversionConfig")
    taken = {each: family for family in FAMILIES.values() for each in (family.name, *family.presets)}
    for each in (name, *(presets or {})):
        if not _NAME.fullmatch(each):
            raise ConfigError(f"method {each!r}: a name consists of lower-case letters, digits and hyphens")
        if each in taken:
            raise ConfigError(f"method {each!r} is registered already, with {taken[each].config.__name__}")
    if any(family.config is config for family in FAMILIES.values()):
        raise ConfigError(f"method {name!r}: {config.__name__} is registered already")
    handler = _plainly(make) if isinstance(make, type) else make
    FAMILIES[name] = Family(name, config, handler, dict(presets or {}))


def make_layer(config: ConversionConfig, conv: nn.Conv2d, width: int, seed: int) -> nn.Module:
    """The layer that ``config`` puts in the place of ``conv``.

    Args:
        width: output channels that a reduction ratio applies to.
        seed: the layer's own 64-bit seed.

    Raises:
        ValueError: if the layer cannot stand in for this convolution, or the config is not registered.
    """
    for family in FAMILIES.values():
        if type(config) is family.config:
            return family.make(config, conv, width, seed)
    known = ", ".join(family.config.__name__ for family in FAMILIES.values())
    raise ValueError(f"`config` is a {type(config).__name__}; it must be one of {known}")


def conv_arguments(conv: nn.Conv2d) -> dict[str, Any]:
    """The arguments of ``nn.Conv2d`` that give a convolution of the same kind, but ``groups``."""
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


def share_of(name: str, ratio: int, width: int) -> int:
    """``width / ratio``; ``ValueError`` naming the option unless it is a positive integer that divides the width."""
    if isinstance(ratio, bool) or not isinstance(ratio, int) or ratio < 1:
        raise ValueError(f"`{name}` (={ratio!r}) must be a positive integer")
    if width % ratio:
        raise ValueError(
            f"its width (={width}) must be divisible by `{name}` (={ratio}); "
            "choose other widths or leave the layer out with filter_fn"
        )
    return width // ratio


def options_of(config: ConversionConfig) -> dict[str, Any]:
    """The options of a config, without those that every config has."""
    general = {item.name for item in fields(ConversionConfig)}
    return {item.name: getattr(config, item.name) for item in fields(config) if item.name not in general}


def _plainly(layer: type[nn.Module]) -> Handler:
    """The handler of a layer that takes the config's options as they are."""
    seeded = issubclass(layer, SeededConv2d)

    def handler(config: ConversionConfig, conv: nn.Conv2d, width: int, seed: int) -> nn.Module:  # noqa: ARG001
        return layer(**conv_arguments(conv), **options_of(config), **({"seed": seed} if seeded else {}))

    return handler
