"""Which convolutions can be replaced, what stands around them, and which forms fit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from seedcnn.layers import ConditionalReductionConv2d, GroupNLConv2d
from seedcnn.models import create_model
from seedcnn.plan import FORMS
from seedcnn.plan.sites import find_sites, form_of_site

SIZE = (3, 8, 8)


def test_norms_activations_and_sizes_are_found(small):
    sites, left = find_sites(small, SIZE)
    assert [(s.name, s.norm_name, type(s.activation), s.input_shape) for s in sites] == [
        ("stem.0", "stem.1", nn.ReLU, (3, 8, 8)),
        ("conv", "norm", nn.ReLU, (32, 8, 8)),
        ("point", "point_norm", type(None), (64, 4, 4)),
        ("last", "", nn.ReLU, (128, 4, 4)),
    ]
    assert left == {"depthwise": "depthwise convolution (groups=64)"}
    assert str(sites[1]) == "3x3 32->64 /2 @8x8"


def test_a_layer_alone_is_what_stands_in_the_network(small):
    seen = {}
    small.norm.register_forward_hook(lambda module, args, out: seen.update(y=torch.relu(out)))
    small.conv.register_forward_pre_hook(lambda module, args: seen.update(x=args[0]))
    site = next(site for site in find_sites(copy.deepcopy(small), SIZE)[0] if site.name == "last")
    small(torch.randn(2, *SIZE))
    plain = copy.deepcopy(small)
    plain.conv._forward_pre_hooks.clear()
    plain.norm._forward_hooks.clear()
    site = next(site for site in find_sites(plain, SIZE)[0] if site.name == "conv")
    assert torch.equal(site.alone(site.conv).eval()(seen["x"]), seen["y"])


def test_blocks_that_share_their_activation():
    sites, left = find_sites(create_model("resnet8_cifar"), (3, 32, 32))
    assert not left
    found = {site.name: (site.norm_name, site.activation is not None) for site in sites}
    assert found["stages.0.0.conv1"] == ("stages.0.0.bn1", True)
    assert found["stages.0.0.conv2"] == ("stages.0.0.bn2", False)  # the sum comes between
    assert found["stages.1.0.downsample.0"] == ("stages.1.0.downsample.1", False)


def test_a_convolution_that_is_called_twice_or_never_is_left():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.twice, self.never = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.twice(self.twice(x))

    sites, left = find_sites(Odd(), SIZE)
    assert not sites
    assert left == {"twice": "called 2 times in a forward pass", "never": "called 0 times in a forward pass"}


def test_a_picture_that_does_not_fit_is_named(small):
    with pytest.raises(ValueError, match=r"Small cannot take `input_size` \(=\(1, 8, 8\)\)"):
        find_sites(small, (1, 8, 8))


def test_the_model_is_as_before(small):
    before = {name: value.clone() for name, value in small.state_dict().items()}
    modules = dict(small.named_modules())
    for site in find_sites(small, SIZE)[0]:
        for config in FORMS.values():
            form_of_site(small, site, config)
    assert dict(small.named_modules()) == modules
    assert all(torch.equal(before[name], value) for name, value in small.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in small.modules())


def test_widths_that_a_form_brings_in_are_multiples(small):
    site = find_sites(small, SIZE)[0][0]  # 32 channels
    assert isinstance(form_of_site(small, site, FORMS["abs-r2"]), GroupNLConv2d)
    assert form_of_site(small, site, FORMS["abs-r4"]) == "brings in 8 channels, not a multiple of 16"
    assert isinstance(form_of_site(small, site, FORMS["abs-r4"], multiple=8), GroupNLConv2d)
    assert form_of_site(small, site, FORMS["dws"]) == "brings in 3 channels, not a multiple of 16"


def test_a_form_for_pointwise_convolutions_only(small):
    found = {s.name: form_of_site(small, s, FORMS["cr"]) for s in find_sites(small, SIZE)[0]}
    assert isinstance(found["point"], ConditionalReductionConv2d)
    assert found["point"].inner_widths() == (64,)
    assert "must be 1 in Conditional Reduction" in found["conv"]


def test_names_are_names_and_no_patterns():
    model = nn.Sequential()
    for name in ("a", "[a]", "*"):
        model.add_module(name, nn.Conv2d(32, 32, 3, padding=1))
    sites = find_sites(model, (32, 8, 8))[0]
    assert [site.name for site in sites] == ["a", "[a]", "*"]
    for site in sites:
        assert isinstance(form_of_site(model, site, FORMS["abs-r2"]), GroupNLConv2d)


def test_what_predicts_is_no_site():
    model = create_model("fpn_resnet18", num_classes=16, width=0.125, pyramid=16)
    sites, left = find_sites(model, (3, 32, 32))
    assert left == {"classifier": "it predicts: only `filter_fn`, or an override with its own name, replaces it"}
    assert {site.name.partition(".")[0] for site in sites} == {"backbone", "neck", "head"}
