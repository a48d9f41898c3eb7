"""``seedcnn recipes``."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import typer.testing

from seedcnn.cli.app import app
from seedcnn.errors import ConfigError
from seedcnn.recipe_index import list_recipe_files, list_recipes


def call(*arguments):
    return typer.testing.CliRunner().invoke(app, ["recipes", *arguments])


def test_tables_without_an_argument():
    lines = call().output.splitlines()
    files = list_recipe_files()
    assert len(lines) == len(files) + 1
    for line, (name, file) in zip(lines, files.items(), strict=False):
        assert line.split(maxsplit=2) == [name, str(len(file.recipes)), file.about]
    assert lines[-1].startswith(f"{len(list_recipes())} recipes; ")
    assert [row["table"] for row in json.loads(call("--json").output)] == list(files)


def test_recipes():
    every = list_recipes()
    lines = call("--all").output.splitlines()
    assert [line.split(maxsplit=1) for line in lines] == [[name, about] for name, about in every.items()]
    assert [line.split()[0] for line in call("GTSRB").output.splitlines()] == [n for n in every if "gtsrb" in n]
    one = call("vgg11_mono", "--table", "groupnl_table6", "--json").output
    assert json.loads(one) == [
        {"recipe": "groupnl_table6:vgg11_mono", "about": every["groupnl_table6:vgg11_mono"]},
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "groupnl_table6"),
        (["resnet18_groupnl"], "groupnl_table6:resnet18_groupnl"),
        (["--table", "demo"], "demo:groupnl"),
        (["resnet19"], "did you mean resnet18"),
    ],
    ids=str,
)
def test_listing_imports_neither_torch_nor_the_recipes(arguments, words):
    code = (
        "import sys\nfrom seedcnn.cli import main\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'numpy', 'timm', 'seedcnn.train'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, "recipes", *arguments]
    done = subprocess.run(command, text=True, capture_output=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert words in done.stdout + done.stderr


def test_wrong_use():
    for arguments, words in [
        (["resnet19"], "did you mean resnet18"),
        (["--table", "groupnl_tabel6"], "did you mean groupnl_table6"),
        (["--all", "vgg"], "--all contradicts a pattern"),
        (["--all", "--table", "demo"], "--all contradicts --table"),
    ]:
        result = call(*arguments)
        assert isinstance(result.exception, ConfigError)
        assert words in str(result.exception)
