"""The configs of all families: what reaches the layer, what the ratio of a shortcut is, which names exist."""

from __future__ import annotations

import json
import re
from dataclasses import fields

import pytest
import torch
from torch import nn

from seedcnn import rng
from seedcnn.convert import (
    METHODS,
    PRESETS,
    ConditionalReductionConfig,
    ConversionConfig,
    DepthwiseSeparableConfig,
    GhostConfig,
    GroupNLConfig,
    LocalBinaryConfig,
    MonoConfig,
    PerturbativeConfig,
    ShiftConfig,
    SineFMConfig,
    config_for,
    convert_,
    from_plain,
    to_plain,
)
from seedcnn.errors import ConfigError, ConversionError
from seedcnn.evaluate import cost
from seedcnn.export import fold
from seedcnn.layers import (
    ConditionalReductionConv2d,
    ConvLayer,
    GhostConv2d,
    GroupNLConv2d,
    SeededConv2d,
    SineFMConv2d,
)
from seedcnn.models import create_model


def converted(config, c_in=8, c_out=32, kernel=3, **options):
    model = nn.Sequential(nn.Conv2d(3, c_in, 3), nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2, **options))
    convert_(model, config, filter_fn=lambda _, name: name == "1", seed=4)
    return model[1]


EFFECTS = [
    (MonoConfig(), lambda new: new.seed_filters == 1),
    (MonoConfig(seed_filters=5), lambda new: new.weight.shape[0] == 5),
    (MonoConfig(seed_filters=99), lambda new: new.weight.shape[0] == 32),
    (MonoConfig(exp_factor=4), lambda new: new.weight.shape[0] == 8),
    (MonoConfig(fgf="gaussian"), lambda new: new.fgf == "gaussian"),
    (MonoConfig(fgf="polynomial", terms=2), lambda new: new.beta.shape[0] == 2),
    (MonoConfig(beta_range=(8, 9)), lambda new: (new.beta >= 8).all()),
    (MonoConfig(beta_per="filter"), lambda new: new.beta.numel() == 32),
    (MonoConfig(normalize=False), lambda new: not new.normalize),
    (MonoConfig(eps=0.25), lambda new: new.eps == 0.25),
    (MonoConfig(pointwise=True), lambda new: new.pointwise is not None),
    (GhostConfig(ratio=4), lambda new: new.primary[0].weight.shape[0] == 8),
    (GhostConfig(cheap="pointwise"), lambda new: new.cheap[0].groups == 1),
    (GhostConfig(cheap_kernel_size=5), lambda new: new.cheap[0].kernel_size == (5, 5)),
    (GhostConfig(norm=False), lambda new: not any(isinstance(m, nn.BatchNorm2d) for m in new.modules())),
    (GhostConfig(relu=False), lambda new: not any(isinstance(m, nn.ReLU) for m in new.modules())),
    (SineFMConfig(reduction_ratio=4), lambda new: new.seed_channels == 8),
    (SineFMConfig(t=2), lambda new: len(new.norms) == 2),
    (SineFMConfig(omega_range=(7, 8)), lambda new: (new.omega >= 7).all()),
    (SineFMConfig(phi_range=(7, 8)), lambda new: (new.phi >= 7).all()),
    (LocalBinaryConfig(nonzero_fraction=1.0), lambda new: (new.filters != 0).all()),
    (LocalBinaryConfig(norm=True), lambda new: new.norm is not None),
    (PerturbativeConfig(level=0.01), lambda new: new.noise.abs().max() <= 0.01),
    (PerturbativeConfig(mask_size=4), lambda new: new.noise.shape == (8, 4, 4)),
    (PerturbativeConfig(norm=True), lambda new: new.norm is not None),
    (ShiftConfig(), lambda new: new.shift.offsets.shape == (8, 2)),
    (DepthwiseSeparableConfig(norm=False), lambda new: isinstance(new.norm, nn.Identity)),
    (DepthwiseSeparableConfig(pointwise=GhostConfig()), lambda new: isinstance(new.pointwise, GhostConv2d)),
    (DepthwiseSeparableConfig(relu=False), lambda new: isinstance(new.relu, nn.Identity)),
    (ConditionalReductionConfig(), lambda new: new.mode == "c1dw"),
    (ConditionalReductionConfig(mode="gc"), lambda new: new.mode == "gc"),
    (ConditionalReductionConfig(mode="gc", groups=4), lambda new: new.primary[0].groups == 4),
    (ConditionalReductionConfig(alpha=0.25), lambda new: new.primary[0].out_channels == 8),
    (ConditionalReductionConfig(relu=False), lambda new: not any(isinstance(m, nn.ReLU) for m in new.modules())),
    (ConditionalReductionConfig(norm=False), lambda new: not any(isinstance(m, nn.BatchNorm2d) for m in new.modules())),
]


