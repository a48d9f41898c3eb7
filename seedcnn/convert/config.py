"""Configs by the names of their methods: from text, to plain data and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from seedcnn import typed
from seedcnn.convert.plugins import families
from seedcnn.errors import ConfigError
from seedcnn.layers.families import ConversionConfig
from seedcnn.literals import member_of_text

__all__ = [
    "METHODS",
    "PRESETS",
    "config_for",
    "config_of_text",
    "from_plain",
    "method_of",
    "to_plain",
]


class _Methods(Mapping[str, type[ConversionConfig]]):
    """The registered families by name: a view that follows the register."""

    def __getitem__(self, name: str) -> type[ConversionConfig]:
        return families()[name].config

    def __iter__(self) -> Iterator[str]:
        return iter(families())

    def __len__(self) -> int:
        return len(families())


class _Presets(Mapping[str, Callable[..., ConversionConfig]]):
    """The methods, and the named forms of each."""

    def _all(self) -> dict[str, Callable[..., ConversionConfig]]:
        known = families().values()
        return {each.name: each.config for each in known} | {
            name: preset for each in known for name, preset in each.presets.items()
        }

    def __getitem__(self, name: str) -> Callable[..., ConversionConfig]:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


METHODS: Mapping[str, type[ConversionConfig]] = _Methods()
"""Method names, as the command line and the recipes use them."""

PRESETS: Mapping[str, Callable[..., ConversionConfig]] = _Presets()
"""The same, and named forms of a method."""


def method_of(config: ConversionConfig) -> str:
    """The name of a config's method.

    Raises:
        ConfigError: if its class is not registered.
    """
    for name, kind in METHODS.items():
        if type(config) is kind:
            return name
    raise ConfigError(f"{type(config).__name__} is not a registered method; see seedcnn.convert.register")


typed.register_family(ConversionConfig, "method", PRESETS)


def to_plain(config: ConversionConfig) -> dict[str, Any]:
    """A config as plain data, ready for JSON: the format, the method's name and its options.

    Raises:
        ConfigError: if the config is of no method.
    """
    return typed.stamped(typed.to_plain(config))


def from_plain(data: Mapping[str, Any]) -> ConversionConfig:
    """The inverse of :func:`to_plain`, also after JSON, which makes lists of tuples.

    Raises:
        ConfigError: if the data are of another format, the method or one of its options does not exist, or an option
            has a value of the wrong type.
    """
    config: ConversionConfig = typed.convert(ConversionConfig, typed.unstamped(data, "a conversion config"), "")
    return config


def config_of_text(text: str) -> ConversionConfig:
    """The config of ``method:option=value:option=value``, as the command line takes it.

    A colon inside brackets separates nothing.

    Raises:
        ConfigError: if the text does not look like that, the method or an option does not exist, or an option is given
            twice or has a value of the wrong type.
    """
    options = member_of_text(text, "method")
    return config_for(**options)


def config_for(method: str, **options: Any) -> ConversionConfig:
    """The config of a method by its name; "groupnl-paper" is :meth:`GroupNLConfig.paper`.

    Args:
        method: a key of :data:`PRESETS`.
        options: values, or their text; each option's annotation says what it may be (:mod:`seedcnn.typed`).

    Raises:
        ConfigError: if the method or one of its options does not exist (near names are listed), or an option has a
            value of the wrong type.
    """
    config: ConversionConfig = typed.convert(ConversionConfig, {"method": method, **options}, method)
    return config
