"""The vanilla network made narrower: the control that every plan has beside it."""

from __future__ import annotations

import pytest
import timm
import torch

from seedcnn.errors import ConfigError
from seedcnn.evaluate.costs import cost
from seedcnn.models import create_model
from seedcnn.plan import narrow_to_macs, narrowed_network, widths_in_words


def test_narrowed_network_meets_the_budget_in_aligned_widths():
    target = 6_128_896
    widths = narrow_to_macs("resnet8_cifar", target, widths=(32, 64, 128), patch=2)
    assert all(width % 16 == 0 for width in widths)
    found = cost(create_model("resnet8_cifar", widths=widths, patch=2)).macs
    assert abs(found / target - 1) <= 0.05
    finer = narrow_to_macs("resnet8_cifar", target, widths=(32, 64, 128), patch=2, divisor=4, tolerance=0.02)
    found = cost(create_model("resnet8_cifar", widths=finer, patch=2)).macs
    assert abs(found / target - 1) <= 0.02
    assert all(0.55 < width / full < 0.9 for width, full in zip(finer, (32, 64, 128), strict=True))


def test_a_budget_out_of_reach_names_the_nearest():
    with pytest.raises(ConfigError, match=r"within 5% of 1,000,000 MACs; the nearest are"):
        narrow_to_macs("resnet8_cifar", 1_000_000, divisor=16)


def test_a_network_of_ours_keeps_its_options():
    options = {"widths": (32, 64, 128), "patch": 2, "num_classes": 7}
    label, network, macs = narrowed_network("resnet8_cifar", 6_128_896, (3, 32, 32), **options)
    assert label.startswith("narrowed to ")
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
    assert cost(network).macs == macs == pytest.approx(6_128_896, rel=0.05)


def test_a_residual_network_of_timm_is_narrowed_in_its_stages():
    size = (3, 32, 32)
    full = cost(timm.create_model("resnet18"), size).macs
    label, network, macs = narrowed_network("resnet18", full // 2, size, num_classes=5)
    assert network.num_classes == 5
    assert macs == pytest.approx(full / 2, rel=0.05)
    assert label == "narrowed to " + "/".join(str(stage["num_chs"]) for stage in network.feature_info[1:])


def test_of_a_family_of_widths_the_nearest_is_taken():
    size = (3, 32, 32)
    wanted = cost(timm.create_model("mobilenetv2_050"), size).macs
    label, network, macs = narrowed_network("mobilenetv2_100", wanted, size)
    assert (label, macs) == ("narrowed: mobilenetv2_050", wanted)
    assert network.conv_stem.out_channels < timm.create_model("mobilenetv2_100").conv_stem.out_channels


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ghostnetv3_100x", "neither a seedcnn network nor a timm network"),
        ("regnetx_002", "takes no widths"),
    ],
)
def test_a_network_that_cannot_be_narrowed_is_named(name, words):
    with pytest.raises(ConfigError, match=words):
        narrowed_network(name, 1_000_000, (3, 32, 32))


def test_the_step_of_the_widths_is_in_the_words():
    assert widths_in_words((16, 32, 48)) == "16/32/48"
    assert widths_in_words((8, 16, 24)) == "8/16/24 in steps of 8"
    assert widths_in_words((16, 20, 32)) == "16/20/32 in steps of 4"