@pytest.mark.parametrize(
    ("config", "check"), EFFECTS, ids=[f"{i}-{type(config).__name__}" for i, (config, _) in enumerate(EFFECTS)]
)
def test_every_option_reaches_the_layer(config, check):
    new = converted(config, kernel=1 if isinstance(config, ConditionalReductionConfig) else 3)
    assert isinstance(new, ConvLayer)
    assert check(new)
    if isinstance(new, SeededConv2d):
        assert new.seed == rng.layer_seed(4, "1")


def test_every_option_of_every_family_is_in_the_list():
    general = {item.name for item in fields(ConversionConfig)}
    for kind in METHODS.values():
        if kind is GroupNLConfig:  # its own tests are in test_convert.py
            continue
        default = kind()
        changed = {
            item.name
            for config, _ in EFFECTS
            if type(config) is kind
            for item in fields(kind)
            if getattr(config, item.name) != getattr(default, item.name)
        }
        assert changed == {item.name for item in fields(kind)} - general


@pytest.mark.parametrize("config", [kind() for kind in METHODS.values()], ids=lambda config: type(config).__name__)
def test_geometry_and_bias_survive(config):
    kernel = 1 if isinstance(config, ConditionalReductionConfig) else 3
    new = converted(config, kernel=kernel, stride=2, bias=True)
    assert (new.in_channels, new.out_channels, new.stride) == (8, 32, (2, 2))
    assert any(name.endswith("bias") and "norm" not in name for name, _ in new.named_parameters())
    x = torch.rand(2, 8, 9, 7)
    assert new(x).shape == (2, 32, 5, 4)


def test_names_of_the_methods():
    assert sorted(METHODS) == ["cr", "dws", "ghost", "groupnl", "lbc", "mono", "pnn", "shift", "sinefm"]
    assert config_for("ghost", ratio=4) == GhostConfig(ratio=4)
    assert config_for("cr").scope == "pointwise"


@pytest.mark.parametrize(("config", "kind"), [(GhostConfig(), GhostConv2d), (SineFMConfig(), SineFMConv2d)])
def test_bottleneck_shortcuts_take_the_ratio_of_the_block(config, kind):
    with torch.device("meta"):
        model = create_model("resnet101_cifar")
        convert_(model, config)
    shortcut = model.stages[0][0].downsample[0]
    assert isinstance(shortcut, kind)
    first = shortcut.weight if kind is SineFMConv2d else shortcut.primary[0].weight
    assert (shortcut.out_channels, first.shape[0]) == (256, 32)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (ConditionalReductionConfig(), r"1 .*kernel_size.*\(3, 3\).*must be 1"),
        (SineFMConfig(reduction_ratio=3), r"width \(=32\).*`reduction_ratio` \(=3\)"),
        (SineFMConfig(reduction_ratio=0), r"`reduction_ratio` \(=0\)"),
        (MonoConfig(seed_filters=0), r"`seed_filters` \(=0\)"),
        (MonoConfig(beta_range=(0, 1)), r"`beta_range` \(=\(0.0, 1.0\)\)"),
    ],
)
def test_layers_that_cannot_take_the_config_are_named(config, words):
    with pytest.raises(ConversionError, match=words):
        converted(config)


