"""Costs under each convention, against the tables, torch's own counter and closed forms by hand."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from seedcnn.convert import (
    DepthwiseSeparableConfig,
    GhostConfig,
    GroupNLConfig,
    LocalBinaryConfig,
    MonoConfig,
    PerturbativeConfig,
    ShiftConfig,
    SineFMConfig,
    convert_,
)
from seedcnn.errors import ConfigError
from seedcnn.evaluate import cost
from seedcnn.layers import GroupNLConv2d, MonoConv2d
from seedcnn.models import create_model

# Network, method, learnable parameters, MACs as torchprofile counts them, transmitted bytes, fixed numbers.
TABLE = [
    ("vgg11", "vanilla", 9_228_362, 152_921_600, 36_935_464, 0),
    ("vgg11", "groupnl", 4_620_362, 77_467_136, 18_503_472, 56),
    ("vgg11", "groupnl_sparse", 32_522, 2_485_760, 152_112, 56),
    ("vgg11", "mono", 2_076_746, 160_591_104, 8_329_008, 851_968),
    ("vgg11", "mono_table1", 2_432_330, 171_105_536, 9_751_344, 851_968),
    ("resnet18", "vanilla", 11_173_962, 556_037_632, 44_734_248, 0),
    ("resnet18", "groupnl", 5_595_210, 279_488_000, 22_419_248, 152),
    ("resnet18", "groupnl_sparse", 47_434, 6_858_240, 228_144, 152),
    ("resnet18", "groupnl_r4", 2_805_834, 141_213_184, None, 456),
    ("resnet18", "mono", 2_584_650, 565_477_760, 10_377_008, 1_048_576),
    ("resnet18", "mono_table1", 2_817_738, 620_437_888, None, 1_048_576),
    ("resnet18", "ghost", 5_616_522, 281_683_456, 22_504_488, 0),
    ("resnet18", "sinefm", 5_630_730, 283_330_048, 22_656_048, 190),
    ("resnet18", "lbc", 2_785_354, 610_563_584, None, 9_437_184),
    ("resnet18", "pnn", 2_785_354, 119_830_016, None, None),
    ("resnet18", "shift", 2_791_242, 119_830_016, None, 0),
    ("resnet34", "vanilla", 21_282_122, 1_160_427_008, 85_196_584, 0),
    ("resnet34", "groupnl", 10_653_002, 582_092_288, 42_680_112, 280),
    ("resnet34", "groupnl_sparse", 88_266, 11_159_040, 421_168, 280),
    ("resnet34", "mono", 3_661_130, 1_179_971_584, 14_712_624, 2_170_880),
    ("resnet101", "vanilla", 42_512_970, 2_515_089_408, 170_473_256, 0),
    ("resnet101", "groupnl", 29_418_058, 1_790_269_440, 118_093_616, 488),
    ("resnet101", "groupnl_sparse", 18_474_826, 1_159_477_248, 74_320_688, 488),
    ("resnet101", "mono", 26_348_106, 2_533_344_320, 105_813_808, 2_027_520),
]
DEEP = ("resnet34", "resnet101")  # counted by the slow tests
CONFIGS = {
    "groupnl": GroupNLConfig.paper(),
    "groupnl_sparse": GroupNLConfig.paper(sparse=True),
    "groupnl_r4": GroupNLConfig.paper(reduction_ratio=4),
    "mono": MonoConfig(seed_filters=32, scope="stride1"),
    "mono_table1": MonoConfig(pointwise=True, scope="stride1"),
    "ghost": GhostConfig(norm=False, relu=False),
    "sinefm": SineFMConfig(),
    "lbc": LocalBinaryConfig(scope="stride1"),
    "pnn": PerturbativeConfig(scope="stride1"),
    "shift": ShiftConfig(scope="stride1"),
}


def network(name, method="vanilla", **options):
    with torch.device("meta"):
        model = create_model(name, **options)
        if method != "vanilla":
            # The VGG11 of MonoCNN's Table 1 replaces only the convolutions that keep the number of channels.
            keeps = (
                (lambda conv, _: conv.in_channels == conv.out_channels) if "vgg" in name and "mono" in method else None
            )
            convert_(model, CONFIGS[method], filter_fn=keeps)
    return model


@pytest.mark.parametrize(
    ("name", "method", "params", "macs", "sent", "fixed"),
    [pytest.param(*row, id=f"{row[0]}-{row[1]}", marks=[pytest.mark.slow] if row[0] in DEEP else []) for row in TABLE],
)
def test_the_cost_table(name, method, params, macs, sent, fixed):
    found = cost(network(f"{name}_cifar", method), convention="torchprofile")
    assert found.params == params
    assert found.gradient_bytes == 4 * params
    assert found.macs == macs
    assert sent is None or found.fp32_bytes == sent
    assert fixed is None or found.fixed == fixed
    assert found.unsupported == ()


def test_mono_generation_is_one_multiplication_a_weight():
    """9,437,184 generated weights in ResNet-18, and one product for the deviation of each of the 2,944 filters."""
    found, vanilla = (cost(network("resnet18_cifar", m), convention="torchprofile") for m in ("mono", "vanilla"))
    assert found.macs - vanilla.macs == 9_437_184 + 2_944
    assert found.nlf_evals == 9_437_184


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenetv3_small_050", "efficientnet_b0", "convnext_atto", "densenet121"]
)
def test_conv_linear_is_half_of_the_flop_counter_on_timm(name):
    with torch.no_grad():
        model = timm.create_model(name, num_classes=7).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, 64, 64))
    found = cost(model, (3, 64, 64))
    assert found.macs == counter.get_total_flops() // 2 > 0
    assert sum(row.params for row in found.layers) == found.params == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("size", [(3, 32, 32), (3, 40, 56), (3, 8, 8)])
@pytest.mark.parametrize("method", ["vanilla", "groupnl", "ghost", "sinefm", "mono_table1", "lbc", "shift"])
def test_conv_linear_is_half_of_the_flop_counter_on_ours(method, size):
    model = create_model("resnet8_cifar")
    if method != "vanilla":
        convert_(model, GroupNLConfig.paper() if method == "groupnl" else CONFIGS[method])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, *size))
    assert cost(model, size).macs == counter.get_total_flops() // 2


def test_torchsummaryx_by_hand():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )
    assert cost(model, (3, 6, 7), convention="torchsummaryx").macs == 8 * 3 * 9 * 42 + 8 + 40


@pytest.mark.parametrize(
    ("name", "options", "macs"),
    [
        ("crnet_cb", {"strategy": "gc-c1dw"}, 27_363_776),
        ("crnet_cb", {"strategy": "c1dw-c1dw", "expansion": 6}, 43_996_256),
        ("crnet_cib", {"strategy": "c1dw-gc"}, 23_902_512),
        ("crnet_cib", {"strategy": "gc-gc", "groups": 4, "alpha": 0.25}, 11_598_128),
    ],
)
def test_torchsummaryx_gives_the_dissertations_tables(name, options, macs):
    assert cost(network(name, **options), convention="torchsummaryx").macs == macs


def test_rows_name_what_they_count():
    model = nn.Sequential(
        GroupNLConv2d(4, 16, 3, padding=1, seed_channels=8, normalize="batch"), nn.ReLU(), nn.Flatten()
    )
    model.append(nn.Linear(16 * 30, 3))
    found = cost(model, (4, 5, 6))
    assert [(row.name, row.kind, row.output) for row in found.layers] == [
        ("0", "GroupNLConv2d", (16, 5, 6)),
        ("3", "Linear", (3,)),
    ]
    layer = found.layers[0]
    assert (layer.params, layer.fixed, layer.macs, layer.nlf_evals) == (8 * 36 + 16, 8, 8 * 36 * 30, 8 * 30)
    for field in ("params", "fixed", "macs", "nlf_evals"):
        assert sum(getattr(row, field) for row in found.layers) == getattr(found, field)
    assert found.to_dict()["layers"][0]["kind"] == "GroupNLConv2d"


def test_saved_bytes_by_hand():
    """Convolution keeps its input, BatchNorm its input and two statistics, ReLU its output, Linear its input."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    picture, maps = 3 * 6 * 6, 4 * 4 * 4
    assert cost(model, (3, 6, 6)).saved_bytes == 4 * (picture + 2 * maps + 2 * 4)
    model.requires_grad_(False)
    assert cost(model, (3, 6, 6)).saved_bytes == 0


