"""Sums over the batches of an epoch, and the error that ends a run whose loss is not finite."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from seedcnn.errors import TrainingError

__all__ = ["Counts", "NotFiniteError"]


class NotFiniteError(TrainingError):
    """A loss that is not finite, and its batches.

    Attributes:
        step: batches of the epoch that were done before.
        pictures: for each process whose loss is not finite, the indices of the images in its batch.
    """

    def __init__(self, text: str, step: int, pictures: dict[int, list[int]]) -> None:
        super().__init__(text)
        self.step, self.pictures = step, pictures


def _clocks() -> tuple[float, float]:
    return time.monotonic(), time.process_time()


@dataclass
class Counts:
    """Sums over the batches of an epoch, over all processes."""

    loss: float = 0.0
    correct: int = 0
    seen: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    started: tuple[float, float] = field(default_factory=_clocks)

    def add(self, loss: float, correct: int, pictures: int) -> None:
        """Add a batch: its mean loss, the number of correct answers, and the number of images."""
        self.loss += loss * pictures
        self.correct += correct
        self.seen += pictures

    def elapsed(self) -> dict[str, float]:
        """Wall-clock seconds and CPU seconds of this process, including those before a restart."""
        wall, cpu = (now - then for now, then in zip(_clocks(), self.started, strict=True))
        return {"seconds": self.seconds + wall, "cpu_seconds": self.cpu_seconds + cpu}

    def save(self) -> dict[str, float]:
        """The sums in the form that a checkpoint within an epoch stores."""
        return {"loss": self.loss, "correct": self.correct, "seen": self.seen, **self.elapsed()}

    def row(self) -> dict[str, float]:
        """Mean loss, training accuracy (percent), images/s, wall-clock seconds, and CPU seconds of this process."""
        elapsed = self.elapsed()
        return {
            "loss": self.loss / self.seen,
            "accuracy": 100 * self.correct / self.seen,
            "images_per_s": self.seen / elapsed["seconds"],
            **elapsed,
        }
