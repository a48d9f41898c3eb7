"""timm's norms with an activation inside fold like any other norm."""

from __future__ import annotations

import timm
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from seedcnn.export import fold
from seedcnn.export._plain_norms import plain_norms_


def network():
    torch.manual_seed(0)
    model = timm.create_model("mobilenetv3_small_050", num_classes=4).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value, low, high in ((module.weight, 0.5, 1.5), (module.running_mean, -0.3, 0.3)):
                nn.init.uniform_(value, low, high)
    return model


def test_the_same_function_in_plain_pieces():
    model, x = network(), torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(x)
        split = plain_norms_(model)
        torch.testing.assert_close(split(x), expected, rtol=0, atol=0)
    assert not any(isinstance(module, BatchNormAct2d) for module in split.modules())
    assert not any(module.training for module in split.modules())


def test_every_norm_is_folded_and_the_model_is_not_changed():
    model, x = network(), torch.rand(2, 3, 64, 64)
    count = sum(isinstance(module, BatchNormAct2d) for module in model.modules())
    folded = fold(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert not list(folded.buffers())
    assert count == sum(isinstance(module, BatchNormAct2d) for module in model.modules()) > 20
    with torch.no_grad():
        torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-4)


def test_other_norms_are_left_alone():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
    assert type(plain_norms_(model)[1]) is nn.BatchNorm2d
