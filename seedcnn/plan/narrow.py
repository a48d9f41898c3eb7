"""Narrowing of the vanilla network to a budget, the control of every comparison."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from itertools import product
from typing import Any

import torch
from torch import nn

from seedcnn.errors import ConfigError
from seedcnn.evaluate.costs import cost
from seedcnn.models import create_model, default_widths, list_models

__all__ = ["narrow_to_macs", "narrowed_network", "narrowed_widths", "widths_in_words"]

_WIDTH_IN_NAME = re.compile(r"(.+_)\d{3}")  # in percent: timm's mobilenetv2_100, mobilenetv3_large_075


def narrow_to_macs(
    name: str,
    macs: int,
    *,
    divisor: int = 16,
    tolerance: float = 0.05,
    input_size: tuple[int, int, int] = (3, 32, 32),
    **kwargs: Any,
) -> tuple[int, ...]:
    """Find widths with which the vanilla network ``name`` costs about ``macs``.

    Every stage is narrowed by about the same factor. Widths are multiples of ``divisor``, because others leave the
    blocked memory layout of the usual runtimes and would handicap the control.

    Args:
        macs: the budget, in multiply-accumulates per image.
        divisor: divisor of the widths.
        tolerance: largest accepted relative distance from the budget.
        kwargs: arguments of :func:`seedcnn.models.create_model`; ``widths`` are the widths to narrow.

    Returns:
        One width for each stage: the most evenly narrowed combination within ``tolerance``.

    Raises:
        ConfigError: if no combination comes within ``tolerance``.
    """
    full = tuple(kwargs.pop("widths", None) or default_widths(name))
    build: _Build = lambda widths: create_model(name, widths=widths, **kwargs)  # noqa: E731
    return _narrow(name, build, full, macs, divisor, tolerance, input_size)


_Build = Callable[[tuple[int, ...]], nn.Module]


def _macs(build: Callable[[], nn.Module], input_size: tuple[int, int, int]) -> int:
    with torch.device("meta"):  # shapes are enough
        model = build()
    return cost(model, input_size).macs


def _narrow(
    name: str,
    build: _Build,
    full: Sequence[int],
    macs: int,
    divisor: int,
    tolerance: float,
    input_size: tuple[int, int, int],
) -> tuple[int, ...]:
    @cache  # the bisection comes back to the same widths
    def macs_of(widths: tuple[int, ...]) -> int:
        return _macs(lambda: build(widths), input_size)

    low, high = 0.0, 1.0
    for _ in range(20):  # find the common factor, ignoring the divisor
        middle = (low + high) / 2
        if macs_of(tuple(max(1, round(w * middle)) for w in full)) > macs:
            high = middle
        else:
            low = middle
    even = [w * low for w in full]
    choices = [sorted({max(divisor, int(w // divisor + k) * divisor) for k in (-1, 0, 1, 2)}) for w in even]

    def uneven(widths: tuple[int, ...]) -> float:
        return max(abs(w / e - 1) for w, e in zip(widths, even, strict=True))

    nearest: tuple[float, tuple[int, ...], int] = (float("inf"), tuple(full), 0)
    for widths in sorted(product(*choices), key=uneven):
        found = macs_of(widths)
        distance = abs(found - macs) / macs
        if distance <= tolerance:
            return widths
        if distance < nearest[0]:
            nearest = (distance, widths, found)
    raise ConfigError(
        f"no widths of {name} in multiples of {divisor} come within {tolerance:.0%} of {macs:,} MACs; "
        f"the nearest are {nearest[1]} with {nearest[2]:,}"
    )


def _narrowest_step(
    name: str, build: _Build, full: Sequence[int], macs: int, input_size: tuple[int, int, int]
) -> tuple[int, ...]:
    """Find widths in steps of 16, or of 8 or 4 if the coarser ones miss."""
    for divisor in (16, 8):
        try:
            return _narrow(name, build, full, macs, divisor, 0.05, input_size)
        except (ConfigError, ValueError):  # the network cannot take such widths
            continue
    try:
        return _narrow(name, build, full, macs, 4, 0.05, input_size)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def narrowed_widths(name: str, macs: int, input_size: tuple[int, int, int] = (3, 32, 32)) -> tuple[int, ...]:
    """Find widths with which a seedcnn network costs about ``macs``, in steps of 16, or of 8 or 4 if those miss.

    Raises:
        ConfigError: if no combination comes within 5 %.
    """
    return _narrowest_step(
        name, lambda widths: create_model(name, widths=widths), default_widths(name), macs, input_size
    )


def widths_in_words(widths: Sequence[int]) -> str:
    """Write widths as 16/32/64, with their step if it is below 16: 8/16/40 in steps of 8."""
    step = math.gcd(*widths)
    return "/".join(map(str, widths)) + (f" in steps of {math.gcd(step, 8)}" if step % 16 else "")


def narrowed_network(
    name: str, macs: int, input_size: tuple[int, int, int], **options: Any
) -> tuple[str, nn.Module, int]:
    """Narrow the vanilla network until it costs about ``macs``: the plain alternative to any form.

    A seedcnn network or a timm ResNet is narrowed in all its stages. For other timm networks that come in several
    widths, the width nearest to ``macs`` is chosen.

    Args:
        name: name of a seedcnn or timm network.
        macs: multiply-accumulates per image.
        options: more arguments of the network, such as ``num_classes``.

    Returns:
        A description in words, the network with fresh weights, and its multiply-accumulates.

    Raises:
        ConfigError: if the network cannot be narrowed, or no widths come within 5 % of ``macs``.
    """
    if name in list_models():
        full = tuple(options.pop("widths", None) or default_widths(name))
        return _finished(name, lambda widths: create_model(name, widths=widths, **options), full, macs, input_size)
    if find_spec("timm") is None:
        raise ConfigError(f"{name} cannot be narrowed: timm is not installed")
    from seedcnn.models.timm_registry import timm

    if not timm.is_model(name):
        raise ConfigError(f"{name} cannot be narrowed: it is neither a seedcnn network nor a timm network")
    with torch.device("meta"):
        vanilla = timm.create_model(name, **options)
    if type(vanilla) is timm.models.ResNet:
        full = tuple(_stage_channels(vanilla))
        return _finished(
            name, lambda widths: timm.create_model(name, channels=widths, **options), full, macs, input_size
        )
    return _sibling(name, macs, input_size, options)


def _stage_channels(model: Any) -> list[int]:
    """Return each stage's channels before a block's expansion, as timm's ResNet takes them in ``channels``."""
    expansion = next(iter(model.layer1)).expansion
    return [stage["num_chs"] // expansion for stage in model.feature_info[1:]]


def _finished(
    name: str, build: _Build, full: Sequence[int], macs: int, input_size: tuple[int, int, int]
) -> tuple[str, nn.Module, int]:
    widths = _narrowest_step(name, build, full, macs, input_size)
    network = build(widths)
    return f"narrowed to {widths_in_words(widths)}", network, cost(network, input_size).macs


def _sibling(
    name: str, macs: int, input_size: tuple[int, int, int], options: dict[str, Any]
) -> tuple[str, nn.Module, int]:
    from seedcnn.models.timm_registry import timm

    found = _WIDTH_IN_NAME.fullmatch(name)
    names = timm.list_models(f"{found[1]}[0-9][0-9][0-9]") if found else []
    others = [n for n in names if n != name]
    if not found or not others or not timm.is_model(f"{found[1]}100"):  # otherwise the digits are not a width
        raise ConfigError(f"{name} cannot be narrowed: it takes no widths, and timm has no other width of it")
    costs = {n: _macs(lambda n=n: timm.create_model(n, **options), input_size) for n in others}  # type: ignore[misc]
    nearest = min(costs, key=lambda n: abs(costs[n] - macs))
    return f"narrowed: {nearest}", timm.create_model(nearest, **options), costs[nearest]
