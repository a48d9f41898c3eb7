"""Conversion configs from text and plain data: every option by its type, and back again."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from seedcnn.convert import (
    METHODS,
    ConversionConfig,
    DepthwiseSeparableConfig,
    GhostConfig,
    GroupNLConfig,
    MonoConfig,
    config_for,
    config_of_text,
    convert_,
    from_plain,
    to_plain,
)
from seedcnn.errors import ConfigError
from seedcnn.typed import field_types
from tests.typed_values import instances, spelled

FAMILIES = {ConversionConfig: lambda: st.one_of([instances(kind, FAMILIES) for kind in METHODS.values()])}
BOOLS = [(name, field) for name, kind in METHODS.items() for field, hint in field_types(kind).items() if hint is bool]
SPELLINGS = {True: ("true", "True", "YES", "on", "1"), False: ("false", "FALSE", "no", "Off", "0")}


@given(FAMILIES[ConversionConfig]())
@settings(deadline=None)
def test_any_config_survives_json_with_its_types(config):
    again = from_plain(json.loads(json.dumps(to_plain(config), allow_nan=False)))
    assert spelled(again) == spelled(config)


@pytest.mark.parametrize(("method", "field"), BOOLS, ids=lambda value: value)
def test_every_bool_takes_every_spelling(method, field):
    for value, words in SPELLINGS.items():
        for word in words:
            found = config_of_text(f"{method}:{field}={word}")
            assert getattr(found, field) is value
            assert found == config_for(method, **{field: value})


def test_a_word_for_false_builds_the_network_without_the_option():
    """Each of these texts once meant true."""

    def layer(config):
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3))
        convert_(model, config, filter_fn=lambda _, name: name == "1")
        return model[1]

    assert layer(config_of_text("groupnl:sparse=false")).conv_groups == 1
    assert layer(config_of_text("groupnl:sparse=true")).conv_groups == 8
    assert not any(isinstance(part, nn.BatchNorm2d) for part in layer(config_of_text("ghost:norm=no")).modules())
    assert isinstance(layer(config_of_text("dws:relu=off")).relu, nn.Identity)


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("groupnl", GroupNLConfig()),
        ("groupnl:reduction_ratio=4:nlf=sine", GroupNLConfig(reduction_ratio=4, nlf="sine")),
        ("groupnl:phi_range=(0,1):sparse=on", GroupNLConfig(phi_range=(0.0, 1.0), sparse=True)),
        ("groupnl:phi_range=[-0.5, 1e-1]", GroupNLConfig(phi_range=(-0.5, 0.1))),
        ("groupnl-paper:shuffle=1", GroupNLConfig.paper(shuffle=True)),
        ("mono:exp_factor=none", MonoConfig()),
        ("mono:exp_factor=8:eps=1e-3", MonoConfig(exp_factor=8, eps=0.001)),
        ("dws:pointwise=None", DepthwiseSeparableConfig()),
        ("dws:pointwise=ghost", DepthwiseSeparableConfig(pointwise=GhostConfig())),
        (
            "dws:relu=no:pointwise={'method': 'ghost', 'relu': false}",
            DepthwiseSeparableConfig(relu=False, pointwise=GhostConfig(relu=False)),
        ),
    ],
)
def test_options_from_text(text, config):
    assert spelled(config_of_text(text)) == spelled(config)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("groupnl:sparse=maybe", "groupnl.sparse (='maybe') must be true or false"),
        ("groupnl:reduction_ratio=two", "groupnl.reduction_ratio (='two') must be an integer"),
        ("groupnl:reduction_ratio=True", "groupnl.reduction_ratio (='True') must be an integer"),
        ("groupnl:phi_range=1", "groupnl.phi_range (='1') must be a list of 2 values"),
        ("groupnl:phi_range=(0,nan)", "groupnl.phi_range (='(0,nan)') must be a list of 2 values"),
        ("mono:exp_factor=x", "mono.exp_factor (='x') must be an integer or none"),
        ("lbc:nonzero_fraction=inf", "lbc.nonzero_fraction (='inf') must be a finite number"),
        ("ghost:chaep=pointwise", "method 'ghost' has no option 'chaep'; did you mean cheap"),
        ("dws:pointwise=gost", "unknown method 'gost'; did you mean ghost"),
        ("dws:pointwise=3", "dws.pointwise (='3') must be a method (cr, dws, ghost"),
        ("dws:pointwise={'method': 'gost'}", "unknown method 'gost'; did you mean ghost"),
        ("", "the name of the method is missing"),
        (":sparse=yes", "method ':sparse=yes': the name of the method is missing; write NAME:option=value"),
        ("groupnl:phi_range=(0,1", "'groupnl:phi_range=(0,1' opens a bracket '(' that it does not close"),
        ("groupnl:phi_range=0,1)", "'groupnl:phi_range=0,1)' closes a bracket ')' that it does not open"),
        ("groupnl:sparse", "'sparse' must look like option=value"),
        ("groupnl:sparse=on:sparse=off", "method 'groupnl:sparse=on:sparse=off': sparse is given twice"),
    ],
)
def test_a_wrong_option_is_one_sentence(text, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        config_of_text(text)


def test_a_config_is_checked_when_it_is_made():
    assert spelled(
        GroupNLConfig(reduction_ratio=np.int64(4), phi_range=[0, np.float32(1)], sparse=np.True_)
    ) == spelled(GroupNLConfig(reduction_ratio=4, phi_range=(0.0, 1.0), sparse=True))
    assert spelled(GroupNLConfig(sparse="false")) == spelled(GroupNLConfig())
    with pytest.raises(ConfigError, match=re.escape("GroupNLConfig.sparse (='maybe') must be true or false")):
        GroupNLConfig(sparse="maybe")
    with pytest.raises(ConfigError, match=re.escape("GhostConfig.ratio (=2.5) must be an integer")):
        replace(GhostConfig(), ratio=2.5)


def test_plain_data_of_another_format_or_kind():
    plain = to_plain(GhostConfig())
    assert plain == {"format": "seedcnn-config/1", "method": "ghost"} | {
        item.name: getattr(GhostConfig(), item.name) for item in fields(GhostConfig)
    }
    for data, words in [
        (plain | {"format": "seedcnn-config/2"}, "a conversion config has the format 'seedcnn-config/2'; this version"),
        ({"method": "ghost"}, "a conversion config names no format"),
        ({"format": "seedcnn-config/1"}, "the name of the method is missing; known methods: cr, dws"),
        (plain | {"method": "groupln"}, "unknown method 'groupln'; did you mean groupnl"),
        (plain | {"norm": "maybe"}, "norm (='maybe') must be true or false"),
    ]:
        with pytest.raises(ConfigError, match=re.escape(words)):
            from_plain(data)


def test_a_config_of_no_method_has_no_plain_data():
    @dataclass(frozen=True)
    class OwnConfig(ConversionConfig):
        """Nobody registered it."""

    with pytest.raises(ConfigError, match="config is a OwnConfig, which is no method: cr, dws"):
        to_plain(OwnConfig())
    with pytest.raises(ConfigError, match="pointwise is a OwnConfig, which is no method"):
        to_plain(DepthwiseSeparableConfig(pointwise=OwnConfig()))
