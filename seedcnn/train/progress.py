"""Progress of a training run: a bar on a terminal, otherwise one line per epoch."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from seedcnn.terminal import console as open_console

__all__ = ["TrainProgress"]


class TrainProgress:
    """Shows loss, accuracy, images per second and the remaining time.

    Args:
        name: name of the run.
        epochs: total number of epochs.
        steps: number of batches of an epoch.
        console: where to write; None for standard error.
        quiet: write nothing.
    """

    def __init__(
        self, name: str, epochs: int, steps: int, *, console: Console | None = None, quiet: bool = False
    ) -> None:
        self.name, self.epochs, self.steps, self.quiet = name, epochs, steps, quiet
        self.console = console or open_console(stderr=True, highlight=False)
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._start, self._images = time.monotonic(), 0

    def __enter__(self) -> TrainProgress:
        if not self.quiet and self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[epoch]}  loss {task.fields[loss]:.3f}  acc {task.fields[accuracy]:5.1f} %"),
                TextColumn("{task.fields[speed]:6.0f} images/s"),
                TimeRemainingColumn(),
                console=self.console,
            )
            self._task = self._bar.add_task(
                self.name, total=self.epochs * self.steps, epoch="", loss=float("nan"), accuracy=0.0, speed=0.0
            )
            self._bar.start()
        self._start = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, total: int, done: int) -> None:
        """Set the total number of batches, and the number done before the run was resumed."""
        if self._bar is not None:
            self._bar.update(self._task, total=total, completed=done)

    def say(self, text: str) -> None:
        """Write a line."""
        if not self.quiet:
            self.console.print(text, soft_wrap=True, markup=False, emoji=False)

    def step(self, epoch: int, images: int, loss: float, accuracy: float) -> None:
        """Show a finished batch; loss and accuracy (percent) are running means of the epoch."""
        self._images += images
        if self._bar is not None:
            speed = self._images / max(time.monotonic() - self._start, 1e-9)
            label = f"epoch {epoch + 1}/{self.epochs}"
            self._bar.update(self._task, advance=1, epoch=label, loss=loss, accuracy=accuracy, speed=speed)

    def epoch(self, number: int, row: dict[str, float]) -> None:
        """Show a finished epoch: without a terminal, write its line."""
        if self._bar is None and not self.quiet:
            left = (self.epochs - number - 1) * row["seconds"]
            validated = f"validation {row['validation']:.2f} %  " if "validation" in row else ""
            self.console.print(
                f"{self.name}: epoch {number + 1}/{self.epochs}  loss {row['loss']:.3f}  "
                f"train accuracy {row['accuracy']:.1f} %  {validated}{row['images_per_s']:.0f} images/s  "
                f"{left:.0f} s left",
                soft_wrap=True,
                markup=False,
                emoji=False,
            )
