"""What README shows is run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL))
def test_python_snippets_run_and_print_what_they_say(code, capsys):
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    for promised in re.findall(r"#\s+([\d ]+)$", code, re.MULTILINE):
        assert promised.strip() in printed


def test_commands_exist_with_the_options_shown():
    from seedcnn.cli.app import app
    from seedcnn.device.main import _parser

    lines = [
        line.split("#")[0] for block in re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()
    ]
    seen = 0
    for words in filter(None, map(shlex.split, lines)):
        if words[0] == "seedcnn":
            command = typer.main.get_command(app)
            rest = words[1:]
            while hasattr(command, "commands"):
                command = command.commands[rest.pop(0)]
            known = {option for parameter in command.params for option in parameter.opts}
            assert {word for word in rest if word.startswith("--")} <= known, words
            seen += 1
        elif words[0] == "seedcnn-device":
            _parser().parse_args(words[1:])
            seen += 1
        elif words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert seen >= 8


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        if "://" not in target:
            assert (ROOT / target).exists(), target
