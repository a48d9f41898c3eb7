"""Sensitivities: measured on pictures, and the stand-in."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from seedcnn.layers import DepthwiseSeparableConv2d, GhostConv2d, GroupNLConv2d
from seedcnn.plan import FORMS, Calibration
from seedcnn.plan.costs import cost_table
from seedcnn.plan.fit import Target, fit, start_from_dense
from seedcnn.plan.sensitivity import PROXY, measured_sensitivity, proxy_sensitivity
from seedcnn.plan.sites import find_sites
from tests.plan.heard import Heard

SIZE = (3, 8, 8)
NAMES = ("copy-r2", "dws-linear", "ghost-r2", "abs-r2", "mono-r4")


@pytest.fixture
def pictures(small):
    """Noise, and what the network itself says about it: a network that is right about its pictures."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(48, *SIZE, generator=generator)
    with torch.no_grad():
        return Calibration(images, small(images).argmax(1), fit_images=24, fit_steps=4)


def measured(model, calibration, names=NAMES, budget="bytes", **options):
    sites, _ = find_sites(model, SIZE)
    table = cost_table(model, sites, {name: FORMS[name] for name in names})
    return table, measured_sensitivity(model, sites, table, calibration, budget=budget, **options)


def test_every_option_that_saves_has_a_finite_rise_and_the_model_is_as_before(small, pictures, one_thread):
    small.norm.eval()
    before = {name: value.clone() for name, value in small.state_dict().items()}
    heard = Heard()
    table, found = measured(small, pictures, say=heard)
    assert set(found.of) == {(name, option.form) for name, options in table.items() for option in options}
    assert all(found.of[name, "keep"] == 0 for name in table)
    assert all(0 <= rise < 100 for rise in found.of.values())
    assert max(found.of.values()) > 0
    assert 0 < found.loss < 10
    assert found.seconds > 0
    assert "48 calibration images" in found.how
    tried = [f"{name} as {form}" for name, form in found.of if form != "keep"]
    assert heard.stages == [(f"fitting {len(tried)} forms in 4 layers", len(tried))]
    assert heard.notes == tried
    assert all(torch.equal(before[name], value) for name, value in small.state_dict().items())
    assert measured(small, pictures)[1].of == found.of  # nothing depends on the time of day


def test_a_layer_nobody_listens_to_can_take_any_form(small, pictures, one_thread):
    with torch.no_grad():
        small.point_norm.weight.zero_()
        small.point_norm.bias.fill_(0.5)
    _, found = measured(small, pictures)
    assert all(rise == pytest.approx(0, abs=1e-6) for (name, _), rise in found.of.items() if name == "point")
    assert max(rise for (name, _), rise in found.of.items() if name == "last") > 1e-3


def test_options_that_save_nothing_of_the_budget_are_not_tried(small, pictures, one_thread):
    _, found = measured(small, pictures, names=("mono-r4",), budget="macs")
    assert {form for _, form in found.of} == {"keep"}


def test_the_stand_in_counts_weights_on_a_log_scale(small):
    sites, _ = find_sites(small, SIZE)
    table = cost_table(small, sites, {name: FORMS[name] for name in ("copy-r2", "copy-r4")})
    found = proxy_sensitivity(table)
    assert found.how == PROXY
    assert found.loss is None
    assert found.of["conv", "copy-r2"] == pytest.approx(math.log(2))
    assert found.of["conv", "copy-r4"] == pytest.approx(math.log(4))
    assert found.of["conv", "keep"] == 0


def test_layers_start_from_the_dense_filters():
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 32, 3, padding=1, bias=False)
    seeds = GroupNLConv2d(16, 32, 3, padding=1)
    ghost = GhostConv2d(16, 32, 3, padding=1)
    start_from_dense(seeds, conv)
    start_from_dense(ghost, conv)
    assert torch.equal(seeds.weight, conv.weight[:16])
    assert torch.equal(ghost.primary[0].weight, conv.weight[:16])


