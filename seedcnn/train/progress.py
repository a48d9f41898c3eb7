"""Progress of a training run: a line for each epoch, and below the lines a bar in a terminal."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from types import TracebackType

from seedcnn.messages import Advance, steps
from seedcnn.progress import Progress, duration

__all__ = ["TrainProgress"]


class TrainProgress:
    """Shows loss, accuracy, images per second and the remaining time.

    Args:
        name: name of the run.
        epochs: total number of epochs.
        steps: number of batches of an epoch.
        progress: what shows it; None for one on standard error.
        quiet: write nothing.
    """

    def __init__(
        self, name: str, epochs: int, steps: int, *, progress: Progress | None = None, quiet: bool = False
    ) -> None:
        self.name, self.epochs, self.steps, self.quiet = name, epochs, steps, quiet
        self._progress = progress or Progress()
        self._stack = ExitStack()
        self._advance: Advance | None = None
        self._total = epochs * steps

    def __enter__(self) -> TrainProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
        self._advance = None

    def begin(self, total: int, done: int) -> None:
        """Set the total number of batches, and the number done before the run was resumed."""
        self._total = total - done

    def say(self, text: str) -> None:
        """Write a line."""
        if not self.quiet:
            self._progress(text)

    def stage(self, what: str) -> AbstractContextManager[Advance]:
        """Follow something that takes its time beside the batches, such as a validation."""
        return steps(None if self.quiet else self._progress, what)

    def step(self, epoch: int, loss: float, accuracy: float) -> None:
        """Show a finished batch; loss and accuracy (percent) are running means of the epoch."""
        if self.quiet:
            return
        if self._advance is None:
            self._advance = self._stack.enter_context(self._progress.steps(self.name.strip(), self._total))
        self._advance(1, f"epoch {epoch + 1}/{self.epochs}, loss {loss:.3f}, {accuracy:.1f} %")

    def epoch(self, number: int, row: dict[str, float]) -> None:
        """Write the line of a finished epoch: loss, accuracies in percent, speed, and the time left."""
        if self.quiet:
            return
        validated = f"validation {row['validation']:.2f} %  " if "validation" in row else ""
        left = duration((self.epochs - number - 1) * row["seconds"])
        self._progress(
            f"{self.name}: epoch {number + 1}/{self.epochs}  loss {row['loss']:.3f}  "
            f"train accuracy {row['accuracy']:.1f} %  {validated}{row['images_per_s']:.0f} images/s  {left} left"
        )
