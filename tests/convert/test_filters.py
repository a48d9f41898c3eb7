"""The scope "square", and the counts of MonoCNN's VGG11 that need it."""

from __future__ import annotations

import pytest

from seedcnn.convert import MonoConfig, convert_
from seedcnn.convert.filters import SCOPES, rule_of
from seedcnn.errors import ConfigError
from seedcnn.models import create_model


def test_square_takes_what_keeps_the_channels():
    report = convert_(create_model("vgg11_cifar"), MonoConfig(scope="square"))
    assert [item.name for item in report.replaced] == ["features.11", "features.18", "features.22", "features.25"]
    left = {item.name: item.reason for item in report.skipped}
    assert left["features.0"] == "stem"
    assert left["features.4"] == "changes the channels, 64 -> 128"
    assert set(left) == {"features.0", "features.4", "features.8", "features.15"}


def test_square_leaves_strides_and_projections():
    report = convert_(create_model("resnet8_cifar", widths=(16, 16, 32)), MonoConfig(scope="square"))
    left = {item.name: item.reason for item in report.skipped}
    assert left["stages.1.0.conv1"] == "stride (2, 2)"
    assert left["stages.1.0.downsample.0"] == "pointwise convolution"
    assert left["stages.2.0.conv1"] == "changes the channels, 16 -> 32"
    assert [item.name for item in report.replaced] == [
        "stages.0.0.conv1",
        "stages.0.0.conv2",
        "stages.1.0.conv2",
        "stages.2.0.conv2",
    ]


@pytest.mark.parametrize(
    ("options", "learnable"),
    [({"seed_filters": 1, "pointwise": True}, 2_432_330), ({"seed_filters": 32}, 2_076_746)],
)
def test_parameters_of_vgg11(options, learnable):
    assert convert_(create_model("vgg11_cifar"), MonoConfig(scope="square", **options)).params_after == learnable


def test_an_unknown_scope_is_named():
    assert list(SCOPES)[-2:] == ["square", "spatial"]
    with pytest.raises(
        ConfigError, match=r"unknown scope 'sqare'; did you mean square.*\? known scopes: paper, .*square, spatial"
    ):
        rule_of("sqare")
