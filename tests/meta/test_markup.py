"""No text of a user is read as rich's markup: ``[red]``, ``[/b]`` and ``:ghost:`` are printed as they are."""

from __future__ import annotations

import ast
import io
from pathlib import Path

import pytest
import rich
from rich.console import Console
from torch import nn

from seedcnn.convert import GhostConfig, convert_
from seedcnn.evaluate.benchmark import Measurement
from seedcnn.evaluate.costs import cost
from seedcnn.evaluate.tables import cost_row, print_bench
from seedcnn.latency import Latency
from seedcnn.progress import Progress
from seedcnn.train.progress import TrainProgress

ROOT = Path(__file__).parents[2] / "seedcnn"
ODD = "groupnl_table1:ghost: [/b] [red]x"


def test_consoles_are_made_in_one_place():
    found = []
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            off = any(word.arg == "markup" and getattr(word.value, "value", True) is False for word in node.keywords)
            if name == "Console" or (
                name == "TextColumn" and ast.unparse(node.args[0]).count("description") and not off
            ):
                found.append(f"{path.relative_to(ROOT)}: {name}")
    assert found == ["terminal.py: Console"]


def test_a_line_of_training(capsys):
    row = {"loss": 1.0, "accuracy": 50.0, "seconds": 1.0, "images_per_s": 10.0}
    with TrainProgress(ODD, 2, 3) as progress:
        progress.say(ODD)
        progress.epoch(0, row)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == ODD
    assert lines[1].startswith(f"{ODD}: epoch 1/2  loss 1.000")


@pytest.mark.parametrize("terminal", [True, False])
def test_training_on_a_console_of_the_user(terminal):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=200, color_system=None)
    with TrainProgress(ODD, 2, 3, progress=Progress(console)) as progress:
        progress.step(0, 1.0, 50.0)
        progress.epoch(0, {"loss": 1.0, "accuracy": 50.0, "seconds": 1.0, "images_per_s": 10.0})
    assert ODD in console.file.getvalue()


def test_a_benchmark(capsys):
    found = [Measurement(ODD, "ort", Latency(2.0, 1.0, 3.0, 5), 1.0)]
    about = {"versions": {}, "machine": ODD, "threads": 1, "process": "", "how": ""}
    print_bench(ODD, {ODD: cost_row(cost(nn.Conv2d(3, 4, 3), (3, 8, 8)))}, {"latency": found}, about)
    out = capsys.readouterr().out
    assert out.count(ODD) == 4
    assert " [1.000, 3.000] " in out


def test_a_conversion(capsys):
    net = nn.Sequential()
    net.add_module("a:ghost:", nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)))
    report = convert_(net, GhostConfig())
    rich.print(report)
    out = capsys.readouterr().out
    assert out.count("a:ghost:.") == 3
    assert "\N{GHOST}" not in out
