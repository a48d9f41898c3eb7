"""Somebody who is shown the progress of a plan."""

from __future__ import annotations

from contextlib import contextmanager


class Heard:
    """Keeps the stages, the notes and the number of steps."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int | None]] = []
        self.notes: list[str] = []
        self.done = 0

    def __call__(self, text: str) -> None: ...

    @contextmanager
    def steps(self, what, total):
        self.stages.append((what, total))
        yield self.advance

    def advance(self, amount=1, note=""):
        self.done += amount
        self.notes.append(note)
