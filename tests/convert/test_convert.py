"""convert_: what is replaced, what is left and why, and what it refuses."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from seedcnn import rng
from seedcnn.convert import ConversionConfig, GroupNLConfig, config_for, convert_
from seedcnn.errors import ConfigError, ConversionError
from seedcnn.layers import GroupNLConv2d
from seedcnn.models import create_model


def names(items):
    return [item.name for item in items]


def test_paper_scope_replaces_all_but_the_stem():
    model = create_model("resnet8_cifar")
    report = convert_(model, GroupNLConfig.paper())
    assert names(report.skipped) == ["conv1"]
    assert report.skipped[0].reason == "stem"
    assert len(report.replaced) == 8
    assert isinstance(model.stages[1][0].downsample[0], GroupNLConv2d)
    assert report.params_before == 78042
    assert report.params_after == sum(p.numel() for p in model.parameters()) == 39898
    out = model(torch.rand(2, 3, 32, 32))
    out.sum().backward()
    assert out.shape == (2, 10)
    assert all(p.grad is not None for p in model.parameters())


def test_bottleneck_shortcuts_keep_the_seeds_of_the_block():
    with torch.device("meta"):
        model = create_model("resnet101_cifar")
        report = convert_(model, GroupNLConfig.paper(reduction_ratio=4))
    shortcut = model.stages[0][0].downsample[0]
    assert (shortcut.out_channels, shortcut.seed_channels) == (256, 16)
    pointwise = next(item for item in report.skipped if item.name == "stages.0.0.conv1")
    assert "pointwise" in pointwise.reason


def test_stride1_scope_is_the_public_code():
    report = convert_(create_model("resnet8_cifar"), GroupNLConfig.paper(scope="stride1"))
    assert names(report.replaced) == ["stages.0.0.conv1", "stages.0.0.conv2", "stages.1.0.conv2", "stages.2.0.conv2"]
    assert any("stride" in item.reason for item in report.skipped)


def test_filter_function_decides_instead_of_the_scope():
    model = create_model("resnet8_cifar")
    report = convert_(model, GroupNLConfig.paper(), filter_fn=lambda _, name: name in ("fc", "stages.2.0.conv1"))
    assert names(report.replaced) == ["stages.2.0.conv1"]
    assert all(item.reason == "not chosen by filter_fn" for item in report.skipped)


def test_layer_seeds_come_from_model_seed_and_name():
    a, b = create_model("resnet8_cifar"), create_model("resnet8_cifar")
    convert_(a, GroupNLConfig.paper(), seed=11)
    convert_(b, GroupNLConfig.paper(), seed=12)
    assert a.stages[0][0].conv1.seed == rng.layer_seed(11, "stages.0.0.conv1")
    assert a.stages[0][0].conv1.seed != b.stages[0][0].conv1.seed != b.stages[0][0].conv2.seed


def test_conv_arguments_survive():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.Conv2d(8, 16, (3, 5), stride=2, padding=(1, 2), dilation=(1, 1), bias=True, padding_mode="reflect"),
    ).to(torch.float64)
    model[1].eval()
    convert_(model, GroupNLConfig.paper())
    new = model[1]
    assert (new.kernel_size, new.stride, new.padding) == ((3, 5), (2, 2), (1, 2))
    assert new.padding_mode == "reflect"
    assert new.bias is not None
    assert new.weight.dtype == torch.float64
    assert not new.training
    assert model(torch.rand(1, 3, 16, 16, dtype=torch.float64)).shape == (1, 16, 7, 7)


@pytest.mark.parametrize(
    ("option", "check"),
    [
        ({"reduction_ratio": 4}, lambda new: new.seed_channels == 4),
        ({"sparse": True}, lambda new: new.conv_groups == 8),
        ({"nlf_groups": 2}, lambda new: new.nlf_groups == 2),
        ({"nlf": "abs"}, lambda new: new.nlf == "abs"),
        ({"normalize": "batch"}, lambda new: isinstance(new.norm, nn.BatchNorm2d)),
        ({"omega_range": (7, 8)}, lambda new: (new.omega >= 7).all()),
        ({"phi_range": (7, 8)}, lambda new: (new.phi >= 7).all()),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)
def test_every_option_reaches_the_layer(option, check):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3))
    convert_(model, GroupNLConfig.paper(**option))
    assert check(model[1])


def test_what_cannot_be_replaced_is_left_with_a_reason():
    class Mine(nn.Conv2d):
        pass

    shared = nn.Conv2d(8, 8, 3)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        shared,
        shared,
        nn.Conv2d(8, 8, 3, groups=2),
        nn.ConvTranspose2d(8, 8, 3),
        nn.Conv1d(8, 8, 3),
        Mine(8, 8, 3),
        torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3)),
        nn.Conv2d(8, 8, 3),
    )
    report = convert_(model, GroupNLConfig.paper())
    reasons = {item.name: item.reason for item in report.skipped}
    assert names(report.replaced) == ["8"]
    assert reasons["1"] == "shared by 1, 2"
    assert "groups=2" in reasons["3"]
    assert "ConvTranspose2d" in reasons["4"]
    assert "Conv1d" in reasons["5"]
    assert "Mine" in reasons["6"]
    assert "7" in reasons


def test_converted_layers_are_not_converted_again():
    model = create_model("resnet8_cifar")
    convert_(model, GroupNLConfig.paper())
    with pytest.raises(ConversionError, match="no convolution matched"):
        convert_(model, GroupNLConfig.paper())


def test_nothing_matched_is_an_error():
    with pytest.raises(ConversionError, match="no convolution matched"):
        convert_(nn.Sequential(nn.Linear(3, 3)), GroupNLConfig.paper())
    with pytest.raises(ConversionError, match=r"0: stem"):
        convert_(nn.Sequential(nn.Conv2d(3, 8, 3)), GroupNLConfig.paper())


def test_root_convolution_is_refused():
    with pytest.raises(ConversionError, match="itself a Conv2d"):
        convert_(nn.Conv2d(3, 8, 3), GroupNLConfig.paper())


def test_a_width_that_does_not_fit_names_the_layer_and_changes_nothing():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.Conv2d(16, 18, 3))
    with pytest.raises(ConversionError, match=r"2 .*seed_channels.*9.*nlf_groups.*4"):
        convert_(model, GroupNLConfig.paper())
    assert type(model[1]) is nn.Conv2d
    with pytest.raises(ConversionError, match=r"width \(=16\).*reduction_ratio.*3"):
        convert_(model, GroupNLConfig.paper(reduction_ratio=3))


def test_the_papers_form_is_the_layers_own():
    """Nothing is given but the widths: the layer's defaults are the paper's, the config's are not."""
    paper, ours = (nn.Sequential(nn.Conv2d(8, 16, 3, padding=1, bias=False)) for _ in range(2))
    convert_(paper, GroupNLConfig.paper(scope="spatial"), filter_fn=lambda module, name: True)
    convert_(ours, GroupNLConfig(scope="spatial"), filter_fn=lambda module, name: True)
    layers = (GroupNLConv2d(8, 16, 3, padding=1), paper[0], ours[0])
    formula, ranges = (
        [tuple(getattr(layer, name) for name in names) for layer in layers]
        for names in (("nlf", "normalize"), ("omega_fixed", "phi_fixed"))
    )
    assert formula == [("sine", "none"), ("sine", "none"), ("abs", "batch")]
    assert ranges[0] == ranges[1] != ranges[2]
    assert GroupNLConfig.paper(nlf="abs", sparse=True).nlf == "abs"
    assert GroupNLConfig.paper(sparse=True).sparse


def test_unknown_config_scope_method_and_option():
    model = create_model("resnet8_cifar")
    with pytest.raises(ConversionError, match="ConversionConfig"):
        convert_(model, ConversionConfig())
    with pytest.raises(ConfigError, match=r"unknown scope 'all'.*paper"):
        convert_(model, GroupNLConfig.paper(scope="all"))
    with pytest.raises(ConfigError, match=r"unknown method 'grupnl'; did you mean groupnl"):
        config_for("grupnl")
    with pytest.raises(ConfigError, match=r"no option 'ratio'.*reduction_ratio"):
        config_for("groupnl", ratio=2)
    assert config_for("groupnl", reduction_ratio=4) == GroupNLConfig(reduction_ratio=4)
    assert config_for("groupnl-paper", reduction_ratio=4) == GroupNLConfig.paper(reduction_ratio=4)


def test_report_prints_and_serialises():
    report = convert_(create_model("resnet8_cifar"), GroupNLConfig.paper())
    text = str(report)
    assert "replaced 8 convolutions, left 1 alone" in text
    assert "78,042 -> 39,898" in text
    assert json.loads(report.to_json())["params_after"] == 39898
