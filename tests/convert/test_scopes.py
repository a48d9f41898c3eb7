"""Scopes, per-name overrides, and every kind of convolution that is left, by name."""

from __future__ import annotations

import io
import json

import pytest
import timm
import torch
from rich.console import Console
from timm.layers.conv2d_same import Conv2dSame
from torch import nn
from torch.nn.utils import prune

from seedcnn.convert import ConditionalReductionConfig, GhostConfig, GroupNLConfig, convert_
from seedcnn.errors import ConfigError, ConversionError
from seedcnn.layers import GroupNLConv2d
from seedcnn.models import create_model


def reasons(report):
    return {item.name: item.reason for item in report.skipped}


def names(report):
    return [item.name for item in report.replaced]


class Block(nn.Module):
    """An inverted bottleneck with timm's names."""

    def __init__(self, narrow, wide, stride=1):
        super().__init__()
        self.conv_pw = nn.Conv2d(narrow, wide, 1, bias=False)
        self.conv_dw = nn.Conv2d(wide, wide, 5, stride, 2, groups=wide, bias=False)
        self.conv_pwl = nn.Conv2d(wide, narrow, 1, bias=False)
        self.gate = nn.Conv2d(wide, wide, 1)

    def forward(self, x):
        y = self.conv_dw(self.conv_pw(x))
        return self.conv_pwl(y * self.gate(y).sigmoid())


def mobile(narrow=80, wide=160):
    return nn.Sequential(nn.Conv2d(3, narrow, 3), Block(narrow, wide), Block(narrow, wide, stride=2))


def test_pointwise_scope_takes_both_patterns_and_leaves_the_rest():
    model = mobile()
    before = sum(p.numel() for p in model.parameters())
    report = convert_(model, GroupNLConfig.paper(scope="pointwise"))
    block = model[1]
    assert isinstance(block.conv_pw, GroupNLConv2d)
    assert (block.conv_pw.seed_channels, block.conv_pw.conv_groups) == (80, 1)
    assert type(block.conv_pwl) is nn.Conv2d
    assert block.conv_pwl.groups == 2
    left = reasons(report)
    assert left["0"] == "stem"
    assert "depthwise convolution (groups=160)" in left["1.conv_dw"]
    assert "bias" in left["1.gate"]
    assert before - report.params_after == 4 * 80 * 160 / 2
    out = model(torch.rand(1, 3, 16, 16))
    out.sum().backward()
    assert out.shape == (1, 80, 7, 7)


def test_the_cost_law_decides_what_grows():
    assert "1.conv_pw" in names(convert_(mobile(), GroupNLConfig.paper(scope="pointwise"), min_saved_macs=80))
    report = convert_(mobile(), GroupNLConfig.paper(scope="pointwise"), min_saved_macs=81)
    assert reasons(report)["1.conv_pw"] == "a generated element would save 80 MACs, below `min_saved_macs` (=81)"
    assert names(report) == ["1.conv_pwl", "2.conv_pwl"]
    report = convert_(mobile(24, 96), GroupNLConfig.paper(scope="pointwise"))
    assert "24 MACs, below `min_saved_macs` (=64)" in reasons(report)["1.conv_pw"]


def test_narrowing_groups():
    model = mobile()
    report = convert_(model, GroupNLConfig.paper(scope="pointwise"), narrowing_groups=1)
    assert names(report) == ["1.conv_pw", "2.conv_pw"]
    assert reasons(report)["1.conv_pwl"] == "narrows 160 -> 80, and `narrowing_groups` is 1"
    report = convert_(mobile(), GroupNLConfig.paper(scope="pointwise"), narrowing_groups=3)
    assert "not divisible by `narrowing_groups` (=3)" in reasons(report)["1.conv_pwl"]
    model = mobile()
    convert_(model, GroupNLConfig.paper(scope="pointwise"), narrowing_groups=4)
    assert model[1].conv_pwl.groups == 4


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"min_saved_macs": -1}, r"min_saved_macs.*-1.*zero or more"),
        ({"min_saved_macs": float("nan")}, r"min_saved_macs.*nan"),
        ({"narrowing_groups": 0}, r"narrowing_groups.*0.*positive integer"),
        ({"narrowing_groups": 2.0}, r"narrowing_groups.*2.0.*positive integer"),
    ],
)
def test_wrong_options(option, message):
    with pytest.raises(ValueError, match=message):
        convert_(mobile(), GroupNLConfig.paper(scope="pointwise"), **option)


