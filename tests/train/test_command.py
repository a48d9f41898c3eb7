"""``seedcnn train``, called as the command line calls it."""

from __future__ import annotations

import pytest
import typer.testing

from seedcnn.cli.app import app
from seedcnn.errors import ConfigError
from seedcnn.train import load_checkpoint

RECIPE = """
from seedcnn.train import TrainConfig

def icons():
    options = {"widths": (4, 4, 8), "patch": 8, "num_classes": 2}
    return TrainConfig("resnet8_cifar", options, data="icons50", hold_out="apple", epochs=2, batch_size=4)
"""


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "mine.py").write_text(RECIPE)
    return f"{tmp_path / 'mine.py'}:icons"


def call(*arguments):
    return typer.testing.CliRunner().invoke(app, ["train", *map(str, arguments)])


def test_wrong_use(tmp_path, recipe):
    for arguments, words in [
        ([recipe], "data 'icons50' needs the directory"),
        ([recipe, "--set", "data=imagenet", "--set", "hold_out="], "needs the directory"),
        ([recipe, "--set", "epoch=3"], "did you mean epochs"),
        ([recipe, "--set", "augment=maybe"], "augment (='maybe') is unknown; known: none, crop, shift2"),
        ([recipe, "--workers", 3], "--workers 3 has no effect on icons50"),
        (["demos:groupnl"], "did you mean demo:groupnl"),
        ([recipe, "--data", tmp_path, "--validate", "--set", "hold_out=", "--set", "data=imagenet"], "--validate"),
    ]:
        result = call(*arguments)
        assert isinstance(result.exception, ConfigError)
        assert words in str(result.exception)


def test_a_network_that_cannot_be_built_is_refused_before_the_data(recipe):
    for assignments, words in [
        (["model_options.widths=[]"], "`widths` (=()) must have 3 entries"),
        (["model_options.widths=[16,16]"], "`widths` (=(16, 16)) must have 3 entries"),
        (["model_options.widths=[0,16,16]"], "`widths` (=(0, 16, 16)) must be positive integers"),
        (["model_options.patch=0"], "`patch` (=0) must be a positive integer"),
        (["model_options.num_classes=0"], "`num_classes` (=0) must be a positive integer"),
        (["model_options.width_divisor=1000"], "`width_divisor` (=1000) has no effect without `width`"),
        (["model=resnet18", "model_options={'nosuch': 1}"], "unexpected keyword argument 'nosuch'"),
    ]:
        result = call(recipe, *(part for text in assignments for part in ("--set", text)))
        assert isinstance(result.exception, ConfigError)
        assert words in str(result.exception)
        assert "cannot be built with model_options" in str(result.exception)


def test_cifar10_in_short(tmp_path, cifar10):
    out = tmp_path / "a.ckpt"
    small = [
        "convert.nlf_groups=2",
        "epochs=1",
        "fraction=0.002",
        "batch_size=20",
        "model_options.widths=(4, 4, 8)",
        "model_options.patch=8",
    ]
    sets = [part for text in small for part in ("--set", text)]
    result = call("resnet8:groupnl", "--out", out, "--validate", "--device", "cpu", *sets)
    assert result.exception is None
    assert f"{out}: 1 epoch, test accuracy" in result.output
    assert "(n = 10000" in result.output
    state = load_checkpoint(out)
    assert state.history[0]["validation"] == state.best
    assert (tmp_path / "a.best.ckpt").is_file()
    assert (tmp_path / "a.csv").is_file()
