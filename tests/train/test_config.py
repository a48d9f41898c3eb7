"""Configs: to plain data and back, ``--set``, rules, networks, and recipes by name."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from timm.layers import DropPath
from torch import nn

from seedcnn.convert import METHODS, ConversionConfig, DepthwiseSeparableConfig, GhostConfig, GroupNLConfig
from seedcnn.errors import ConfigError
from seedcnn.layers import GhostConv2d, GroupNLConv2d
from seedcnn.recipe_index import list_recipes
from seedcnn.sampling import SETTINGS, SamplingConfig
from seedcnn.train import DistillConfig, TrainConfig, build_model, find_recipe, override
from tests.train.runs import SMALL, changed
from tests.typed_values import JSON, instances, spelled

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
    with pytest.raises(ConfigError, match="TrainConfig has no field 'colour'; did you mean"):
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
        ("epochs=many", r"--set epochs=many: epochs \(='many'\) must be an integer"),
        ("epochs=True", r"epochs \(='True'\) must be an integer"),
        ("epochs=1.5", r"epochs \(='1.5'\) must be an integer"),
        ("epochs=None", r"epochs \(='None'\) must be an integer"),
        ("lr=fast", r"lr \(='fast'\) must be a finite number"),
        ("lr=inf", r"lr \(='inf'\) must be a finite number"),
        ("compile=maybe", r"--set compile=maybe: compile \(='maybe'\) must be true or false"),
        ("convert.sparse=maybe", r"convert\.sparse \(='maybe'\) must be true or false"),
        ("decay_epochs=30", r"decay_epochs \(='30'\) must be a list"),
        ("convert.phi_range=(0,)", r"convert\.phi_range \(='\(0,\)'\) must be a list of 2 values"),
        ("model_options.patch=wide", r"model_options\.patch \(='wide'\) must be an integer"),
        ("model_options.zero_init_residual=perhaps", r"model_options\.zero_init_residual .* must be true or false"),
        ("model_options.widhts=[4,4,8]", "resnet8_cifar has no option 'widhts'; did you mean widths"),
        ("epochs=3 epochs=4", "--set epochs=4: epochs is also set by epochs=3"),
        ("convert.ratio=2", "no field 'ratio'; did you mean"),
        ("lr.x=2", "has no fields"),
        ("convert=", r"--set convert=: convert \(=''\) must be a method \(cr, dws, .*groupnl-paper\), with options as"),
        ("convert=:sparse=true", "method ':sparse=true': the name of the method is missing; write NAME:option=value"),
        ("convert={", r"--set convert={: '{' opens a bracket '{' that it does not close"),
        ("model_options.widths=[4,4,8", r"widths=\[4,4,8: '\[4,4,8' opens a bracket '\[' that it does not close"),
        ("model_options={'patch':1,'patch':2}", "a mapping has the key 'patch' twice; each may be there once"),
        ("nosuch.x=1", "--set nosuch.x=1: TrainConfig has no field 'nosuch'; did you mean"),
        ("zzz=1", "--set zzz=1: TrainConfig has no field 'zzz'; fields: model, model_options"),
        ("convert=None convert.nlf_groups=4", "convert is also set as a whole"),
        ("convert.nlf_groups=4 convert=None", "a field of convert is also set"),
        ("sampling=R2", r"sampling \(='R2'\) must be a SamplingConfig \(or a mapping of its fields\) or none"),
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
        ({"lr": -1}, r"lr \(=-1.0\)"),
        ({"warmup_epochs": 9}, r"warmup_epochs \(=9.0\)"),
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
        ({"decay_rate": 0.5}, r"decay_rate \(=0.5\) has no effect with schedule 'cosine'; step, multistep, plateau"),
        ({"schedule": "constant", "min_lr": 0.1}, r"min_lr \(=0.1\) has no effect with schedule 'constant'"),
        ({"data_seed": 3}, r"data_seed \(=3\) has no effect with fraction 1.0"),
        ({"hold_out": "apple"}, r"hold_out \(='apple'\) goes with the data icons50 and icons50-rebuilt only"),
        ({"rand_augment": "rand-m9"}, "goes with the data imagenet only"),
        ({"rand_augment": "rand-m9", "data": "imagenet", "augment": "none"}, "contradicts augment=.none."),
        ({"mixup": 0.2, "batch_size": 15}, r"batch_size \(=15\) must be even: mixup"),
        ({"strategy": "dp", "sync_bn": True}, "sync_bn contradicts strategy 'dp'"),
        ({"strategy": "dp", "distill": DistillConfig("t.ckpt")}, "distill contradicts strategy 'dp'"),
        ({"sampling": dataclasses.replace(SETTINGS["R2"], gammas=(0.1, 0.5))}, "sampling does not fit epochs"),
        (
            {"convert": 3},
            r"convert \(=3\) must be a method \(cr, dws, .*\), with options as NAME:option=value or none",
        ),
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
        with pytest.raises(ConfigError, match=rf"{name} cannot be built with model_options kernels=3: .*kernels"):
            build_model(TrainConfig(name, {"kernels": 3}))


def test_a_field_of_nothing_cannot_be_set():
    with pytest.raises(
        ConfigError, match=r"--set distill\.kind=a: distill is none, so it has no fields; set it as a wh"
    ):
        override(TrainConfig("resnet8_cifar"), ["distill.kind=a"])


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


WORDS = {True: ("true", "YES", "On", "1"), False: ("false", "No", "OFF", "0")}


@pytest.mark.parametrize("value", [True, False])
def test_bools_from_text(value):
    fields = ["decay_norms", "compile", "drop_last", "convert.sparse", "model_options.zero_init_residual"]
    for word in WORDS[value]:
        found = override(SMALL, [f"{field}={word}" for field in fields])
        assert (found.decay_norms, found.compile, found.drop_last, found.convert.sparse) == (value,) * 4
        assert found.model_options["zero_init_residual"] is value


@pytest.mark.parametrize(
    "assignments",
    [
        ["model_options.widths=[4,4,8]"],
        ["model_options={'widths': [4, 8, 8], 'patch': 8}"],
        ["decay_epochs=[1]", "schedule=multistep"],
        ["convert.phi_range=[0,1]", "lr=1"],
        ["sampling={'alphas': [0.5, 0.5, 0.5]}"],
        ["distill={'kind': 'stagewise', 'stages': ['stages.0']}"],
        ['convert={"method": "dws", "pointwise": {"method": "ghost", "norm": false}}'],
        ["overrides={'stages.0.*': null, 'stages.1.*': {'method': 'ghost'}}"],
        ["init_from=none", "hold_out="],
    ],
    ids=lambda assignments: assignments[0],
)
def test_a_config_from_text_equals_its_own_checkpoint(assignments):
    config = override(SMALL, assignments)
    assert spelled(TrainConfig.from_dict(json.loads(json.dumps(config.to_dict())))) == spelled(config)


def test_values_from_text_have_the_types_of_their_fields():
    found = override(
        SMALL, ["model_options.widths=[4,4,8]", "lr=1", "convert.phi_range=[0,1]", "init_from=none", "epochs=1e1"]
    )
    assert spelled((found.model_options["widths"], found.lr, found.epochs)) == spelled(((4, 4, 8), 1.0, 10))
    assert spelled(found.convert.phi_range) == spelled((0.0, 1.0))
    assert found.init_from == "none"  # text stays text
    nested = override(SMALL, ["sampling={'alphas': [0.5, 1, 0.5]}", "overrides={'stages.0.*': null}"])
    assert (nested.sampling, nested.overrides) == (SamplingConfig((0.5, 1.0, 0.5)), {"stages.0.*": None})


def test_numpy_numbers_and_paths_are_numbers_and_text():
    config = changed(
        epochs=np.int64(2),
        lr=np.float32(0.5),
        compile=np.False_,
        init_from=Path("runs/a.ckpt"),
        decay_epochs=[np.float64(1.0)],
        schedule="multistep",
        model_options={"widths": [np.int32(4), 4, 8], "patch": np.int64(8)},
    )
    plain = changed(
        epochs=2,
        lr=0.5,
        compile=False,
        init_from="runs/a.ckpt",
        decay_epochs=(1.0,),
        schedule="multistep",
        model_options={"widths": (4, 4, 8), "patch": 8},
    )
    assert spelled(config) == spelled(plain)
    assert spelled(TrainConfig.from_dict(json.loads(json.dumps(config.to_dict())))) == spelled(plain)


@dataclasses.dataclass(frozen=True)
class OwnConfig(ConversionConfig):
    """Of no method."""


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": "resnet18", "model_options": {"act_layer": nn.ReLU}}, "model_options.act_layer (=<class"),
        ({"model": "resnet18", "model_options": {"mean": torch.zeros(3)}}, "model_options.mean (=tensor("),
        ({"model": "resnet18", "model_options": {"a": {"b": [float("nan")]}}}, "model_options.a.b[0] (=nan)"),
        ({"lr": float("inf")}, "lr (=inf) must be a finite number"),
        ({"ema": float("nan")}, "ema (=nan) must be a finite number"),
        ({"convert": OwnConfig()}, "convert is a OwnConfig, which is no method"),
        ({"overrides": {"a": OwnConfig()}}, "overrides.a is a OwnConfig, which is no method"),
        ({"optimizer": None}, "optimizer (=None) must be text"),
        ({"epochs": 2.5}, "epochs (=2.5) must be an integer"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_what_a_checkpoint_cannot_hold_is_refused_at_once(fields, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        changed(**fields)


def test_options_of_networks_of_timm():
    """Numbers and structures are timm's own business; text becomes what the signature says, and a bool is a bool."""
    options = {"zero_init_last": "off", "num_classes": "7", "act_layer": "silu", "block_args": {"attn_layer": "se"}}
    found = TrainConfig("resnet18", options).model_options
    assert found == {"zero_init_last": False, "num_classes": 7, "act_layer": "silu", "block_args": {"attn_layer": "se"}}
    assert TrainConfig("gnl_resnet50", {"normalize": "none", "zero_init_last": "no"}).model_options == {
        "normalize": None,
        "zero_init_last": False,
    }
    with pytest.raises(ConfigError, match=r"model_options\.zero_init_last \(='never'\) must be true or false"):
        TrainConfig("resnet18", {"zero_init_last": "never"})
    with pytest.raises(ConfigError, match=r"model_options\.pretrained \(=2\) must be true or false"):
        TrainConfig("efficientvit_b0", {"pretrained": 2})


