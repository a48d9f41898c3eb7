"""Networks that meet a budget: the narrowed vanilla network that every comparison needs beside it."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch

from seedcnn.errors import ConfigError
from seedcnn.evaluate.cost import cost
from seedcnn.models import create_model, default_widths

__all__ = ["narrow_to_macs"]


def narrow_to_macs(
    name: str,
    macs: int,
    *,
    divisor: int = 16,
    tolerance: float = 0.05,
    input_size: tuple[int, int, int] = (3, 32, 32),
    **kwargs: Any,
) -> tuple[int, ...]:
    """Widths of the vanilla network ``name`` that cost nearest to ``macs``.

    Every stage is narrowed by about the same factor; widths are multiples of ``divisor``, because other widths leave
    the blocked memory layout of the usual runtimes and would handicap the control.

    Args:
        macs: the budget, multiply-accumulates for one picture.
        divisor: widths are multiples of it.
        tolerance: largest accepted relative distance from the budget.
        kwargs: arguments of :func:`seedcnn.models.create_model`; ``widths`` are the widths to narrow.

    Returns:
        One width for each stage. Among the combinations within ``tolerance`` the most evenly narrowed one is taken.

    Raises:
        ConfigError: if no combination comes within ``tolerance``.
    """
    full = tuple(kwargs.pop("widths", None) or default_widths(name))

    def macs_of(widths: tuple[int, ...]) -> int:
        with torch.device("meta"):  # shapes are enough
            model = create_model(name, widths=widths, **kwargs)
        return cost(model, input_size).macs

    low, high = 0.0, 1.0
    for _ in range(20):  # the even factor, ignoring the divisor
        middle = (low + high) / 2
        if macs_of(tuple(max(1, round(w * middle)) for w in full)) > macs:
            high = middle
        else:
            low = middle
    even = [w * low for w in full]
    choices = [sorted({max(divisor, int(w // divisor + k) * divisor) for k in (-1, 0, 1, 2)}) for w in even]

    def uneven(widths: tuple[int, ...]) -> float:
        return max(abs(w / e - 1) for w, e in zip(widths, even, strict=True))

    nearest: tuple[float, tuple[int, ...], int] = (float("inf"), full, 0)
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
