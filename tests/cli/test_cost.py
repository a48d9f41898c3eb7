"""``seedcnn cost`` as a user runs it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from seedcnn.cli._arguments import input_size
from seedcnn.cli.app import app
from seedcnn.errors import SeedCNNError


def run(*arguments):
    return CliRunner(env={"COLUMNS": "220"}).invoke(app, ["cost", *arguments])


def test_methods_side_by_side_with_the_narrowed_network():
    result = run(
        "resnet8_cifar", "--method", "groupnl", "--method", "ghost", "--set", "groupnl.normalize=batch", "--json"
    )
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["input"] == "3x32x32"
    names = list(found["networks"])
    assert names[:3] == ["vanilla", "groupnl", "ghost"]
    assert [name.split(":")[0] for name in names[3:]] == ["narrowed to groupnl", "narrowed to ghost"]
    costs = found["networks"]
    assert costs["vanilla"]["params"] == 78042
    assert costs["groupnl"]["params"] == 39898 + 2 * (2 * 8 + 3 * 16 + 3 * 32)  # a norm on the seeds
    assert costs["groupnl"]["nlf_evals"] > 0 == costs["ghost"]["nlf_evals"]
    for method, narrowed in zip(names[1:3], names[3:], strict=True):
        assert abs(costs[narrowed]["macs"] / costs[method]["macs"] - 1) <= 0.05


def test_the_table_has_ratios_and_layers():
    result = run("resnet8_cifar", "--method", "groupnl-paper", "--layers", "--input", "3x16x16")
    assert result.exit_code == 0, result.output
    assert "(0.511)" in result.stdout
    assert "stages.1.0.downsample.0" in result.stdout
    assert "narrowed to groupnl-paper" in result.stdout
    assert "32x8x8" in result.stdout


def test_the_convention_changes_the_count():
    macs = {}
    for convention in ("conv-linear", "torchprofile", "torchsummaryx"):
        result = run("resnet8_cifar", "--convention", convention, "--json")
        macs[convention] = json.loads(result.stdout)["networks"]["vanilla"]["macs"]
    assert macs["torchprofile"] > macs["torchsummaryx"] > macs["conv-linear"]


def test_a_network_of_timm_has_its_own_input_size():
    result = run("resnet18", "--method", "groupnl", "--set", "reduction_ratio=4", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["input"] == "3x224x224"
    assert list(found["networks"]) == ["vanilla", "groupnl"]
    assert found["networks"]["vanilla"]["params"] == 11_689_512
    assert found["networks"]["vanilla"]["macs"] == 1_814_073_344


def test_a_method_has_options_behind_its_name(params):
    asked = ["--method", "groupnl", "--method", "groupnl:sparse=true"]
    result = run("resnet8_cifar", *asked, "--set", "groupnl.reduction_ratio=4", "--json")
    assert result.exit_code == 0, result.output
    networks = json.loads(result.stdout)["networks"]
    assert list(networks)[:3] == ["vanilla", "groupnl", "groupnl:sparse=true"]
    assert params("--method", "groupnl:sparse=true") == params("--method", "groupnl", "--set", "sparse=true")
    plain = run("resnet8_cifar", "--method", "groupnl", "--json")
    assert networks["groupnl"]["params"] < json.loads(plain.stdout)["networks"]["groupnl"]["params"]


def test_the_step_of_narrow_widths_is_shown():
    names = list(json.loads(run("resnet8_cifar", "--method", "shift", "--json").stdout)["networks"])
    assert names == ["vanilla", "shift", "narrowed to shift: 8/8/16 in steps of 8"]


def test_a_method_that_saves_nothing_has_no_narrowed_network():
    result = run("resnet8_cifar", "--method", "mono", "--set", "pointwise=True", "--set", "scope=stride1", "--json")
    assert result.exit_code == 0, result.output
    assert list(json.loads(result.stdout)["networks"]) == ["vanilla", "mono"]
    assert "saves no MACs" in result.stderr


OWN = """
from torch import nn


