"""Configs by the names of their methods: from text, to plain data and back."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any

from seedcnn.convert.plugins import families
from seedcnn.errors import ConfigError, did_you_mean
from seedcnn.layers.families import ConversionConfig

__all__ = [
    "METHODS",
    "PRESETS",
    "config_for",
    "config_of_text",
    "from_plain",
    "literal",
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


def to_plain(config: ConversionConfig) -> dict[str, Any]:
    """A config as plain data, ready for JSON: its method's name and its options; :func:`from_plain` is the inverse."""
    options = {item.name: getattr(config, item.name) for item in fields(config)}
    plain = {name: to_plain(each) if isinstance(each, ConversionConfig) else each for name, each in options.items()}
    return {"method": method_of(config), **plain}


def from_plain(data: Mapping[str, Any]) -> ConversionConfig:
    """The config of :func:`to_plain`'s data; lists, which JSON makes of tuples, become tuples again.

    Raises:
        ConfigError: if the method or one of its options does not exist.
    """
    options = {
        name: from_plain(value) if isinstance(value, Mapping) else tuple(value) if isinstance(value, list) else value
        for name, value in data.items()
    }
    return config_for(str(options.pop("method", "")), **options)


def literal(text: str) -> Any:
    """A value as it is typed: a Python literal, or the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def config_of_text(text: str) -> ConversionConfig:
    """The config of ``method:option=value:option=value``, as the command line takes it.

    Raises:
        ConfigError: if the text does not look like that, or the method or an option does not exist.
    """
    method, *assignments = text.split(":")
    options = {}
    for assignment in assignments:
        option, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigError(f"method {text!r}: {assignment!r} must look like option=value")
        options[option] = literal(value)
    return config_for(method, **options)


def config_for(method: str, **options: Any) -> ConversionConfig:
    """The config of a method by its name; "groupnl-paper" is :meth:`GroupNLConfig.paper`.

    Raises:
        ConfigError: if the method or one of its options does not exist; near names are listed.
    """
    if method not in PRESETS:
        hint = did_you_mean(method, PRESETS)
        raise ConfigError(f"unknown method {method!r}; {hint}known methods: {', '.join(PRESETS)}")
    known = [item.name for item in fields(PRESETS[method]())]
    for name in options:
        if name not in known:
            raise ConfigError(f"method {method!r} has no option {name!r}; it has {', '.join(known)}")
    return PRESETS[method](**options)