def test_plain_data_of_another_format():
    data = SMALL.to_dict()
    assert data["format"] == "seedcnn-config/1"
    with pytest.raises(ConfigError, match="a training config has the format 'seedcnn-config/2'; this version of"):
        TrainConfig.from_dict({**data, "format": "seedcnn-config/2"})
    del data["format"]
    with pytest.raises(ConfigError, match="a training config names no format"):
        TrainConfig.from_dict(data)
    with pytest.raises(ConfigError, match="TrainConfig needs the field 'model', which is missing"):
        TrainConfig.from_dict({"format": "seedcnn-config/1"})


FAMILIES = {ConversionConfig: lambda: st.one_of([instances(kind, FAMILIES) for kind in METHODS.values()])}
SHARES = st.floats(0.01, 0.99)
NAMES = st.text(max_size=8)


@st.composite
def configs(draw):
    """Training configs that keep the rules, with a schedule, sampling or distillation now and then."""
    schedule = draw(
        st.sampled_from(
            [
                {"schedule": "multistep", "decay_epochs": (1.5, 3)},
                {"schedule": "step", "decay_epochs": (2,), "decay_rate": 0.9},
                {"schedule": "poly", "decay_rate": 2, "cooldown_epochs": 1, "lr_noise": (0.25,)},
                {},
            ]
        )
    )
    distill = st.builds(DistillConfig, teacher=NAMES, temperature=SHARES, alpha=SHARES) | st.builds(
        DistillConfig, kind=st.just("stagewise"), stages=st.lists(NAMES, max_size=2).map(tuple)
    )
    convert = draw(st.none() | FAMILIES[ConversionConfig]())
    others = st.dictionaries(NAMES, st.none() | FAMILIES[ConversionConfig](), max_size=2)
    return TrainConfig(
        model=draw(NAMES),
        model_options=draw(st.dictionaries(NAMES, JSON, max_size=3)),
        convert=convert,
        overrides=draw(others) if convert is not None else {},
        epochs=draw(st.integers(5, 10**6)),
        batch_size=draw(st.integers(1, 10**6)),
        lr=draw(st.floats(1e-300, 1e300)),
        optimizer=draw(NAMES),
        weight_decay=draw(SHARES | st.just(0)),
        augment=draw(st.sampled_from(["none", "crop", "shift2"])),
        seed=draw(st.integers(0, 2**63 - 1)),
        fraction=draw(SHARES),
        data_seed=draw(st.integers(0, 2**63 - 1)),
        sampling=draw(st.none() | SHARES.map(SamplingConfig.flat)),
        distill=draw(st.none() | distill),
        **schedule,
    )


@given(configs())
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_config_survives_json_with_its_types(config):
    again = TrainConfig.from_dict(json.loads(json.dumps(config.to_dict(), allow_nan=False)))
    assert spelled(again) == spelled(config)


def test_a_conversion_is_set_by_its_method_s_name():
    config = SMALL
    assert override(config, ["convert=ghost"]).convert == GhostConfig()
    assert override(config, ["convert=ghost:ratio=4:relu=no"]).convert == GhostConfig(ratio=4, relu=False)
    assert override(changed(convert=GhostConfig()), ["convert=none"]).convert is None
    with pytest.raises(ConfigError, match=r"--set convert=gost: unknown method 'gost'; did you mean ghost"):
        override(config, ["convert=gost"])
