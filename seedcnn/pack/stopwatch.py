"""Where the time of a job goes, told to the user while it goes and kept for the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from seedcnn.messages import Advance, Say, steps

__all__ = ["Stopwatch"]


class Stopwatch:
    """Follows the stages of a job.

    Args:
        progress: told about each stage; None tells nobody.
    """

    def __init__(self, progress: Say | None = None) -> None:
        self.progress = progress
        self.seconds: dict[str, float] = {}

    def say(self, text: str) -> None:
        """Write a line."""
        if self.progress is not None:
            self.progress(text)

    @contextmanager
    def __call__(self, stage: str, total: int | None = None) -> Iterator[Advance]:
        """Follow a stage of ``total`` steps and add its seconds to those of this name."""
        start = time.perf_counter()
        try:
            with steps(self.progress, stage, total) as advance:
                yield advance
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start
