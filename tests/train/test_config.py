"""Configs: to plain data and back, ``--set``, rules, networks, and recipes by name."""

from __future__ import annotations

import dataclasses
import json

import pytest
import timm
import torch
from timm.layers import DropPath
from torch import nn

from seedcnn.convert import DepthwiseSeparableConfig, GhostConfig, GroupNLConfig
from seedcnn.errors import ConfigError
from seedcnn.layers import GhostConv2d, GroupNLConv2d
from seedcnn.recipe_index import list_recipes
from seedcnn.sampling import SETTINGS
from seedcnn.train import DistillConfig, TrainConfig, build_model, find_recipe, override
from tests.train.runs import SMALL, changed

FULL = changed(
    epochs=120,
    sampling=SETTINGS["R2"],
    distill=DistillConfig("teacher.ckpt", kind="stagewise", stages=("stages.0", "stages.1")),
    schedule="multistep",
    decay_epochs=(30, 60),
)


NESTED = changed(
    convert=DepthwiseSeparableConfig(relu=False, pointwise=GroupNLConfig.paper(nlf_groups=2, phi_range=(-0.5, 0.5))),
    overrides={"stages.1.*": GhostConfig(relu=False), "stages.2.0.downsample.0": None},
)


@pytest.mark.parametrize(
    "config", [SMALL, FULL, NESTED, changed(convert=None)], ids=["small", "full", "nested", "vanilla"]
)
def test_plain_data_and_back(config):
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_plain_data_with_an_unknown_field():
    with pytest.raises(ConfigError, match="no field colour"):
        TrainConfig.from_dict({**SMALL.to_dict(), "colour": 1})


