"""``seedcnn plan``, run as a user runs it."""

from __future__ import annotations

import json
import re

import pytest
import torch

from seedcnn.cli.plan import plan as command
from seedcnn.convert import GroupNLConfig
from seedcnn.errors import ConfigError
from seedcnn.plan import read_plan
from seedcnn.train import TrainConfig, build_model
from seedcnn.train.checkpoint import Checkpoint, save_checkpoint
from tests.cli.calls import as_process, in_process

NETS = """
from torch import nn


def make():
    convs = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2))
"""


def save(path, convert=None):
    """A checkpoint of a small network, untrained."""
    config = TrainConfig("resnet8_cifar", {"widths": (16, 32, 32), "patch": 4}, convert=convert)
    torch.manual_seed(0)
    save_checkpoint(path, Checkpoint(config, 0, build_model(config).state_dict()))


def test_a_network_of_the_users_own_with_times(tmp_path):
    (tmp_path / "nets.py").write_text(NETS)
    options = ["--input", "3x8x8", "--budget-macs", 4e5, "--forms", "copy-r2", "--rounds", 3, "--out", "plan.json"]
    done = as_process("plan", "nets:make", *options, cwd=tmp_path)
    assert re.search(r"whole networks, counted and timed in onnxruntime,\s+median of 3", done.stdout)
    assert "stand-in, not measured" in done.stdout
    assert "meets the budget (at most 400,000 MACs)" in done.stdout
    assert "no narrowed network to compare with: nets:make cannot be narrowed" in done.stderr
    found = read_plan(tmp_path / "plan.json")
    assert set(found.forms) == {"keep", "copy-r2"}
    assert found.predicted.latency_ms is not None


def test_a_checkpoint_and_the_narrowed_network_beside_it(tmp_path, cifar10, capsys):
    path = tmp_path / "vanilla.ckpt"
    save(path)
    options = {"pictures": 16, "steps": 1, "forms": "copy-r2", "latency": False, "threads": torch.get_num_threads()}
    command("resnet8_cifar", checkpoint=path, budget_bytes=110_000, as_json=True, **options)
    data = json.loads(capsys.readouterr().out)
    assert data["plan"]["how"].startswith("rise of the cross-entropy on 16 calibration images")
    assert data["plan"]["predicted"]["bytes"] <= 110_000
    names = [one["name"] for one in data["compared"]["networks"]]
    assert names[:2] == ["vanilla", "plan"]
    assert names[2].startswith("narrowed to ")
    vanilla, planned, _ = (one["costs"] for one in data["compared"]["networks"])
    assert planned["bytes"] == data["plan"]["predicted"]["bytes"] < vanilla["bytes"]
    with pytest.raises(ConfigError, match="is a resnet8_cifar, not a resnet20_cifar"):
        command("resnet20_cifar", checkpoint=path, budget_macs=1e6, **options)
    with pytest.raises(ConfigError, match="has images of 3x32x32; the network is planned for 3x64x64"):
        command("resnet8_cifar", checkpoint=path, budget_macs=1e6, input_="3x64x64", **options)
    save(path, GroupNLConfig.paper())
    with pytest.raises(ConfigError, match="is converted already"):
        command("resnet8_cifar", checkpoint=path, budget_macs=1e6, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "give one of --budget-latency, --budget-bytes and --budget-macs; found: none"),
        ({"budget_macs": 1e6, "budget_bytes": 1e6}, "found: --budget-bytes, --budget-macs"),
        ({"budget_macs": -1}, "--budget-macs -1: it must be a positive number"),
        (
            {"budget_macs": 1e6, "latency": True, "runtime": "openvno"},
            "unknown runtime 'openvno'; did you mean openvino",
        ),
        ({"budget_macs": 1e6, "forms": "gost-r2"}, "unknown form 'gost-r2'; did you mean ghost-r2"),
        ({"budget_macs": 1e6, "forms": ","}, "no form to choose from"),
        ({"budget_macs": 1e6, "forms": "groupnl:phi_range=(0,1),gost-r2"}, "unknown form 'gost-r2'"),
        ({"budget_macs": 1e6, "forms": "ghost:relu=maybe"}, "ghost.relu (='maybe') must be true or false"),
        ({"budget_macs": 1e6, "runtime": "openvino"}, "--runtime openvino has no effect with --no-latency"),
        ({"budget_macs": 1e6, "rounds": 3}, "--rounds 3 has no effect with --no-latency"),
        ({"budget_latency": 5}, "--no-latency contradicts --budget-latency"),
        ({"budget_macs": 1e6, "data": "cifar10"}, "--data cifar10 has no effect without --checkpoint"),
        ({"budget_macs": 1e6, "pictures": 16}, "--pictures 16 has no effect without --checkpoint"),
        ({"budget_macs": 1e6, "steps": 0}, "--steps 0 has no effect without --checkpoint"),
        ({"budget_macs": 1e6, "checkpoint": "a", "data": "cifar"}, "unknown data 'cifar'; did you mean cifar10"),
        ({"budget_macs": 1e6, "checkpoint": "a", "data": "gtsrb"}, "data 'gtsrb' needs the directory it lies in"),
    ],
    ids=str,
)
def test_mistakes_are_named(options, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        command("resnet8_cifar", **{"latency": False, "threads": torch.get_num_threads()} | options)


def test_a_mistake_is_one_sentence():
    done = in_process("plan", "resnet8_cifer", "--budget-macs", 1e6, expect=1)
    assert done.stderr.startswith("seedcnn: unknown model 'resnet8_cifer'; did you mean resnet8_cifar")
    assert done.stderr.count("\n") == 1