def test_generated_maps_cost_no_memory_beyond_the_output():
    """The input and the output, which the norm that follows keeps anyway; a convolution keeps the same."""
    for nlf in ("sine", "identity"):
        layer = GroupNLConv2d(4, 16, 3, padding=1, seed_channels=8, nlf=nlf)
        assert cost(layer, (4, 8, 8)).saved_bytes == 4 * (4 + 16) * 64
        plain = nn.Sequential(nn.Conv2d(4, 16, 3, padding=1), nn.BatchNorm2d(16))
        assert (
            cost(nn.Sequential(layer, nn.BatchNorm2d(16)), (4, 8, 8)).saved_bytes == cost(plain, (4, 8, 8)).saved_bytes
        )


def test_what_is_not_counted_is_listed():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act, self.unused = nn.Conv2d(3, 3, 1), nn.PReLU(), nn.Linear(3, 3)

        def forward(self, x):
            return self.act(self.conv(x))

    assert cost(Odd()).unsupported == ("Linear (not reached)", "PReLU")
    assert cost(Odd(), convention="torchsummaryx").unsupported == ("Linear (not reached)",)
    assert cost(MonoConv2d(3, 4, 3), convention="torchsummaryx").unsupported == ("MonoConv2d",)
    group_norm = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4))
    assert cost(group_norm).unsupported == ()


