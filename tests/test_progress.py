"""Progress of long jobs: what a pipe gets, what a terminal shows at several widths, and what happens on errors."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from seedcnn.messages import steps
from seedcnn.progress import Progress, duration


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def pipe():
    return io.StringIO()


def test_a_stage_of_minutes_writes_ever_fewer_lines_through_a_pipe(pipe):
    clock = Clock()
    progress = Progress(Console(file=pipe, width=80), clock=clock)
    with progress.steps("timing layers", 600) as advance:
        for _ in range(600):
            clock.now += 1
            advance(note="conv1")
    lines = pipe.getvalue().splitlines()
    assert lines[0] == "timing layers: 2 of 600, conv1, 9 min 58 s left"
    assert lines[-1] == "timing layers: done in 10 min 0 s"
    assert 10 <= len(lines) <= 15


def test_a_short_stage_says_nothing_through_a_pipe(pipe):
    progress = Progress(Console(file=pipe))
    with progress.steps("exporting", None) as advance:
        advance()
    assert pipe.getvalue() == ""


def test_a_stage_whose_first_step_takes_long_is_named_meanwhile(pipe):
    progress = Progress(Console(file=pipe), later=0.05)
    with progress.steps("exporting", None) as advance:
        while not pipe.getvalue():
            pass
        advance()
    assert pipe.getvalue().splitlines() == ["exporting ...", "exporting: done in 0 s"]


def test_a_stage_that_fails_is_not_called_done(pipe):
    clock = Clock()
    progress = Progress(Console(file=pipe), clock=clock)

    def read():
        with progress.steps("reading", 3) as advance:
            clock.now += 5
            advance()
            raise KeyError

    with pytest.raises(KeyError):
        read()
    assert pipe.getvalue().splitlines() == ["reading: 1 of 3, 10 s left"]


@pytest.mark.parametrize("width", [20, 40, 80, 100])
def test_a_terminal_shows_bars_that_fit_it_and_keeps_the_lines(width):
    screen = io.StringIO()
    console = Console(file=screen, width=width, force_terminal=True, color_system=None)
    progress = Progress(console, soon=0.0)
    with progress.steps("timing the layers of a network with a long name", 4) as advance:
        advance(note="layer1.0.conv1.of.a.long.name in abs-r2-groups4")
        progress("accepted")
        with steps(progress, "exporting", None):
            shown = console.render_lines(progress._bars.get_renderable())
    assert shown
    assert all(sum(len(part.text) for part in line) <= width for line in shown)
    assert "accepted" in screen.getvalue()
    assert progress._bars is None


def test_a_plain_function_gets_lines_only():
    found: list[str] = []
    with steps(found.append, "exporting", 3) as advance:
        advance(2, "half")
    with steps(None, "exporting") as advance:
        advance()
    assert found == []


@pytest.mark.parametrize(
    ("seconds", "text"), [(-1, "0 s"), (59.4, "59 s"), (61, "1 min 1 s"), (3600, "1 h 0 min"), (7380, "2 h 3 min")]
)
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text
