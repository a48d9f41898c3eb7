"""The generation of mono filters: its gradient against that of autograd, and the tensors it keeps."""

from __future__ import annotations

import pytest
import torch

from seedcnn.layers import MonoConv2d
from seedcnn.ops.mono_filters import FGFS, _generate, generate_filters


def case(fgf, terms=1, per_filter=False):
    generator = torch.Generator().manual_seed(0)
    seeds = torch.randn(3, 4, 3, 2, generator=generator, dtype=torch.float64)
    seeds[0, 0, 0, 0] = 0
    beta = 1 + 6 * torch.rand(terms, 7, 1 if per_filter else 4, 1, 1, generator=generator)
    return seeds.requires_grad_(), beta.double()


@pytest.mark.parametrize("fgf", list(FGFS))
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("per_filter", [False, True])
def test_gradient_is_what_autograd_finds(fgf, normalize, per_filter):
    seeds, beta = case(fgf, 3 if fgf == "polynomial" else 1, per_filter)
    grad = torch.randn(7, 4, 3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = generate_filters(seeds, beta, fgf=fgf, normalize=normalize, eps=1e-5)
    expected = _generate(seeds, beta, fgf, normalize, 1e-5)
    assert torch.equal(found, expected)
    (by_seeds,) = torch.autograd.grad(found, seeds, grad)
    torch.testing.assert_close(by_seeds, torch.autograd.grad(expected, seeds, grad)[0], rtol=1e-10, atol=1e-10)


def test_filters_of_equal_elements_have_a_finite_gradient():
    seeds = torch.full((1, 2, 3, 3), 0.5, requires_grad=True)
    generate_filters(
        seeds, torch.ones(1, 2, 1, 1, 1), fgf="monomial", normalize=True, eps=1e-5
    ).square().sum().backward()
    assert torch.isfinite(seeds.grad).all()


def test_second_derivatives():
    seeds, beta = case("gaussian", per_filter=True)
    small = seeds[:2, :2, :1].detach().requires_grad_()
    assert torch.autograd.gradgradcheck(
        lambda s: generate_filters(s, beta[:, :3], fgf="gaussian", normalize=True, eps=1e-5), (small,)
    )


def test_nothing_is_kept_but_seeds_and_beta():
    layer = MonoConv2d(8, 16, 3, seed_filters=2)
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        filters = layer.filters()
    assert filters.requires_grad
    assert set(kept) == {layer.weight.untyped_storage().data_ptr(), layer.beta.untyped_storage().data_ptr()}