def test_overrides():
    changed = override(
        SMALL, ["epochs=7", "lr=1", "convert.reduction_ratio=4", "model_options.patch=2", "schedule=step"]
    )
    assert (changed.epochs, changed.lr, changed.schedule) == (7, 1.0, "step")
    assert changed.convert.reduction_ratio == 4
    assert changed.model_options == {"widths": (4, 4, 8), "patch": 2}
    nested = override(FULL, ["sampling.squeeze=0.5", "distill.weights=public", "decay_epochs=(40,)", "compile=True"])
    assert nested.sampling.squeeze == 0.5
    assert nested.distill.weights == "public"
    assert (nested.decay_epochs, nested.compile) == ((40,), True)
    both = override(SMALL, ["schedule=multistep", "decay_epochs=(1,)"])
    assert both == override(SMALL, ["decay_epochs=(1,)", "schedule=multistep"])
    assert override(SMALL, []) is SMALL
    assert override(FULL, ["sampling=None", "distill=None", "convert=None"]).sampling is None


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("epoch=3", "no field 'epoch'; did you mean epochs"),
        ("epochs", "must look like field=value"),
        ("epochs=many", "epochs is a int, not 'many'"),
        ("epochs=True", "epochs is a int, not True"),
        ("compile=1", "compile is a bool, not 1"),
        ("epochs=None", "epochs is a int, not None"),
        ("convert.ratio=2", "no field 'ratio'; did you mean"),
        ("lr.x=2", "has no fields"),
        ("convert=None convert.nlf_groups=4", "convert is set as a whole, too"),
        ("convert.nlf_groups=4 convert=None", "a field of convert is set, too"),
        ("sampling=R2", r"sampling \(='R2'\) must be None or a config"),
        ("sampling.squeeze=0", r"--set sampling\.squeeze=0: `squeeze`"),
        ("distill.kind=logit", r"distill\.kind \(='logit'\) must be one of"),
    ],
)
def test_wrong_overrides(assignment, words):
    with pytest.raises(ConfigError, match=words):
        override(FULL if assignment.startswith(("sampling.", "distill.")) else SMALL, assignment.split())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"epochs": 0}, r"epochs \(=0\)"),
        ({"batch_size": 0}, r"batch_size \(=0\)"),
        ({"grad_accumulation": 0}, r"grad_accumulation \(=0\)"),
        ({"lr": -1}, r"lr \(=-1\)"),
        ({"warmup_epochs": 9}, r"warmup_epochs \(=9\)"),
        ({"seed": -1}, r"seed \(=-1\)"),
        ({"data_seed": 2**63}, "data_seed"),
        ({"data": "cifar"}, r"data \(='cifar'\) is unknown; did you mean cifar10, cifar100"),
        ({"precision": "fp8"}, r"precision \(='fp8'\) is unknown; did you mean"),
        ({"strategy": "fsdp"}, r"strategy \(='fsdp'\) is unknown"),
        ({"fraction": 0.0}, r"fraction \(=0.0\)"),
        ({"label_smoothing": 1.0}, r"label_smoothing \(=1.0\)"),
        ({"ema": 1.0}, r"ema \(=1.0\)"),
        ({"drop_path": -0.1}, r"drop_path \(=-0.1\)"),
        ({"random_erasing": 2.0}, r"random_erasing \(=2.0\)"),
        ({"mixup": -1.0}, r"mixup \(=-1.0\)"),
        ({"clip_grad": -1.0}, r"clip_grad \(=-1.0\)"),
        ({"decay_rate": 0.0}, r"decay_rate \(=0.0\)"),
        ({"schedule": "multistep"}, r"decay_epochs \(=\(\)\) must name epochs before the last"),
        ({"schedule": "multistep", "decay_epochs": (2,)}, "before the last"),
        ({"schedule": "multistep", "decay_epochs": (2, 1)}, "ascending"),
        ({"schedule": "step", "decay_epochs": (1, 2)}, "one interval"),
        ({"decay_epochs": (1,)}, "goes with schedule multistep or step, not 'cosine'"),
        ({"hold_out": "apple"}, r"hold_out \(='apple'\) goes with the data icons50 and icons50-rebuilt only"),
        ({"rand_augment": "rand-m9"}, "goes with the data imagenet only"),
        ({"rand_augment": "rand-m9", "data": "imagenet", "augment": False}, "contradicts augment=False"),
        ({"mixup": 0.2, "batch_size": 15}, r"batch_size \(=15\) must be even for mixup"),
        ({"strategy": "dp", "sync_bn": True}, "sync_bn contradicts strategy 'dp'"),
        ({"strategy": "dp", "distill": DistillConfig("t.ckpt")}, "distill contradicts strategy 'dp'"),
        ({"sampling": dataclasses.replace(SETTINGS["R2"], gammas=(0.1, 0.5))}, "sampling does not fit epochs"),
        ({"convert": "groupnl"}, r"convert \(='groupnl'\) must be None or a config"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_contradictions_are_refused(fields, words):
    with pytest.raises(ConfigError, match=words):
        changed(**fields)


def test_networks_of_timm():
    model = build_model(TrainConfig("resnet18", {"num_classes": 7}, drop_path=0.2))
    assert model.fc.out_features == 7
    assert model.layer4[1].drop_path.drop_prob == pytest.approx(0.2)
    options = {"scope": "pointwise"}
    grown = [build_model(TrainConfig("mobilenetv3_gnl_small_075", options, seed=seed)).state_dict() for seed in (0, 1)]
    seeds = [name for name in grown[0] if name.endswith(".seed")]
    assert seeds
    assert all(grown[0][name] != grown[1][name] for name in seeds)
    with pytest.raises(ConfigError, match=r"drop_path \(=0.2\) goes with the networks of timm, not with 'vgg11_cifar'"):
        build_model(TrainConfig("vgg11_cifar", drop_path=0.2))
    with pytest.raises(ConfigError, match="did you mean resnet20_cifar"):
        build_model(TrainConfig("resnet2_cifar"))


@pytest.mark.parametrize("name", ["densenet121", "vgg11", "inception_v3", "hrnet_w18_small"])
def test_networks_of_timm_without_stochastic_depth_build(name):
    with torch.device("meta"):
        assert build_model(TrainConfig(name)).num_classes == 1000
        with pytest.raises(ConfigError, match=rf"drop_path \(=0.2\): '{name}' has no stochastic depth"):
            build_model(TrainConfig(name, drop_path=0.2))
        with pytest.raises(TypeError, match="kernels"):
            build_model(TrainConfig(name, {"kernels": 3}))


def test_zero_drop_path_is_not_the_default_of_the_network():
    with torch.device("meta"):
        assert not any(
            isinstance(module, DropPath) for module in build_model(TrainConfig("swin_s3_tiny_224")).modules()
        )
        assert any(isinstance(module, DropPath) for module in timm.create_model("swin_s3_tiny_224").modules())


def test_recipes_are_found_by_name_and_path(tmp_path):
    listed = list_recipes()
    assert {"demo:vanilla", "demo:narrow", "demo:groupnl", "demo:finetune"} <= set(listed)
    assert all(summary for summary in listed.values())
    assert find_recipe("demo:groupnl").convert == GroupNLConfig()
    path = tmp_path / "mine.py"
    path.write_text("from seedcnn.train import TrainConfig\ndef run():\n    return TrainConfig(model='vgg11_cifar')\n")
    assert find_recipe(f"{path}:run").model == "vgg11_cifar"
    with pytest.raises(ConfigError, match="did you mean demo:groupnl"):
        find_recipe("demos:groupnl")
    with pytest.raises(ConfigError, match="has no recipe 'walk'; it begins with run; it has 1"):
        find_recipe(f"{path}:walk")


def test_overrides_by_layer():
    first, second = build_model(changed(overrides={"stages.0.*": None})), build_model(NESTED)
    assert isinstance(first.stages[0][0].conv1, nn.Conv2d)
    assert isinstance(first.stages[1][0].conv1, GroupNLConv2d)
    assert isinstance(second.stages[1][0].conv1, GhostConv2d)
    assert isinstance(second.stages[2][0].downsample[0], nn.Conv2d)
    with pytest.raises(ConfigError, match=r"overrides \(of stages\.0\.\*\) need convert"):
        changed(convert=None, overrides={"stages.0.*": None})
