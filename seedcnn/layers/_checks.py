"""Checks of the layers' arguments; each error names the argument, its value and the rule."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral
from typing import Any

from torch import nn

__all__ = ["IntPair", "check_divisible", "check_positive", "conv2d", "pair_of", "require", "same_size"]

IntPair = int | tuple[int, int]


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_positive(**values: int) -> tuple[int, ...]:
    """Return the arguments as Python's integers; raise ``ValueError`` for the first that is not a positive integer."""
    for name, value in values.items():
        if not _is_integer(value) or value < 1:
            raise ValueError(f"`{name}` (={value!r}) must be a positive integer")
    return tuple(int(value) for value in values.values())


def check_divisible(name: str, value: int, by_name: str, by: int) -> None:
    """Raise ``ValueError`` unless ``value % by == 0``."""
    if value % by:
        raise ValueError(f"`{name}` (={value}) must be divisible by `{by_name}` (={by})")


def pair_of(name: str, value: IntPair, low: int) -> tuple[int, int]:
    """Return ``value`` as a pair of integers; raise ``ValueError`` naming the argument if one is below ``low``."""
    pair = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value, value)
    if len(pair) != 2 or any(not _is_integer(v) or v < low for v in pair):
        raise ValueError(f"`{name}` (={value!r}) must be an integer >= {low} or a pair of them")
    return int(pair[0]), int(pair[1])


def conv2d(in_channels: int, out_channels: int, kernel_size: Any, *args: Any, **kwargs: Any) -> nn.Conv2d:
    """Return an ``nn.Conv2d``; raise ``ValueError`` naming the argument that ``groups`` does not divide."""
    (groups,) = check_positive(groups=kwargs.pop("groups", 1))
    for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
        if value % groups:
            raise ValueError(f"`{name}` (={value}) must be divisible by `groups` (={groups})")
    return nn.Conv2d(in_channels, out_channels, kernel_size, *args, groups=groups, **kwargs)  # type: ignore[misc]


def require(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"`{name}` (={value!r}) must be one of {', '.join(map(repr, choices))}")


def same_size(
    kernel_size: tuple[int, ...], padding: str | tuple[int, ...], dilation: tuple[int, ...], padding_mode: str
) -> None:
    """Reject geometries that a layer without a spatial kernel cannot replace.

    Raises:
        ValueError: unless padding is "same" or dilation * (kernel_size - 1) / 2, and the padding mode is "zeros".
    """
    if padding != "same" and padding != tuple(d * (k - 1) / 2 for k, d in zip(kernel_size, dilation, strict=True)):
        raise ValueError(
            f"`padding` (={padding!r}) must be 'same' or dilation * (kernel_size - 1) / 2 for `kernel_size` "
            f"(={kernel_size}), `dilation` (={dilation}): this layer has no spatial kernel and keeps the map's size"
        )
    if padding_mode != "zeros":
        raise ValueError(f"`padding_mode` (={padding_mode!r}) must be 'zeros' in a layer without a spatial kernel")
