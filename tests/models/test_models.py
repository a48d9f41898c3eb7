"""The networks: exact parameter and MAC counts of the GroupNL tables."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from seedcnn.convert import GroupNLConfig, convert_
from seedcnn.errors import ConfigError
from seedcnn.evaluate.costs import cost
from seedcnn.models import create_model, default_widths, list_models, option_types
from seedcnn.models.registry import scaled_widths

VANILLA = {
    "resnet18_cifar": 11_173_962,
    "resnet34_cifar": 21_282_122,
    "resnet56_cifar": 855_770,
    "resnet101_cifar": 42_512_970,
    "vgg11_cifar": 9_228_362,
}
# (network, r, sparse): learnable parameters; GroupNL Tables 3 and 4 print them in millions (5.6, 2.8, 1.4, 0.05;
# 29.4, 23.9, 21.2, 19.8, 18.5). ResNet-34 and VGG11 are in its figures, without printed numbers.
GROUP_NL = {
    ("resnet18_cifar", 2, False): 5_595_210,
    ("resnet18_cifar", 4, False): 2_805_834,
    ("resnet18_cifar", 8, False): 1_411_146,
    ("resnet18_cifar", 2, True): 47_434,
    ("resnet18_cifar", 4, True): 47_434,
    ("resnet18_cifar", 8, True): 47_434,
    ("resnet101_cifar", 2, False): 29_418_058,
    ("resnet101_cifar", 4, False): 23_908_938,
    ("resnet101_cifar", 8, False): 21_154_378,
    ("resnet101_cifar", 16, False): 19_777_098,
    ("resnet101_cifar", 2, True): 18_474_826,
    ("resnet101_cifar", 4, True): 18_474_826,
    ("resnet101_cifar", 8, True): 18_474_826,
    ("resnet101_cifar", 16, True): 18_474_826,
    ("resnet34_cifar", 2, False): 10_653_002,
    ("resnet34_cifar", 2, True): 88_266,
    ("vgg11_cifar", 2, False): 4_620_362,
    ("vgg11_cifar", 2, True): 32_522,
}
PRINTED_MILLIONS = {
    ("resnet18_cifar", 2, False): "5.6",
    ("resnet18_cifar", 4, False): "2.8",
    ("resnet18_cifar", 8, False): "1.4",
    ("resnet101_cifar", 2, False): "29.4",
    ("resnet101_cifar", 4, False): "23.9",
    ("resnet101_cifar", 8, False): "21.2",
    ("resnet101_cifar", 16, False): "19.8",
    ("resnet101_cifar", 2, True): "18.5",
}


def learnable(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize(("name", "expected"), VANILLA.items())
def test_vanilla_parameters(name, expected):
    with torch.device("meta"):
        assert learnable(create_model(name)) == expected


@pytest.mark.parametrize(("case", "expected"), GROUP_NL.items(), ids=str)
def test_group_nl_parameters(case, expected):
    name, ratio, sparse = case
    with torch.device("meta"):
        model = create_model(name)
        convert_(model, GroupNLConfig.paper(reduction_ratio=ratio, sparse=sparse))
    assert learnable(model) == expected
    if case in PRINTED_MILLIONS:
        assert f"{expected / 1e6:.1f}" == PRINTED_MILLIONS[case]


def test_group_nl_table_does_not_depend_on_the_number_of_groups():
    counts = set()
    for groups in (1, 4, 16):
        with torch.device("meta"):
            model = create_model("resnet18_cifar")
            convert_(model, GroupNLConfig.paper(nlf_groups=groups))
        counts.add(learnable(model))
    assert counts == {5_595_210}


@pytest.mark.parametrize(
    ("name", "convert", "macs", "nlf_evals"),
    [
        ("resnet18_cifar", None, 555_422_720, 0),
        ("resnet18_cifar", GroupNLConfig.paper(), 278_598_656, 274_432),
        ("resnet8_cifar", None, 12_501_632, 0),
    ],
)
def test_macs_without_norms(name, convert, macs, nlf_evals):
    """conv + linear only; the papers' tool adds a MAC for each BatchNorm and pooling output (556.04 M, 279.49 M)."""
    model = create_model(name)
    if convert:
        convert_(model, convert)
    found = cost(model)
    assert (found.macs, found.nlf_evals) == (macs, nlf_evals)