@pytest.mark.parametrize(
    "inner",
    [
        GroupNLConfig.paper(nlf="abs", phi_range=(-0.5, 0.5), normalize="batch"),
        GroupNLConfig.paper(groups=2, shuffle=True),
        GhostConfig(relu=False),
        ConditionalReductionConfig(mode="c1dw"),
    ],
    ids=["abs", "grouped", "ghost", "cr"],
)
def test_the_pointwise_of_a_depthwise_separable_layer_may_be_any_form(inner):
    """It is the layer that the inner config makes of a 1x1 convolution, and leaves for ONNX as the same function."""
    model = create_model("resnet8_cifar", widths=(16, 16, 32), patch=4)
    dense = create_model("resnet8_cifar", widths=(16, 16, 32), patch=4)
    config = DepthwiseSeparableConfig(scope="spatial", relu=False, pointwise=inner)
    convert_(model, config)
    convert_(dense, DepthwiseSeparableConfig(scope="spatial", relu=False))
    layer = model.stages[0][0].conv1
    kind = {GroupNLConfig: GroupNLConv2d, GhostConfig: GhostConv2d}.get(type(inner), ConditionalReductionConv2d)
    assert isinstance(layer.pointwise, kind)
    assert layer.pointwise.kernel_size == (1, 1)
    assert cost(model).macs < cost(dense).macs
    assert isinstance(model.stages[1][0].downsample[0], torch.nn.Conv2d)
    images = torch.randn(2, 3, 32, 32)
    model(images).sum().backward()
    model.eval()
    torch.testing.assert_close(fold(model)(images), model(images), atol=1e-4, rtol=1e-4)
    assert from_plain(json.loads(json.dumps(to_plain(config)))) == config


def test_a_pointwise_that_is_no_config():
    model = create_model("resnet8_cifar", widths=(16, 16, 32), patch=4)
    with pytest.raises(ConversionError, match=r"stages\.0\.0\.conv1.*`pointwise` .*must be the config of a layer"):
        convert_(model, DepthwiseSeparableConfig(scope="spatial", pointwise=ConversionConfig()))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GroupNLConfig(sparse=True, groups=2), "groups (=2) has no effect with sparse=True"),
        (lambda: GroupNLConfig(omega_range=(0, 1)), "omega_range (=(0.0, 1.0)) has no effect with nlf 'abs'"),
        (
            lambda: GroupNLConfig(nlf="monomial", phi_range=(0, 1)),
            "phi_range (=(0.0, 1.0)) has no effect with nlf 'mono",
        ),
        (
            lambda: GroupNLConfig.paper(variant="reference", phi_range=(0, 1)),
            "phi_range (=(0.0, 1.0)) has no effect in the variant 'reference'",
        ),
        (lambda: GroupNLConfig(normalize="no"), "GroupNLConfig.normalize (='no') must be one of 'none', 'batch', 'l2'"),
        (lambda: GroupNLConfig(nlf="cosine"), "GroupNLConfig.nlf (='cosine') must be one of 'sine'"),
        (lambda: GroupNLConfig(variant="own"), "GroupNLConfig.variant (='own') must be one of 'paper', 'reference'"),
        (lambda: MonoConfig(exp_factor=4, seed_filters=2), "seed_filters (=2) has no effect with exp_factor=4"),
        (lambda: MonoConfig(normalize=False, eps=0.1), "eps (=0.1) has no effect with normalize=False"),
        (lambda: MonoConfig(fgf="cubic"), "MonoConfig.fgf (='cubic') must be one of 'monomial'"),
        (lambda: MonoConfig(beta_per="layer"), "MonoConfig.beta_per (='layer') must be one of 'element', 'filter'"),
        (
            lambda: GhostConfig(cheap="pointwise", cheap_kernel_size=5),
            "cheap_kernel_size (=5) has no effect with cheap='pointwise'",
        ),
        (lambda: GhostConfig(cheap="dense"), "GhostConfig.cheap (='dense') must be one of 'depthwise', 'pointwise'"),
        (lambda: ConditionalReductionConfig(mode="gc", alpha=0.25), "alpha (=0.25) has no effect with mode='gc'"),
        (lambda: ConditionalReductionConfig(mode="c1dw", groups=4), "groups (=4) has no effect with mode='c1dw'"),
        (lambda: ConditionalReductionConfig(mode="dense"), "ConditionalReductionConfig.mode (='dense') must be one of"),
        (
            lambda: DepthwiseSeparableConfig(pointwise=GhostConfig(scope="spatial")),
            "GhostConfig.scope (='spatial') has no effect inside `pointwise`",
        ),
    ],
)
def test_a_field_without_effect_and_an_unknown_value_are_refused_at_once(make, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        make()


def test_presets_and_forms_of_the_papers_are_not_refused():
    for preset in PRESETS.values():
        preset()
    assert GroupNLConfig.paper(variant="reference").phi_range == (1, 5)
    assert GroupNLConfig.paper(nlf="monomial").phi_range == (1, 5)
    assert GroupNLConfig(groups=4).for_depthwise() == GroupNLConfig(sparse=True)
