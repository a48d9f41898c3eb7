"""The form for compilation: the same function, forward and backward, without graph breaks."""

from __future__ import annotations

import pytest
import torch

from seedcnn.ops.group_nl import NLFS, group_nl, group_nl_reference
from seedcnn.ops.group_nl._compiled import group_nl_vectorised

SPLITS = [(3, 6, 1), (8, 32, 2), (4, 7, 2), (4, 10, 4)]


def case(split, dtype=torch.float64):
    c, out_channels, groups = split
    generator = torch.Generator().manual_seed(0)
    seeds = torch.randn(2, c, 5, 3, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    count = groups * (-(-out_channels // c) - 1)
    omega, phi = torch.rand(count, generator=generator) + 1, 4 * torch.rand(count, generator=generator) + 1
    return seeds, omega, phi, {"nlf_groups": groups, "out_channels": out_channels}


@pytest.mark.parametrize("nlf", list(NLFS))
@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_same_outputs_and_gradients_as_the_reference(nlf, split):
    seeds, omega, phi, how = case(split)
    grad = torch.randn(2, split[1], 5, 3, dtype=torch.float64)
    found, expected = (
        (*torch.autograd.grad(out, seeds, grad, retain_graph=True), out.detach())
        for out in (
            function(seeds, omega, phi, nlf=nlf, **how) for function in (group_nl_vectorised, group_nl_reference)
        )
    )
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_every_precision_equals_the_reference_to_the_bit(dtype):
    seeds, omega, phi, how = case((4, 12, 2), dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # must not round the seeds
        found = group_nl_vectorised(seeds, omega, phi, nlf="sine", **how)
    assert torch.equal(found, group_nl_reference(seeds, omega, phi, **how))


@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_compiled_whole_equals_eager(split):
    seeds, omega, phi, how = case(split)
    torch._dynamo.reset()
    compiled = torch.compile(group_nl, fullgraph=True, backend="aot_eager")
    grad = torch.randn(2, split[1], 5, 3, dtype=torch.float64)
    found, expected = (function(seeds, omega, phi, **how) for function in (compiled, group_nl))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, seeds, grad), torch.autograd.grad(expected, seeds, grad))
    torch.testing.assert_close(compiled(seeds.detach()[0], omega, phi, **how), expected[0])


def test_exported_is_plain_operations():
    seeds, omega, phi, how = case((4, 12, 2))

    class Generator(torch.nn.Module):
        def forward(self, x):
            return group_nl(x, omega, phi, **how)

    exported = torch.export.export(Generator(), (seeds.detach(),))
    assert not any("seedcnn" in str(node.target) for node in exported.graph.nodes)
    torch.testing.assert_close(exported.module()(seeds), group_nl(seeds, omega, phi, **how))
