"""Text for users: how a long job reports progress, and numbers with their nouns."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Say", "counted"]

Say = Callable[[str], None]
"""A function that takes one line of text for the user; ``print`` is one. It is called with a line at a time."""


def counted(number: int, noun: str) -> str:
    """A number with its noun: 1 epoch, 2 epochs."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
