"""Progress of long jobs: bars with the time left in a terminal and in Jupyter, sparse lines through a pipe."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.table import Column, Table
from rich.text import Text

from seedcnn.messages import Advance
from seedcnn.terminal import console as open_console

__all__ = ["Progress", "duration"]

_SOON, _LATER = 0.5, 2.0  # seconds until a stage shows its bar in a terminal, or its first line through a pipe
_NARROW = 60  # columns; a narrower terminal has no room for a bar beside the words
_PAUSES = (8.0, 20.0, 60.0)  # seconds between its further lines; the last is repeated


class Progress:
    """Shows what a long job does. Calling it writes a line; :meth:`steps` follows a stage.

    In a terminal and in Jupyter, a stage that takes over half a second has a bar with the time left, which goes when
    the stage ends. Elsewhere, and in Jupyter without ipywidgets, a stage that takes over two seconds writes a line,
    then others ever more rarely if its number of steps is known, and one at its end.

    Args:
        console: where to write; None for standard error.
        clock: seconds from any start.
        soon, later: seconds until a stage shows its bar in a terminal, or its first line elsewhere.
    """

    def __init__(
        self,
        console: Console | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        soon: float = _SOON,
        later: float = _LATER,
    ) -> None:
        self.console = console or open_console(stderr=True, highlight=False)
        self._clock, self._soon, self._later = clock, soon, later
        self._bars: Bars | None = None
        self._open = 0
        self._wanting = self.console.is_jupyter and not _has_widgets()

    def __call__(self, text: str) -> None:
        """Write a line."""
        self.console.print(text, soft_wrap=not self.live, markup=False, emoji=False, highlight=False)

    @property
    def live(self) -> bool:
        """Whether bars can be shown."""
        return self.console.is_terminal or (self.console.is_jupyter and _has_widgets())

    @contextmanager
    def steps(self, what: str, total: int | None) -> Iterator[Advance]:
        """Follow a stage of ``total`` steps, None if their number is not known; stages may lie within each other."""
        with self._bar(what, total) if self.live else self._lines(what, total) as advance:
            yield advance

    @contextmanager
    def _bar(self, what: str, total: int | None) -> Iterator[Advance]:
        if self._bars is None:
            self._bars = _Bars(self.console, self._soon)
        bars = self._bars
        task: TaskID = bars.add_task(what, total=total, note="")
        self._open += 1
        if self._open == 1:
            bars.start()

        def advance(amount: int = 1, note: str = "") -> None:
            bars.update(task, advance=amount, note=note)

        try:
            yield advance
        finally:
            self._open -= 1
            bars.remove_task(task)
            if not self._open:
                bars.stop()
                self._bars = None

    def _line(self, text: str) -> None:
        if self._wanting:
            self._wanting = False
            self("bars in Jupyter need ipywidgets: pip install ipywidgets")
        self(text)

    @contextmanager
    def _lines(self, what: str, total: int | None) -> Iterator[Advance]:
        stage = _Lines(self._line, what, total, self._clock, self._later)
        try:
            yield stage
            stage.end()
        finally:
            stage.cancel()


def _has_widgets() -> bool:
    """Return whether rich can draw something that changes in Jupyter."""
    try:
        return find_spec("ipywidgets") is not None
    except ValueError:  # it is None in sys.modules
        return False


class _Lines:
    """The lines of one stage; the first comes from a timer, since the first step may take long."""

    def __init__(
        self, say: Callable[[str], None], what: str, total: int | None, clock: Callable[[], float], later: float
    ) -> None:
        self._say, self._what, self._total, self._clock = say, what, total, clock
        self._start, self._done, self._said = clock(), 0, 0
        self._next = self._start + later
        self._lock = threading.Lock()
        self._timer = threading.Timer(later, self._first)
        self._timer.daemon = True
        self._timer.start()

    def __call__(self, amount: int = 1, note: str = "") -> None:
        with self._lock:
            self._done += amount
            if self._total and self._clock() >= self._next and self._done != self._total:
                self._line(note)

    def _first(self) -> None:
        with self._lock:
            if not self._said:
                self._line("")

    def _line(self, note: str) -> None:
        now = self._clock()
        passed = now - self._start
        parts = [f"{self._done:,} of {self._total:,}" if self._total else ""]
        parts.append(note)
        if self._total and self._done:
            parts.append(f"{duration(passed * (self._total - self._done) / self._done)} left")
        told = ", ".join(filter(None, parts))
        self._say(f"{self._what}: {told}" if told else f"{self._what} ...")
        self._next = now + _PAUSES[min(self._said, len(_PAUSES) - 1)]
        self._said += 1

    def end(self) -> None:
        """Say that the stage is done, if it has said anything."""
        self.cancel()
        with self._lock:
            if self._said:
                self._say(f"{self._what}: done in {duration(self._clock() - self._start)}")

    def cancel(self) -> None:
        self._timer.cancel()


class _Left(ProgressColumn):
    """The time left, or the time passed where the number of steps is not known."""

    def render(self, task: Task) -> Text:
        left = task.time_remaining
        if task.total is None or left is None:
            return Text(duration(task.elapsed or 0.0), style="progress.elapsed")
        return Text(f"{duration(left)} left", style="progress.remaining")


class _Count(ProgressColumn):
    """The number of finished steps, of all."""

    def render(self, task: Task) -> Text:
        done = int(task.completed)
        return Text(f"{done:,}/{int(task.total):,}" if task.total else f"{done:,}" if done else "")


class _Bars(Bars):
    """Bars that show only stages which take their time, and shorten texts rather than break them."""

    def __init__(self, console: Console, soon: float) -> None:
        self._soon = soon
        bar = () if console.width < _NARROW else (BarColumn(bar_width=12),)
        super().__init__(
            TextColumn("{task.description}", markup=False, table_column=_column(ratio=3)),
            *bar,
            _Count(table_column=_column(justify="right")),
            _Left(table_column=_column()),
            TextColumn("{task.fields[note]}", markup=False, table_column=_column(ratio=2)),
            console=console,
            transient=True,
            expand=True,
        )

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        return super().make_tasks_table([task for task in tasks if (task.elapsed or 0.0) >= self._soon])


def _column(ratio: int | None = None, justify: str = "left") -> Column:
    return Column(no_wrap=True, overflow="ellipsis", ratio=ratio, justify="right" if justify == "right" else "left")


def duration(seconds: float) -> str:
    """A time for people: 4 s, 3 min 20 s, 2 h 5 min."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {left} s" if minutes else f"{left} s"
