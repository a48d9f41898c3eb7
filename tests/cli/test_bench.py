"""``seedcnn bench``, run as a user runs it."""

from __future__ import annotations

import json
import re

import pytest

from seedcnn.cli.bench import bench as command
from seedcnn.errors import ConfigError
from tests.cli.calls import as_process, in_process


def bench(*arguments, cwd=None):
    """In a process of its own: the command pins its process to a core."""
    return as_process("bench", *arguments, cwd=cwd)


def test_controls_are_in_every_run(tmp_path):
    record = tmp_path / "record.json"
    arguments = ["--runtimes", "ort,torch", "--rounds", 3, "--what", "latency,training", "--steps", 1]
    arguments += ["--methods", "groupnl:phi_range=(0,1),mono", "--training-batch", 2, "--json", "--record", record]
    done = bench("resnet8_cifar", *arguments)
    data = json.loads(done.stdout)
    assert data == json.loads(record.read_text())
    forms = list(data["costs"])
    assert forms[:-1] == ["vanilla", "groupnl:phi_range=(0,1)", "mono", "ghost", "dws"]
    assert forms[-1].startswith("narrowed: ")
    assert {(one["form"], one["runtime"]) for one in data["latency"]} == {
        (form, runtime) for form in forms for runtime in ("onnxruntime", "torch")
    }
    assert [one["form"] for one in data["training"]] == forms
    assert data["threads"] == 1


def test_a_network_of_the_users_own(tmp_path):
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n\n\ndef make():\n"
        "    convs = [nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU()]\n"
        "    return nn.Sequential(*convs, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2))\n"
    )
    done = bench("nets:make", "--input", "3x12x12", "--methods", "groupnl:nlf=abs", "--rounds", 3, cwd=tmp_path)
    assert "groupnl:nlf=abs" in done.stdout
    assert "latency, onnxruntime, median of 3" in done.stdout
    assert "narrowed" not in done.stdout


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        (
            "resnet8_cifar",
            {"runtimes": "tflite"},
            "--runtimes tflite: it must be one of torch, compile, ort, ort-op, openvino",
        ),
        ("resnet8_cifar", {"parts": "accuracy"}, "--what accuracy: it must be one of latency, training"),
        ("resnet8_cifar", {"methods": "grupnl"}, "unknown method 'grupnl'; did you mean groupnl"),
        ("resnet8_cifar", {"methods": "groupnl:r"}, "'r' must look like option=value"),
        ("resnet8_cifar", {"methods": "ghost:relu=maybe"}, "ghost.relu (='maybe') must be true or false"),
        ("resnet8_cifar", {"methods": ","}, "--methods is empty"),
        ("resnet8_cifar", {"runtimes": ""}, "--runtimes is empty"),
        ("resnet8_cifar", {"modes": "compile"}, "--modes compile has no effect without training in --what"),
        ("resnet8_cifar", {"steps": 3}, "--steps 3 has no effect without training in --what"),
        ("resnet8_cifar", {"training_batch": 3}, "--training-batch 3 has no effect without training in --what"),
        ("resnet8_cifar", {"parts": "training", "runtimes": "ort"}, "--runtimes ort has no effect without latency in"),
        ("resnet8_cifar", {"parts": "training", "rounds": 3}, "--rounds 3 has no effect without latency in --what"),
        ("resnet8_cifar", {"parts": "training", "batch": 3}, "--batch 3 has no effect without latency in --what"),
        ("nowhere:make", {"input_": "3x8x8"}, "nowhere cannot be run: ModuleNotFoundError"),
        ("nowhere:make", {}, "--input is needed"),
    ],
    ids=str,
)
def test_mistakes_are_named(model, options, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        command(model, **options)


@pytest.mark.slow
def test_a_method_that_saves_nothing_has_no_narrowed_network():
    done = bench("resnet8_cifar", "--methods", "mono:scope=stride1:pointwise=true", "--rounds", 1, "--json")
    forms = list(json.loads(done.stdout)["costs"])
    assert forms == ["vanilla", "mono:scope=stride1:pointwise=true", "ghost", "dws"]
    assert "mono:scope=stride1:pointwise=true saves no MACs, so there is no narrowed network" in done.stderr


def test_a_mistake_is_one_sentence():
    done = in_process("bench", "resnet8_cifar", "--runtimes", "tflite", expect=1)
    assert done.stderr.startswith("seedcnn: --runtimes tflite: it must be one of torch")
    assert done.stderr.count("\n") == 1
