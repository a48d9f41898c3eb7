"""The page on one's own pictures runs as it is written."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import typer

from seedcnn.train import load_checkpoint
from tests.own.photos import CLASSES, write_photos
from tests.own.test_road import NETWORK

TEXT = (Path(__file__).parents[2] / "docs" / "own-pictures.md").read_text()


def test_the_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "photos", 8)
    (tmp_path / "mynet.py").write_text(NETWORK.replace("Net(nn", "MyNet(nn"))
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    short = code.replace("train(config", "train(override(config, ['epochs=1'])").replace(
        "import own", "import override, own"
    )
    exec(compile(short, "own-pictures.md", "exec"), {})
    assert load_checkpoint("runs/own.ckpt").labels == CLASSES


def test_the_commands_have_the_options_shown():
    from seedcnn.cli.app import app

    blocks = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    lines = [line.split("#")[0] for block in blocks for line in block.splitlines()]
    seen = 0
    for words in filter(None, map(shlex.split, lines)):
        if words[0] == "seedcnn":
            command, rest = typer.main.get_command(app), words[1:]
            while hasattr(command, "commands"):
                command = command.commands[rest.pop(0)]
            known = {option for parameter in command.params for option in parameter.opts}
            assert {word for word in rest if word.startswith("--")} <= known, words
            seen += 1
    assert seen == 10
