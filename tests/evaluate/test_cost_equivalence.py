"""Costs against closed forms; comparison of logits; the narrowed control."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from seedcnn.convert import GroupNLConfig, convert_
from seedcnn.errors import DataError
from seedcnn.evaluate.costs import cost
from seedcnn.evaluate.equivalence import compare_logits
from seedcnn.layers import GroupNLConv2d
from seedcnn.models import create_model


def test_cost_of_one_layer_by_hand():
    model = nn.Sequential(GroupNLConv2d(4, 16, 3, padding=1, seed_channels=8, bias=True), nn.BatchNorm2d(16))
    found = cost(model, (4, 5, 6))
    assert found.params == 8 * 4 * 9 + 8 + 32
    assert found.macs == 8 * 4 * 9 * 30
    assert found.nlf_evals == 8 * 30
    assert found.fp32_bytes == 4 * found.params + 8 * 16 + 8


def test_duplication_evaluates_no_function_and_vanilla_has_no_seed():
    assert cost(GroupNLConv2d(4, 8, 1, nlf="identity"), (4, 3, 3)).nlf_evals == 0
    assert cost(nn.Conv2d(4, 8, 1, bias=False), (4, 3, 3)).fp32_bytes == 4 * 32


def test_cost_leaves_the_model_alone():
    model = create_model("resnet8_cifar").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cost(model)
    assert model.training
    assert not any(m._forward_hooks for m in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_table_bytes_of_resnet18():
    """44,734,248 and 22,419,248 bytes: four a learnable scalar, eight a BatchNorm channel, eight for the seed."""
    model = create_model("resnet18_cifar")
    assert cost(model).fp32_bytes == 44_734_248
    convert_(model, GroupNLConfig.paper())
    assert cost(model).fp32_bytes == 22_419_248


def test_compare_logits():
    a = np.array([[1.0, 2.0], [4.0, 3.0]], np.float32)
    b = np.array([[1.0, 2.5], [3.0, 3.5]], np.float32)
    found = compare_logits(a, b)
    assert found.max_abs == 1.0
    assert found.max_rel == 0.25
    assert found.agreement == 50.0
    with pytest.raises(DataError, match=r"\(2, 2\).*\(1, 2\)"):
        compare_logits(a, b[:1])