@pytest.mark.parametrize("option", [{"min_saved_macs": 64}, {"narrowing_groups": 2}], ids=str)
@pytest.mark.parametrize(
    ("config", "filter_fn"),
    [
        (GroupNLConfig.paper(), None),
        (GroupNLConfig.paper(scope="pointwise"), lambda module, name: True),
        (ConditionalReductionConfig(), None),
    ],
    ids=["scope", "filter", "cr"],
)
def test_options_without_effect(option, config, filter_fn):
    with pytest.raises(ValueError, match=rf"`{next(iter(option))}` \(=\d+\) has no effect: only scope 'pointwise'"):
        convert_(mobile(), config, filter_fn=filter_fn, **option)


def test_reference_scope_takes_every_conv_dw_at_equal_cost_and_warns_once():
    model = mobile()
    with pytest.warns(UserWarning, match=r"replaced 2 depthwise convolutions \(8,000 parameters\).*\(8,000") as caught:
        report = convert_(model, GroupNLConfig.paper(scope="reference"))
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert names(report) == ["1.conv_dw", "2.conv_dw"]
    assert report.params_before == report.params_after
    new = model[2].conv_dw
    assert (new.kernel_size, new.stride, new.conv_groups, new.seed_channels) == ((5, 5), (2, 2), 80, 80)
    assert reasons(report)["1.conv_pw"] == "not the 3x3 convolution of a bottleneck"


def test_reference_scope_takes_stride_1_conv2_of_bottlenecks():
    with torch.device("meta"):
        report = convert_(timm.create_model("resnet50"), GroupNLConfig.paper(scope="reference"))
        assert len(report.replaced) == 13
        assert reasons(report)["layer2.0.conv2"] == "stride (2, 2)"
        assert "bottleneck" in reasons(report)["layer1.0.downsample.0"]
        with pytest.raises(ConversionError, match="no convolution matched"):  # no bottleneck in it
            convert_(timm.create_model("resnet18"), GroupNLConfig.paper(scope="reference"))


def test_conditional_reduction_has_its_own_form_for_either_pattern():
    model = mobile(32, 64)
    convert_(model, ConditionalReductionConfig())
    assert [model[1].conv_pw.mode, model[1].conv_pwl.mode] == ["c1dw", "gc"]


def test_a_method_without_a_sparse_form_leaves_depthwise_alone():
    with pytest.raises(ConversionError, match=r"1\.conv_dw: depthwise convolution, which a GhostConfig cannot replace"):
        convert_(mobile(), GhostConfig(scope="reference"))


def test_overrides_decide_first():
    model = create_model("resnet8_cifar")
    overrides = {
        "stages.2.0.conv1": GroupNLConfig.paper(reduction_ratio=4),
        "stages.2.*": None,
        "conv1": GroupNLConfig.paper(nlf="abs"),
    }
    report = convert_(model, GroupNLConfig.paper(), overrides=overrides)
    assert model.stages[2][0].conv1.seed_channels == 16
    assert model.stages[1][0].conv1.seed_channels == 16
    assert model.conv1.nlf == "abs"
    left = "left by overrides['stages.2.*']"
    assert reasons(report) == {"stages.2.0.conv2": left, "stages.2.0.downsample.0": left}
    model = create_model("resnet8_cifar")
    convert_(
        model, GroupNLConfig.paper(), filter_fn=lambda *_: False, overrides={"stages.1.0.conv2": GroupNLConfig.paper()}
    )
    assert isinstance(model.stages[1][0].conv2, GroupNLConv2d)


def test_an_override_without_effect_is_an_error():
    model = create_model("resnet8_cifar")
    with pytest.raises(ConversionError, match=r"overrides\['stage.*'\] applies to no convolution"):
        convert_(model, GroupNLConfig.paper(), overrides={"stage.*": None})
    with pytest.raises(ConversionError, match=r"overrides\['\*.conv1'\].*earlier pattern"):
        convert_(model, GroupNLConfig.paper(), overrides={"*conv1": None, "*.conv1": GroupNLConfig.paper()})
    with pytest.raises(ConversionError, match=r"overrides\['1.conv_dw'\] matches only 1.conv_dw: depthwise"):
        convert_(mobile(), GroupNLConfig.paper(), overrides={"1.conv_dw": GroupNLConfig.paper()})
    with pytest.raises(ConversionError, match="`config` is a dict"):
        convert_(model, GroupNLConfig.paper(), overrides={"conv1": {}})
    assert type(model.conv1) is nn.Conv2d


def quantised():
    return torch.ao.nn.quantized.Conv2d(8, 8, 3)


