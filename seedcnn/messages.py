"""Text for users: how a long job reports progress, and numbers with their nouns."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Say", "counted", "shown"]

Say = Callable[[str], None]
"""A function that takes one line of text for the user; ``print`` is one. It is called with a line at a time."""


def counted(number: int, noun: str) -> str:
    """A number with its noun: 1 epoch, 2 epochs."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shown(text: str) -> str:
    """Text on one line: what cannot be printed, such as line ends and the codes of terminals in names, as escapes."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)
