"""Text for users: how a long job reports progress, and numbers with their nouns."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, runtime_checkable

__all__ = ["Advance", "Say", "counted", "shown", "steps"]

Say = Callable[[str], None]
"""A function that takes one line of text for the user; ``print`` is one. It is called with a line at a time."""


class Advance(Protocol):
    """Says that ``amount`` more steps are done, and perhaps in a few words what the last one found."""

    def __call__(self, amount: int = 1, note: str = "") -> None: ...


@runtime_checkable
class _Stepped(Protocol):
    def steps(self, what: str, total: int | None) -> AbstractContextManager[Advance]: ...


def steps(progress: Say | None, what: str, total: int | None = None) -> AbstractContextManager[Advance]:
    """Report one stage of a long job, step by step, to whoever can show it.

    Args:
        progress: a :class:`seedcnn.progress.Progress` shows a bar; any other function, and None, shows nothing.
        what: the stage, such as "exporting".
        total: number of steps; None if it is not known.

    Returns:
        A context whose value is called after each step.
    """
    if isinstance(progress, _Stepped):
        return progress.steps(what, total)
    return nullcontext(_nobody)


def _nobody(amount: int = 1, note: str = "") -> None:
    """Nobody looks."""


def counted(number: int, noun: str) -> str:
    """A number with its noun: 1 epoch, 2 epochs."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shown(text: str) -> str:
    """Text on one line: what cannot be printed, such as line ends and the codes of terminals in names, as escapes."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)