def make():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.Conv2d(16, 16, 3), nn.Flatten(), nn.Linear(64, 2))
"""


@pytest.fixture
def params(tmp_path, monkeypatch):
    """Parameters of a small network of the user's own, as it is and by every method."""
    (tmp_path / "small_net.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)

    def count(*arguments):
        result = run("small_net:make", "--input", "3x8x8", *arguments, "--json")
        assert result.exit_code == 0, result.output
        return [each["params"] for each in json.loads(result.stdout)["networks"].values()]

    return count


@pytest.mark.parametrize(
    ("method", "option", "default"),
    [("groupnl", "sparse", False), ("ghost", "norm", True), ("dws", "norm", True)],
)
def test_bools_are_read_by_their_type(params, method, option, default):
    plain = params("--method", method)
    for word, value in [("false", False), ("off", False), ("NO", False), ("0", False), ("true", True), ("on", True)]:
        found = params("--method", method, "--set", f"{option}={word}")
        assert (found == plain) == (value == default)


def test_an_option_of_one_method_wins_over_that_of_all(params):
    both = ["--method", "ghost", "--method", "dws"]
    first = params(*both, "--set", "norm=no", "--set", "dws.norm=yes")
    assert first == params(*both, "--set", "dws.norm=yes", "--set", "norm=no")
    assert first == params(*both, "--set", "ghost.norm=no") != params(*both)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resnet18_cifr"], "unknown model 'resnet18_cifr'; did you mean resnet18_cifar"),
        (["resnet8_cifar", "--method", "groupnl:spars=1"], "--method groupnl:spars=1: method 'groupnl' has no option"),
        (
            ["resnet8_cifar", "--method", "groupnl:sparse=1", "--set", "groupnl.sparse=0"],
            "--set groupnl.sparse=0: --method groupnl:sparse=1 also sets sparse",
        ),
        (
            ["resnet8_cifar", "--method", "groupnl", "--set", "method=mono"],
            "--set method=mono: the method is no option",
        ),
        (["resnet8_cifar", "--method", ""], "method '': the name of the method is missing"),
        (["resnet8_cifar", "--method", "grupnl"], "unknown method 'grupnl'; did you mean groupnl"),
        (["resnet8_cifar", "--method", "groupnl", "--set", "ratio=2"], "method 'groupnl' has no option 'ratio'"),
        (["resnet8_cifar", "--method", "ghost", "--set", "groupnl.sparse=True"], "'groupnl' is not among the methods"),
        (
            ["resnet8_cifar", "--set", "sparse=True"],
            "--set sparse=True sets an option of a method, and there is no --method",
        ),
        (["resnet8_cifar", "--method", "ghost", "--set", "ratio"], "must look like option=value"),
        (
            ["resnet8_cifar", "--method", "groupnl", "--set", "sparse=maybe"],
            "groupnl.sparse (='maybe') must be true or",
        ),
        (["resnet8_cifar", "--method", "ghost", "--set", "ratio=1.5"], "ghost.ratio (='1.5') must be an integer"),
        (["resnet8_cifar", "--method", "ghost", "--set", "ratio=2", "--set", "ratio=4"], "ratio is also set to 2"),
        (["resnet8_cifar", "--layers", "--json"], "--layers has no effect with --json"),
        (["resnet8_cifar", "--input", "3x32x32x1"], "--input 3x32x32x1: it must be SIDE, HEIGHTxWIDTH or"),
        (["resnet8_cifar", "--input", "1x32x32"], "cannot take `input_size`"),
        (["resnet8_cifar", "--convention", "flops"], "unknown convention 'flops'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_named(arguments, words):
    result = run(*arguments)
    assert isinstance(result.exception, SeedCNNError)
    assert words in str(result.exception)


@pytest.mark.parametrize(("text", "size"), [("16", (3, 16, 16)), ("16x24", (3, 16, 24)), ("1x8x9", (1, 8, 9))])
def test_the_size_of_an_input_is_written_in_three_ways(text, size):
    assert input_size(text) == size
