"""Register of the layer families: their names, their configs, and the layers these make.

A family is one file: the layer, its config, the rule that makes the layer from a convolution, and its inference form.
The file ends with a call to :func:`register`, as does a user's own file (docs/plugins.md).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
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
    "fields_without_effect_forgiven",
    "make_layer",
    "options_of",
    "register",
    "share_of",
]


_FORGIVING: ContextVar[bool] = ContextVar("forgiving", default=False)


@contextmanager
def fields_without_effect_forgiven() -> Iterator[None]:
    """Give fields without effect their defaults instead of refusing them, for files that earlier versions wrote."""
    token = _FORGIVING.set(True)
    try:
        yield
    finally:
        _FORGIVING.reset(token)


@dataclass(frozen=True)
class ConversionConfig:
    """Base of the family configs.

    Args:
        scope: which convolutions are candidates, a key of :data:`seedcnn.convert.filters.SCOPES`: "paper" (all except
            the stem and 1x1 convolutions that are not projection shortcuts, as the tables of the GroupNL paper imply),
            "stride1" (kernels above 1x1 with stride 1), "reference" (what the public code replaces in timm networks),
            "pointwise" (1x1 convolutions by input-output pattern and cost), "square" (those of "stride1" with equal
            input and output channels) or "spatial" (kernels above 1x1 except the stem).
    """

    scope: str = "paper"
    narrows: ClassVar[bool] = False
    """True if the layer has a form for 1x1 convolutions that do not add channels (scope "pointwise")."""

    def __post_init__(self) -> None:
        typed.settle(self, type(self).__name__)
        self.check_fields()

    def check_fields(self) -> None:
        """Refuse values that the layer does not know or that have no effect; a family overrides this.

        Raises:
            ConfigError: naming the field, its value and the rule.
        """

    def one_of(self, name: str, known: Iterable[str]) -> None:
        """Raise ``ConfigError`` unless the field ``name`` has one of the known values."""
        if (value := getattr(self, name)) not in (choices := tuple(known)):
            raise ConfigError(
                f"{type(self).__name__}.{name} (={value!r}) must be one of {', '.join(map(repr, choices))}"
            )

    def without_effect(self, name: str, why: str, *defaults: Any) -> None:
        """Raise ``ConfigError`` if the field ``name``, which has no effect, is not left at its default.

        Args:
            why: the reason, as the end of a sentence.
            defaults: further values that presets set.
        """
        value = getattr(self, name)
        default = next(item.default for item in fields(self) if item.name == name)
        if value in (default, *defaults):
            return
        if _FORGIVING.get():
            object.__setattr__(self, name, default)
        else:
            raise ConfigError(f"{type(self).__name__}.{name} (={value!r}) has no effect {why}")

    def for_depthwise(self) -> ConversionConfig | None:
        """Return the config for a depthwise convolution, or None if the layer cannot replace one at equal cost."""
        return None


_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
Handler = Callable[[Any, nn.Conv2d, int, int], nn.Module]
"""(config, convolution, width that a ratio applies to, seed) -> layer; raises ValueError if it cannot make one."""


@dataclass(frozen=True)
class Family:
    """A registered family.

    Attributes:
        name: method name on the command line and in recipes.
        config: class of the family's config.
        make: function that makes the layer.
        presets: names of forms with other defaults: name -> callable that returns the config.
    """

    name: str
    config: type[ConversionConfig]
    make: Handler
    presets: Mapping[str, Callable[..., ConversionConfig]] = field(default_factory=dict)


FAMILIES: dict[str, Family] = {}
"""Method name -> family, in registration order."""


def register(
    name: str,
    config: type[ConversionConfig],
    make: Handler | type[nn.Module],
    presets: Mapping[str, Callable[..., ConversionConfig]] | None = None,
) -> None:
    """Add a family to ``convert_``, the command line, recipes, checkpoints and plans.

    Args:
        name: method name: lower-case letters, digits and hyphens.
        config: a frozen dataclass derived from :class:`ConversionConfig`.
        make: a layer class that takes ``nn.Conv2d``'s arguments and the config's options by keyword (and ``seed``, if
            it is a :class:`seedcnn.layers.SeededConv2d`), or a function (config, convolution, width that a ratio
            applies to, seed) -> layer.
        presets: more names for the same config with other defaults.

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
            raise ConfigError(f"method {each!r} is already registered, with {_told(taken[each])}")
    for family in FAMILIES.values():
        if family.config is config:
            raise ConfigError(f"method {name!r}: {config.__name__} is already registered, as {family.name!r}")
    handler = _plainly(make) if isinstance(make, type) else make
    FAMILIES[name] = Family(name, config, handler, dict(presets or {}))


def _told(family: Family) -> str:
    """Name a family's config and the file that it is in."""
    file = getattr(sys.modules.get(family.config.__module__), "__file__", None)
    return family.config.__name__ + (f" of {file}" if file else "")


def make_layer(config: ConversionConfig, conv: nn.Conv2d, width: int, seed: int) -> nn.Module:
    """Make the layer that ``config`` puts in the place of ``conv``.

    Args:
        width: output channels to which a reduction ratio applies.
        seed: the layer's own 64-bit seed.

    Raises:
        ValueError: if the layer cannot replace this convolution, or the config is not registered.
        TypeError: if the family makes no module.
    """
    for family in FAMILIES.values():
        if type(config) is family.config:
            layer = family.make(config, conv, width, seed)
            if not isinstance(layer, nn.Module):
                raise TypeError(f"method {family.name!r} makes a {type(layer).__name__}; it must make an nn.Module")
            return layer
    known = ", ".join(family.config.__name__ for family in FAMILIES.values())
    raise ValueError(f"`config` is a {type(config).__name__}; it must be one of {known}")


def conv_arguments(conv: nn.Conv2d) -> dict[str, Any]:
    """Return the ``nn.Conv2d`` arguments, except ``groups``, that make a convolution like ``conv``."""
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
    """Return ``width / ratio``; raise ``ValueError`` naming the option unless it is a positive divisor of the width."""
    if isinstance(ratio, bool) or not isinstance(ratio, int) or ratio < 1:
        raise ValueError(f"`{name}` (={ratio!r}) must be a positive integer")
    if width % ratio:
        raise ValueError(
            f"its width (={width}) must be divisible by `{name}` (={ratio}); "
            "choose other widths or leave the layer out with filter_fn"
        )
    return width // ratio


def options_of(config: ConversionConfig) -> dict[str, Any]:
    """Return a config's options without those that every config has."""
    general = {item.name for item in fields(ConversionConfig)}
    return {item.name: getattr(config, item.name) for item in fields(config) if item.name not in general}


def _plainly(layer: type[nn.Module]) -> Handler:
    """Return the handler of a layer that takes the config's options unchanged."""
    seeded = issubclass(layer, SeededConv2d)

    def handler(config: ConversionConfig, conv: nn.Conv2d, width: int, seed: int) -> nn.Module:  # noqa: ARG001
        return layer(**conv_arguments(conv), **options_of(config), **({"seed": seed} if seeded else {}))

    return handler
