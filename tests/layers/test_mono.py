"""MonoConv2d: the filters written out, what every argument does, what is refused."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from seedcnn import rng
from seedcnn.layers import MonoConv2d
from seedcnn.layers.mono import FGFS


def layer(**kwargs):
    options = {"in_channels": 4, "out_channels": 16, "kernel_size": 3, "padding": 1} | kwargs
    torch.manual_seed(0)
    return MonoConv2d(**options)


FORMULAS = {
    "monomial": lambda s, b: s.sign() * s.abs().pow(b),
    "gaussian": lambda s, b: torch.exp(-b * b * s * s),
    "multiquadric": lambda s, b: (1 + b * b * s * s).pow(0.5),
    "inverse_quadric": lambda s, b: (1 + b * b * s * s).pow(-1),
    "inverse_multiquadric": lambda s, b: (1 + b * b * s * s).pow(-0.5),
}


@pytest.mark.parametrize("fgf", FORMULAS)
@pytest.mark.parametrize("beta_per", ["element", "filter"])
def test_filters_are_the_formula_written_out(fgf, beta_per):
    module = layer(fgf=fgf, beta_per=beta_per, seed_filters=3, eps=1e-5).double()
    assert module.weight.shape == (3, 4, 3, 3)
    filters = module.filters()
    assert filters.shape == (16, 4, 3, 3)
    for o in range(16):
        made = torch.empty(4, 3, 3, dtype=torch.float64)
        for c in range(4):
            beta = float(module.beta[0, o, c if beta_per == "element" else 0])
            made[c] = FORMULAS[fgf](module.weight[o % 3, c], beta)
        deviations = made - made.mean()
        std = (deviations.square().sum() / (made.numel() - 1)).sqrt()
        torch.testing.assert_close(filters[o], deviations / (std + 1e-5))
    x = torch.randn(2, 4, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(module(x), F.conv2d(x, filters, padding=1))


def test_every_function_is_covered():
    assert set(FORMULAS) | {"polynomial"} == set(FGFS)


def test_polynomial_is_the_sum_of_its_monomials():
    module = layer(fgf="polynomial", terms=3, normalize=False)
    s = module.weight
    terms = [s.sign() * s.abs() ** module.beta[t] for t in range(3)]
    torch.testing.assert_close(module.filters(), terms[0] + terms[1] + terms[2])
    assert len({float(beta) for beta in module.beta[:, 0, 0].flatten()}) == 3
    torch.testing.assert_close(layer(fgf="polynomial").filters(), layer().filters())


def test_exponents_come_from_the_seed_in_row_major_order():
    module = layer(seed=2**63 + 5, beta_range=(2, 3))
    drawn = rng.uniform(2**63 + 5, rng.FixedPoint.from_range(2, 3), tensor_id=0, count=64)
    assert module.beta.flatten().tolist() == drawn.tolist()
    assert drawn.min() >= 2
    assert drawn.max() < 3
    assert layer(beta_per="filter").beta.shape == (1, 16, 1, 1, 1)


def test_pointwise_form_of_the_paper_s_table():
    module = layer(pointwise=True, bias=True)
    x = torch.randn(2, 4, 5, 7)
    y = F.conv2d(x, module.filters(), padding=1)
    groups = y.view(2, 16, -1)  # 16 groups of one channel
    mean, var = groups.mean(-1, keepdim=True), groups.var(-1, keepdim=True, correction=0)
    normed = ((groups - mean) / (var + 1e-5).sqrt()).view_as(y)
    expected = F.conv2d(normed.relu(), module.pointwise.weight, module.pointwise.bias)
    torch.testing.assert_close(module(x), expected, rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in module.parameters()) == 4 * 9 + 2 * 16 + 16 * 16 + 16


def test_gradient_is_finite_where_a_seed_is_zero():
    for fgf in FGFS:
        module = layer(fgf=fgf, beta_range=(1, 1))
        with torch.no_grad():
            module.weight[0, 0] = 0
        module(torch.randn(1, 4, 3, 3)).square().sum().backward()
        assert torch.isfinite(module.weight.grad).all(), fgf


def test_an_exponent_per_filter_kills_no_filter_with_its_own_default_eps():
    for channels in (16, 512):
        torch.manual_seed(0)
        alive = MonoConv2d(channels, 64, 3, beta_per="filter").filters().std((1, 2, 3))
        assert (alive > 0.9).all()
        dead = MonoConv2d(channels, 64, 3, beta_per="filter", eps=1e-5).filters().std((1, 2, 3))
        assert (dead < 0.01).any()


def test_number_of_seed_filters():
    assert layer().seed_filters == 1
    assert layer(exp_factor=4).seed_filters == 4
    assert layer(exp_factor=5).seed_filters == 4
    assert layer(exp_factor=99).seed_filters == 1
    assert layer(seed_filters=16).weight.shape == (16, 4, 3, 3)


@pytest.mark.parametrize(
    "option",
    [
        {"seed_filters": 2},
        {"exp_factor": 2},
        {"fgf": "gaussian"},
        {"fgf": "polynomial", "terms": 2},
        {"beta_range": (1, 2)},
        {"beta_per": "filter"},
        {"normalize": False},
        {"eps": 0.5},
        {"pointwise": True},
        {"groups": 2},
        {"bias": True},
        {"seed": 3},
        {"stride": 2},
        {"dilation": 2, "padding": 2},
        {"padding_mode": "circular"},
        {"padding": 0},
    ],
    ids=str,
)
def test_every_argument_has_an_effect(option):
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(2))
    base, changed = layer()(x), layer(**option)(x)
    assert base.shape != changed.shape or not torch.allclose(base, changed)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"beta_range": (0.5, 7)}, ["beta_range", "(0.5, 7)", "1 or above", "monomial"]),
        ({"beta_range": (3, 2)}, ["beta_range", "(3, 2)"]),
        ({"fgf": "cubic"}, ["fgf", "cubic", "monomial"]),
        ({"terms": 2}, ["terms", "2", "polynomial"]),
        ({"terms": 0}, ["terms", "0"]),
        ({"beta_per": "layer"}, ["beta_per", "layer", "filter"]),
        ({"seed_filters": 17}, ["seed_filters", "17", "out_channels", "16"]),
        ({"seed_filters": 0}, ["seed_filters", "0"]),
        ({"seed_filters": 2, "exp_factor": 2}, ["seed_filters", "exp_factor", "both"]),
        ({"exp_factor": 0}, ["exp_factor", "0"]),
        ({"out_channels": 20, "pointwise": True}, ["out_channels", "20", "16", "pointwise"]),
        ({"groups": 3}, ["in_channels", "4", "groups", "3"]),
        ({"eps": -1.0}, ["eps", "-1.0"]),
        ({"in_channels": 1, "kernel_size": 1}, ["normalize", "in_channels", "1"]),
        ({"seed": -1}, ["seed", "-1"]),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_by_name(options, words):
    with pytest.raises(ValueError) as caught:
        layer(**options)
    for word in words:
        assert word in str(caught.value)


def test_exponents_below_one_are_for_the_other_functions():
    assert torch.isfinite(layer(fgf="gaussian", beta_range=(0.1, 0.5)).filters()).all()


def test_repr_names_what_matters():
    text = repr(layer(seed_filters=2, fgf="polynomial", terms=3, groups=2, bias=True, normalize=False))
    for word in ("seed_filters=2", "fgf=polynomial", "terms=3", "groups=2", "bias=True", "normalize=False"):
        assert word in text


@pytest.mark.parametrize("fgf", FORMULAS)
def test_filters_without_standardising_and_filters_of_small_weights(fgf):
    module = layer(fgf=fgf, normalize=False)
    torch.testing.assert_close(module.filters()[3], FORMULAS[fgf](module.weight[0], module.beta[0, 3]))
    # As in wide layers: all but the monomial are 1 + a little here, and the little is what counts.
    small = layer(fgf=fgf, eps=0.0, beta_range=(1, 2))
    with torch.no_grad():
        small.weight.mul_(0.01)
        exact = layer(fgf=fgf, eps=0.0, beta_range=(1, 2)).double()
        exact.weight.copy_(small.weight)
        torch.testing.assert_close(small.filters().double(), exact.filters(), rtol=1e-4, atol=1e-5)
