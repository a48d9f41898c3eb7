"""The first convolution as whitening filters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from seedcnn.convert import lowpass_
from seedcnn.data import normalize
from seedcnn.errors import ConfigError
from seedcnn.layers import GroupNLConv2d
from seedcnn.train.whitening import whiten_stem_
from tests.train.runs import changed, coloured, run


def test_patches_come_out_white():
    data, stem = coloured(64), nn.Conv2d(3, 80, 3, bias=False)
    kept = stem.weight.detach().clone()
    whiten_stem_(nn.Sequential(stem), data.images, data.mean, data.std)
    assert not stem.weight.requires_grad
    images = normalize(torch.from_numpy(data.images).permute(0, 3, 1, 2).contiguous(), data.mean, data.std)
    out = stem(images)[:, :54:2].transpose(0, 1).flatten(1)
    covariance = torch.cov(out)
    assert torch.allclose(covariance, torch.eye(27), atol=0.05)
    assert torch.equal(stem.weight[0:54:2], -stem.weight[1:54:2])
    assert torch.equal(stem.weight[54:], kept[54:])  # there are 27 directions of two signs


def test_a_narrow_stem_has_the_directions_of_largest_variance():
    data, wide, narrow = coloured(64), nn.Conv2d(3, 54, 3), nn.Conv2d(3, 7, 3)
    for stem in (wide, narrow):
        whiten_stem_(nn.Sequential(stem), data.images, data.mean, data.std)
    assert torch.equal(narrow.weight, wide.weight[:7])
    assert narrow.bias.requires_grad


def test_behind_a_low_pass_filter_the_filtered_patches_come_out_white():
    data, model = coloured(64), nn.Sequential(nn.Conv2d(3, 54, 3, bias=False))
    lowpass_(model)
    whiten_stem_(model, data.images, data.mean, data.std)
    images = normalize(torch.from_numpy(data.images).permute(0, 3, 1, 2).contiguous(), data.mean, data.std)
    variances = torch.cov(model(images)[:, :24:2].transpose(0, 1).flatten(1)).diagonal()
    assert torch.allclose(variances, torch.ones(12), atol=0.1)


@pytest.mark.parametrize(
    ("stem", "words"),
    [
        (nn.Linear(3, 3), "there is none"),
        (nn.Conv2d(3, 6, 3, groups=3), "0 is a Conv2d of 3 groups"),
        (nn.Conv2d(1, 6, 3), "0 takes 1 channels and patches of 3x3; the images are 3x32x32"),
        (nn.Conv2d(3, 6, 33), "patches of 33x33; the images are 3x32x32"),
    ],
)
def test_other_stems_are_refused(stem, words):
    data = coloured(8)
    with pytest.raises(ConfigError, match=words):
        whiten_stem_(nn.Sequential(stem), data.images, data.mean, data.std)


def test_a_converted_stem_is_refused():
    model = nn.Sequential(GroupNLConv2d(3, 8, 3), nn.BatchNorm2d(8))
    data = coloured(8)
    with pytest.raises(ConfigError, match="0 is a GroupNLConv2d"):
        whiten_stem_(model, data.images, data.mean, data.std)


def test_a_run_keeps_the_filters(tmp_path):
    config = changed(whiten_stem=True, convert=None)
    model, state = run(tmp_path / "a.ckpt", config)
    name = next(name for name in state.model if name.endswith("weight"))
    fresh = nn.Sequential(nn.Conv2d(3, 4, state.model[name].shape[2], bias=False))
    data = coloured()
    whiten_stem_(fresh, data.images, data.mean, data.std)
    assert torch.equal(model.state_dict()[name], fresh[0].weight)
