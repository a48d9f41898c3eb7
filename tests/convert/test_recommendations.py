"""The recommended config: for every goal one that converts, and the one that the recorded measurements put first."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from seedcnn.convert import GOALS, convert_, recommended
from seedcnn.errors import ConfigError, ConversionError
from seedcnn.models import create_model


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("name", ["resnet18_cifar", "resnet20_cifar", "vgg11_cifar"])
def test_it_converts(name, goal):
    model = create_model(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    config = recommended(model, goal)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    report = convert_(model, config)
    assert len(report.replaced) >= 7
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_timm_networks():
    model = timm.create_model("resnet18")
    assert convert_(model, recommended(model)).replaced
    model = timm.create_model("mobilenetv2_050")
    with pytest.raises(ConversionError, match="EfficientNet has no dense convolution above 1x1 besides its stem"):
        recommended(model)


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="unknown goal 'latncy'; did you mean latency"):
        recommended(nn.Conv2d(3, 8, 3), "latncy")
    with pytest.raises(ConversionError, match="Conv2d has no dense convolution"):
        recommended(nn.Conv2d(3, 8, 3))