def pruned():
    return prune.random_unstructured(nn.Conv2d(8, 8, 3), "weight", 0.5)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Conv2dSame(8, 8, 3), "Conv2dSame pads by the size of its input"),
        (lambda: timm.layers.StdConv2d(8, 8, 3), "StdConv2d standardises its weight"),
        (lambda: timm.layers.ScaledStdConv2d(8, 8, 3), "ScaledStdConv2d standardises its weight"),
        (lambda: timm.layers.CondConv2d(8, 8, 3), "CondConv2d mixes several weights"),
        (lambda: nn.ConvTranspose2d(8, 8, 3), "ConvTranspose2d is not a plain nn.Conv2d"),
        (lambda: nn.LazyConv2d(8, 3), "LazyConv2d has no shape yet"),
        (quantised, "Conv2d is quantised; convert the float model first"),
        (pruned, "has hooks"),
        (lambda: torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3)), "is not a plain nn.Conv2d"),
        (lambda: GroupNLConv2d(8, 8, 3), "already converted (GroupNLConv2d)"),
        (lambda: nn.Conv2d(8, 8, 3, groups=8), "depthwise convolution (groups=8)"),
        (lambda: nn.Conv2d(8, 16, 3, groups=8), "grouped convolution (groups=8)"),
    ],
)
@pytest.mark.filterwarnings(
    "ignore:Lazy modules are a new feature", "ignore:.*torch.ao", "ignore:torch.quantize_per_tensor"
)
def test_what_is_left_is_named(make, reason):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), make(), nn.Conv2d(8, 8, 3))
    report = convert_(model, GroupNLConfig.paper())
    assert reason in reasons(report)["1"]
    assert names(report) == ["2"]


def test_a_shared_weight_is_left():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3))
    model[2].weight = model[1].weight
    report = convert_(model, GroupNLConfig.paper(), filter_fn=lambda *_: True)
    assert reasons(report)["2"] == "its weight is shared with 1.weight"


def test_pooling_beside_a_shortcut_is_no_obstacle():
    block = nn.Module()
    block.conv1, block.pool = nn.Conv2d(8, 16, 3), nn.MaxPool2d(3)
    block.downsample = nn.Sequential(nn.Conv2d(8, 64, 1))
    model = nn.Sequential(nn.Conv2d(3, 8, 3), block)
    convert_(model, GroupNLConfig.paper())
    assert block.downsample[0].seed_channels == 8


def test_the_shortcut_of_a_block_that_is_wider_inside_takes_its_own_width():
    block = nn.Module()
    block.conv2, block.shortcut = nn.Conv2d(8, 96, 3), nn.Conv2d(8, 16, 1)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), block)
    convert_(model, GroupNLConfig.paper())
    assert block.shortcut.seed_channels == 8
    assert block.conv2.seed_channels == 48


def test_unknown_scope_even_where_nothing_asks_for_it():
    with pytest.raises(ConfigError, match=r"unknown scope 'xyz'; known scopes: paper, stride1, reference, pointwise"):
        convert_(mobile(), GroupNLConfig.paper(scope="xyz"), filter_fn=lambda *_: True)


def test_state_dict_round_trip_and_dilation():
    def build(seed):
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3, padding=2, dilation=2, padding_mode="circular"))
        convert_(model, GroupNLConfig.paper(normalize="batch"), seed=seed)
        return model.eval()

    a, b, x = build(1), build(2), torch.rand(2, 3, 9, 9)
    assert not torch.equal(a(x), b(x))
    b.load_state_dict(a.state_dict())
    torch.testing.assert_close(a(x), b(x), rtol=0, atol=0)
    assert a[1].dilation == (2, 2)


def test_the_report_as_a_table_and_as_json():
    report = convert_(mobile(), GroupNLConfig.paper(scope="pointwise"))
    stream = io.StringIO()
    Console(file=stream, width=200).print(report)
    text = stream.getvalue()
    assert "GroupNL: replaced 4 convolutions, left 5 alone" in text
    assert "1.conv_pwl" in text
    assert "groups=2" in text
    assert "learnable parameters" in text
    stored = json.loads(report.to_json())
    assert [item["name"] for item in stored["replaced"]] == names(report)
    assert {item["name"]: item["reason"] for item in stored["skipped"]} == reasons(report)


def test_a_report_of_a_frozen_model_prints():
    model = mobile().requires_grad_(False)
    assert "learnable parameters 0 ->" in str(convert_(model, GroupNLConfig.paper(scope="pointwise")))