@pytest.mark.parametrize("name", list_models("classification"))
def test_every_model_answers(name):
    if "101" in name or "34" in name or "56" in name:
        with torch.device("meta"):
            assert create_model(name, num_classes=7)(torch.empty(2, 3, 32, 32)).shape == (2, 7)
        return
    assert create_model(name, num_classes=7).eval()(torch.rand(2, 3, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize(("name", "last"), [("resnet8_cifar", "bn2"), ("resnet101_cifar", "bn3")])
def test_blocks_can_start_as_their_shortcuts(name, last):
    for zero in (False, True):
        model = create_model(name, zero_init_residual=zero)
        norms = {path: module for path, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
        zeros = {path for path, module in norms.items() if not module.weight.any()}
        assert zeros == ({path for path in norms if path.endswith(last)} if zero else set())
        assert zeros or not zero


def test_widths_and_patch():
    model = create_model("resnet8_cifar", widths=(8, 16, 24), patch=2).eval()
    assert model.fc.in_features == 24
    assert model.stages[0](model.conv1(torch.rand(1, 3, 32, 32))).shape == (1, 8, 16, 16)
    assert default_widths("resnet8_cifar") == (16, 32, 64)


@pytest.mark.parametrize("name", list_models("classification"))
def test_width_multiplier(name):
    full = default_widths(name)
    with torch.device("meta"):
        narrow, rounded = create_model(name, width=0.5), create_model(name, width=0.5, width_divisor=16)
        explicit = create_model(name, widths=tuple(w // 2 for w in full))
        assert learnable(create_model(name, width=1.0)) == learnable(create_model(name))
    assert learnable(narrow) == learnable(explicit)
    if min(full) == 16:  # 8 channels become 16
        assert learnable(rounded) > learnable(narrow)
    assert narrow(torch.empty(1, 3, 32, 32, device="meta")).shape == (1, 10)


def test_scaled_widths():
    assert scaled_widths((16, 32, 64), 0.75) == (16, 24, 48)
    assert scaled_widths((16, 32, 64), 0.75, 4) == (12, 24, 48)
    assert scaled_widths((16, 32, 64), 0.01) == (8, 8, 8)
    assert scaled_widths((16, 32, 64), 1.5, 1) == (24, 48, 96)


def test_wrong_width_multipliers():
    for width in (0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=r"`width` .*positive"):
            create_model("resnet8_cifar", width=width)
    with pytest.raises(ValueError, match=r"width_divisor.*0.*positive integer"):
        create_model("resnet8_cifar", width=0.5, width_divisor=0)
    with pytest.raises(ValueError, match=r"`widths` .*`width` .*together"):
        create_model("resnet8_cifar", width=0.5, widths=(8, 8, 8))


def test_wrong_names_and_arguments():
    with pytest.raises(ConfigError, match=r"unknown model 'resnet19_cifar'; did you mean resnet18_cifar"):
        create_model("resnet19_cifar")
    with pytest.raises(ValueError, match=r"`widths` \(=\(8, 16\)\) must have 3 entries"):
        create_model("resnet8_cifar", widths=(8, 16))
    with pytest.raises(ValueError, match=r"patch.*positive"):
        create_model("resnet8_cifar", patch=0)


@pytest.mark.parametrize("name", list_models("classification"))
def test_option_types_are_the_arguments_of_the_network(name):
    """Every option that is listed is taken, and no other."""
    known = option_types(name)
    examples = {"widths": default_widths(name), "strategy": "auto", "alpha": 0.5, "zero_init_residual": True}
    examples |= {"depths": (1,) * len(default_widths(name)), "width": None, "groups": 2, "expansion": 4, "patch": 2}
    options = {option: examples.get(option, 8) for option in known}
    with torch.device("meta"):
        create_model(name, **options)
        for option in {*examples, "in_chans"} - set(known):
            with pytest.raises(TypeError, match=option):
                create_model(name, **{option: examples.get(option, 3)})
    assert known["num_classes"] is int
    with pytest.raises(ConfigError, match="did you mean resnet20_cifar"):
        option_types("resnet2_cifar")


@pytest.mark.parametrize("name", list_models("classification"))
def test_sizes_that_no_network_can_have_are_named(name):
    full = default_widths(name)
    bad = {
        r"`widths` \(=\(\)\) must have": {"widths": ()},
        r"`widths` \(=.*\) must have": {"widths": full[:-1]},
        r"`widths` \(=\(0, .*\) must be positive integers": {"widths": (0, *full[1:])},
        r"`num_classes` \(=0\) must be a positive integer": {"num_classes": 0},
        r"`width_divisor` \(=1000\) has no effect without `width`": {"width_divisor": 1000},
        r"`width_divisor` \(=0\) must be a positive integer": {"width": 0.5, "width_divisor": 0},
    }
    if "patch" in option_types(name):
        bad[r"`patch` \(=0\) must be a positive integer"] = {"patch": 0}
    for message, options in bad.items():
        with pytest.raises(ValueError, match=message):
            create_model(name, **options)