def test_a_separable_convolution_is_taken_over_exactly():
    torch.manual_seed(0)
    depthwise, pointwise = torch.randn(16, 1, 3, 3), torch.randn(32, 16, 1, 1)
    conv = nn.Conv2d(16, 32, 3, padding=1)
    conv.weight.data = depthwise.transpose(0, 1) * pointwise
    layer = DepthwiseSeparableConv2d(16, 32, 3, padding=1, bias=True, norm=False, relu=False)
    start_from_dense(layer, conv)
    x = torch.randn(2, 16, 5, 5)
    assert torch.allclose(layer(x), conv(x), atol=1e-4)


def test_the_pointwise_part_starts_from_its_share():
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 32, 3, padding=1)
    plain = DepthwiseSeparableConv2d(16, 32, 3, padding=1, bias=True, norm=False, relu=False)
    ghost = DepthwiseSeparableConv2d(16, 32, 3, padding=1, bias=True, norm=False, relu=False)
    ghost.pointwise = GhostConv2d(16, 32, 1, relu=False)
    for layer in (plain, ghost):
        start_from_dense(layer, conv)
    assert torch.equal(ghost.depthwise.weight, plain.depthwise.weight)
    assert torch.equal(ghost.pointwise.primary[0].weight, plain.pointwise.weight[:16])


@pytest.mark.parametrize("follows", [True, False])
def test_fitting_brings_a_layer_nearer(follows, one_thread):
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 16, 3, padding=1)
    norm = nn.BatchNorm2d(16) if follows else None
    x = torch.randn(16, 8, 6, 6)
    y = conv(x).detach()

    def after(steps):
        torch.manual_seed(1)
        layer = GhostConv2d(8, 16, 3, padding=1, bias=True, norm=False, relu=False)
        correlation = fit(layer, x, y, norm, steps=steps)
        assert not layer.training
        return float(correlation.abs().mean()), (layer(x) - y).square().mean().item()

    start, end = after(0), after(40)
    assert end[0] > start[0] + 0.1
    assert follows or end[1] < start[1]  # nothing takes a wrong scale back


def share_missed(z, y, importance):
    """The readable reference."""
    zc, yc = (v - v.mean((0, 2, 3), keepdim=True) for v in (z, y))
    correlation = (zc * yc).sum((0, 2, 3)) / (zc.square().sum((0, 2, 3)) * yc.square().sum((0, 2, 3))).sqrt()
    if importance is None:
        return (z - y).square().mean() / yc.square().mean(), correlation
    return (importance * (1 - correlation.square())).sum() / importance.sum(), correlation


@pytest.mark.parametrize("follows", [True, False])
def test_what_a_form_misses_and_its_gradient(follows):
    torch.manual_seed(0)
    y, z = torch.randn(2, 3, 5, 7, 4, dtype=torch.float64)
    z.requires_grad_()
    importance = torch.rand(5, dtype=torch.float64) if follows else None
    wanted, correlation = share_missed(z, y, importance)
    wanted.backward()
    found = Target(y, importance).miss(z.detach())
    for ours, theirs in zip(found, (wanted, correlation, z.grad), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": torch.zeros(20, 3, 8, 8, dtype=torch.uint8)}, "must be float32"),
        ({"images": torch.zeros(8, 3, 8, 8)}, "N >= 16"),
        ({"labels": torch.zeros(19, dtype=torch.int64)}, r"must be int64 \[20\]"),
        ({"labels": torch.full((20,), -1)}, "must not be negative"),
        ({"fit_images": 1}, r"`fit_images` \(=1\) must be an integer of at least 2"),
        ({"fit_steps": -1}, r"`fit_steps` \(=-1\)"),
    ],
)
def test_mistakes_are_named(change, words):
    good = {"images": torch.zeros(20, 3, 8, 8), "labels": torch.zeros(20, dtype=torch.int64)}
    with pytest.raises(ValueError, match=words):
        Calibration(**good | change)


def test_a_label_without_a_class_is_named(small):
    calibration = Calibration(torch.zeros(16, *SIZE), torch.full((16,), 7))
    with pytest.raises(ValueError, match="`labels` reach 7; the network has 4 classes"):
        measured(small, calibration)
