"""Checks of the arguments that the networks share."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["check_sizes", "check_stages"]


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def check_sizes(**sizes: int) -> None:
    """Check that every argument is a positive integer.

    Raises:
        ValueError: naming the argument, its value and the rule.
    """
    for name, value in sizes.items():
        if not _positive(value):
            raise ValueError(f"`{name}` (={value!r}) must be a positive integer")


def check_stages(stages: int, **sizes: Sequence[int]) -> None:
    """Check that every argument is a positive integer for each of the ``stages``.

    Raises:
        ValueError: naming the argument, its value and the rule.
    """
    for name, values in sizes.items():
        if len(values) != stages:
            raise ValueError(f"`{name}` (={tuple(values)}) must have {stages} entries, one for each stage")
        if not all(map(_positive, values)):
            raise ValueError(f"`{name}` (={tuple(values)}) must be positive integers")
