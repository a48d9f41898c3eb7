"""The command line, run as a user runs it."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from seedcnn.cli.app import app
from seedcnn.cli.pack import pack
from seedcnn.pack import Parent
from tests.cli.calls import as_process, in_process


def commands(group=None, path=()):
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def test_help_loads_no_torch():
    code = (
        "import sys\nfrom seedcnn.cli import main\nsys.argv = ['seedcnn', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\nprint(sorted({'torch', 'numpy', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "pack" in done.stdout


@pytest.mark.parametrize(
    ("path", "command"), list(commands()), ids=lambda value: "-".join(value) if isinstance(value, tuple) else ""
)
def test_every_help_ends_with_an_example(path, command):
    assert f"Example: seedcnn {' '.join(path)}" in command.help
    result = CliRunner().invoke(app, [*path, "--help"])
    assert result.exit_code == 0


def test_the_table_of_commands_is_frozen():
    found = {" ".join(path) for path, _ in commands()}
    assert found == {
        "recipes",
        "train",
        "reproduce",
        "evaluate",
        "cost",
        "bench",
        "plan",
        "pack",
        "apply",
        "inspect",
        "repo init",
        "repo add-family",
        "repo publish",
        "repo refresh",
        "repo prune",
        "repo verify",
        "repo keys",
        "repo rotate",
        "repo revoke",
        "repo export",
        "repo sign",
        "repo import",
        "repo serve",
        "rollout start",
        "rollout status",
        "rollout pause",
        "rollout resume",
        "rollout dial",
        "rollout revert",
        "rollout advance",
    }


@pytest.mark.parametrize("call", [in_process, pytest.param(as_process, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "demo:grupnl"], "no recipe 'grupnl'"),
        (["train", "demo:groupnl", "--set", "epochz=3"], "no field 'epochz'; did you mean epochs"),
        (["inspect", "pyproject.toml"], "pyproject.toml: header length"),
        (["pack", "none.ckpt", "--out", "x", "--family", "f", "--release", "1"], "there is no checkpoint none.ckpt"),
        (
            ["pack", "a", "--out", "x", "--family", "f", "--release", "1", "--compression", "lz4"],
            "--compression is 'lz4'; it must be one of entropy, zstd, zlib, xz",
        ),
        (
            ["pack", "a", "--out", "x", "--family", "f", "--release", "1", "--parent", "p", "--step", "0.1"],
            "--parent brings its own grid; leave --step out",
        ),
        (
            ["pack", "none.ckpt", "--out", "x", "--family", "My [red]Model", "--release", "1"],
            "--family (='My [red]Model') must be 1 to 64 of a-z 0-9 . _ -",
        ),
        (["pack", "none.ckpt", "--out", "x", "--family", "rollout", "--release", "1"], "and not 'rollout'"),
        (["repo", "publish", "nowhere", "x.bundle"], "x.bundle"),
    ],
    ids=str,
)
def test_mistakes_are_one_sentence(call, arguments, words):
    said = call(*arguments, expect=1).stderr
    is_one_sentence(re.sub(r"^training .*\n(loading PyTorch.*\n)*", "", said), words)  # comes before torch is imported


def is_one_sentence(text, words):
    assert text.startswith("seedcnn: ")
    assert words in text
    assert "Traceback" not in text
    assert len(text.strip().splitlines()) == 1


def test_a_mistake_ends_the_process_with_one_sentence():
    done = as_process("inspect", "pyproject.toml", expect=1)
    is_one_sentence(done.stderr, "pyproject.toml: header length")
    assert not done.stdout


def test_wrong_usage_is_exit_code_2():
    for call in (in_process, as_process):
        assert call("pack", expect=2).stderr
        assert call("fly", expect=2).stderr


def test_recipes_are_listed():
    assert "groupnl_table6" in as_process("recipes").stdout
    assert "demo:groupnl" in in_process("recipes", "demo").stdout


def test_a_change_costs_as_much_as_in_the_library():
    assert inspect.signature(pack).parameters["delta_price"].default == Parent.price


@pytest.mark.parametrize("seedcnn", [in_process, pytest.param(as_process, marks=pytest.mark.slow)])
def test_train_pack_inspect_evaluate(seedcnn, tmp_path, cifar10):
    """The commands in a row on real pictures, one short epoch."""
    checkpoint, bundle = tmp_path / "a.ckpt", tmp_path / "a.bundle"
    sets = ["--set", "epochs=1", "--set", "batch_size=500", "--set", "model_options.widths=(16, 16, 32)"]
    sets += ["--set", "model_options.patch=4"]
    done = seedcnn("train", "resnet8:groupnl", "--out", checkpoint, *sets)
    assert "1 epoch, test accuracy" in done.stdout
    done = seedcnn("pack", checkpoint, "--out", bundle, "--family", "f", "--release", 3, "--step", 1 / 512)
    assert "bits a weight" in done.stdout
    assert "on 10,000 test images" in " ".join(done.stdout.split())
    searched, child = tmp_path / "b.bundle", tmp_path / "c.bundle"
    options = ("--family", "f", "--release")
    plot = tmp_path / "search.svg"
    more = ("--max-accuracy-drop", 2, "--calibration-pictures", 500, "--plot", plot, "--sizes")
    done = seedcnn("pack", checkpoint, "--out", searched, *options, 3, *more)
    assert all(words in done.stdout for words in ("taken", "on 500 calibration images", "int8 per channel, zstd"))
    assert searched.stat().st_size < bundle.stat().st_size
    assert plot.read_text().startswith("<?xml")
    bounded = ("--max-accuracy-drop", 0.2, "--calibration-pictures", 1, "--force-int8")
    done = seedcnn("pack", checkpoint, "--out", tmp_path / "none.bundle", *options, 3, *bounded, expect=1)
    assert "at most 0.2 is accepted: use more images, a step, or float32" in done.stderr
    assert not (tmp_path / "none.bundle").exists()
    done = seedcnn("pack", checkpoint, "--out", child, *options, 4, "--parent", bundle)
    assert f"{child}.delta: " in done.stdout
    dear = tmp_path / "dear.bundle"
    seedcnn("pack", checkpoint, "--out", dear, *options, 4, "--parent", bundle, "--delta-price", 1e9)
    assert Path(f"{dear}.delta").stat().st_size < Path(f"{child}.delta").stat().st_size
    done = seedcnn("apply", bundle, f"{child}.delta", "--out", tmp_path / "made.bundle")
    assert "release 4, content" in done.stdout
    done = seedcnn("apply", searched, f"{child}.delta", "--out", tmp_path / "made.bundle", expect=1)
    assert "the delta applies to the bundle with content" in done.stderr
    done = seedcnn("inspect", bundle)
    assert "release 3" in done.stdout
    assert "10 labels: airplane, automobile" in done.stdout
    assert "% of 10,000 images of cifar10 when it was packed" in done.stdout
    assert "input 3 x 32 x 32: other sizes are refused" in done.stdout
    assert "all digests match" in done.stdout
    assert "conv1.weight" not in done.stdout
    assert "conv1.weight" in seedcnn("inspect", bundle, "--tensors").stdout
    some = ("--corruptions", "gaussian_noise,contrast")
    done = seedcnn("evaluate", checkpoint, bundle, "--images", 50, *some, "--json")
    rows = json.loads(done.stdout)
    assert set(rows) == {str(checkpoint), str(bundle)}
    assert all(20 < row["clean"] < 100 and row["n"] == 10000 for row in rows.values())
    assert all(row["corrupted"]["n"] == 50 for row in rows.values())
    assert "mean over groups" in seedcnn("evaluate", bundle, "--images", 20, *some).stdout
    done = seedcnn("evaluate", "pyproject.toml", expect=1)
    assert "neither a bundle" in done.stderr