def test_a_model_that_looks_at_its_numbers_is_counted_on_them():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1, bias=False)

        def forward(self, x):
            return self.conv(x) if float(self.conv.weight.detach().sum()) > -1e9 else x

    assert cost(Branching(), (3, 2, 2)).macs == 3 * 4 * 4


def test_shared_layers_work_twice_and_are_learned_once():
    conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
    found = cost(nn.Sequential(conv, nn.ReLU(), conv), (4, 5, 5))
    assert found.macs == 2 * 4 * 36 * 25
    assert found.params == sum(row.params for row in found.layers) == 144


def test_double_precision_and_frozen_parameters():
    model = nn.Conv2d(3, 4, 1, bias=False).double()
    model.weight.requires_grad_(False)
    found = cost(model, (3, 2, 2))
    assert (found.params, found.gradient_bytes, found.fp32_bytes, found.macs) == (0, 0, 48, 48)


def test_mistakes_are_named():
    model = create_model("resnet8_cifar")
    with pytest.raises(ConfigError, match=r"unknown convention 'flops'; known conventions: conv-linear, torchprofile"):
        cost(model, convention="flops")
    with pytest.raises(ValueError, match=r"ResNetCifar cannot take `input_size` \(=\(4, 32, 32\)\)"):
        cost(model, (4, 32, 32))
    with pytest.raises(ValueError, match=r"VGGCifar cannot take `input_size` \(=\(3, 4, 4\)\)"):
        cost(create_model("vgg11_cifar"), (3, 4, 4))
    for wrong in ((3, 32), (3, 0, 32), (3, 32.0, 32)):
        with pytest.raises(ValueError, match="three positive integers"):
            cost(model, wrong)


def test_a_layer_that_ends_with_another_of_ours_has_rows_of_both():
    inner = GroupNLConfig.paper(nlf="abs", phi_range=(-0.5, 0.5))
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3, padding=1, bias=False))
    convert_(model, DepthwiseSeparableConfig(norm=False, pointwise=inner))
    rows = {row.name: row for row in cost(model, (3, 10, 10)).layers}
    assert rows["1.depthwise"].macs == 8 * 9 * 8 * 8
    assert rows["1.pointwise"].macs == 8 * 8 * 8 * 8
    assert rows["1.pointwise"].nlf_evals == 8 * 8 * 8
    assert "1" not in rows
    assert sum(row.params for row in rows.values()) == sum(p.numel() for p in model.parameters() if p.requires_grad)
