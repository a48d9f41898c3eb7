"""The readable reference of the GroupNL generator (GroupNL, Eq. 3-6, 11 and Algorithm 1)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["NLF", "NLFS", "group_nl_reference", "nlf_index", "triangle_wave"]


def triangle_wave(u: Tensor) -> Tensor:
    """A triangle wave with the period, zeros and extremes of sine: ``2 / pi * asin(sin(u))``."""
    v = u * (0.5 / math.pi) - 0.25
    return 1 - 4 * (v - v.round()).abs()


def _triangle_slope(u: Tensor) -> Tensor:
    v = u * (0.5 / math.pi) - 0.25
    return (v - v.round()).sign() * (-2 / math.pi)


@dataclass(frozen=True)
class NLF:
    """A nonlinear transformation function of a seed map.

    Attributes:
        function: ``function(x, omega, phi)``; the fixed numbers broadcast against x.
        uses: the fixed numbers that it depends on, "omega", "phi" or both.
        derivative: ``derivative(x, omega, phi)`` with respect to x; at a kink the same value as autograd.
    """

    function: Callable[[Tensor, Tensor, Tensor], Tensor]
    uses: tuple[str, ...]
    derivative: Callable[[Tensor, Tensor, Tensor], Tensor]


def _spread(x: Tensor, omega: Tensor) -> Tensor:
    """One copy of x per hyperparameter, for functions without hyperparameters."""
    return x.expand(torch.broadcast_shapes(x.shape, omega.shape))  # type: ignore[no-untyped-call]


# ruff: noqa: ARG005
NLFS: dict[str, NLF] = {
    "sine": NLF(
        lambda x, w, p: torch.sin(w * (x + p)),
        ("omega", "phi"),
        lambda x, w, p: w * torch.cos(w * (x + p)),
    ),
    "monomial": NLF(
        lambda x, w, p: x.sign() * x.abs() ** w,
        ("omega",),
        lambda x, w, p: w * x.abs() ** (w - 1) * x.sign().square(),
    ),
    "gaussian": NLF(
        lambda x, w, p: torch.exp(-((w * x) ** 2)),
        ("omega",),
        lambda x, w, p: -2 * w.square() * x * torch.exp(-((w * x) ** 2)),
    ),
    "laplace": NLF(
        lambda x, w, p: 0.5 * w * torch.exp(-(w * x).abs()),
        ("omega",),
        lambda x, w, p: -0.5 * w.square() * (w * x).sign() * torch.exp(-(w * x).abs()),
    ),
    "abs": NLF(lambda x, w, p: (x + p).abs(), ("phi",), lambda x, w, p: (x + p).sign()),
    "leaky": NLF(
        lambda x, w, p: torch.where(x > 0, x, w * x),
        ("omega",),
        lambda x, w, p: torch.where(x > 0, torch.ones_like(w), w),
    ),
    "triangle": NLF(
        lambda x, w, p: triangle_wave(w * (x + p)),
        ("omega", "phi"),
        lambda x, w, p: w * _triangle_slope(w * (x + p)),
    ),
    "negate": NLF(lambda x, w, p: -_spread(x, w), (), lambda x, w, p: -torch.ones_like(_spread(x, w))),
    "identity": NLF(lambda x, w, p: _spread(x, w), (), lambda x, w, p: torch.ones_like(_spread(x, w))),
}
"""The functions by name.

sine, monomial (exponent omega), gaussian and laplace (scale omega) are from GroupNL, Table 2, where the bars of |x| are
missing in monomial and laplace. abs, leaky (slope omega below zero) and triangle are ours. negate (CReLU, with the ReLU
that follows) and identity (plain duplication) are controls.
"""


def nlf_index(seed_channels: int, out_channels: int, nlf_groups: int) -> tuple[Tensor, Tensor]:
    """The seed channel and the hyperparameter pair of each generated channel.

    Returns:
        ``(source, nlf)``, both int64 [out_channels - seed_channels]: generated channel c is computed from seed channel
        ``source[c]`` with hyperparameter pair ``nlf[c]``. Group i of n = seed_channels / nlf_groups channels yields
        gamma blocks (i, j). Block (i, j) uses pair i * gamma + j, and the blocks are concatenated in that order.
    """
    gamma = -(-out_channels // seed_channels) - 1
    n = seed_channels // nlf_groups
    block = torch.arange(nlf_groups * gamma).repeat_interleave(n)
    within = torch.arange(n).repeat(nlf_groups * gamma)
    source = block.div(max(gamma, 1), rounding_mode="floor") * n + within
    generated = out_channels - seed_channels
    return source[:generated], block[:generated]


def group_nl_reference(
    seeds: Tensor, omega: Tensor, phi: Tensor, *, nlf_groups: int, out_channels: int, nlf: str = "sine"
) -> Tensor:
    """Concatenate seed maps with the maps generated from them.

    Args:
        seeds: seed maps [..., c_seed, H, W]; c_seed % nlf_groups == 0.
        omega, phi: fixed numbers [nlf_groups * gamma], gamma = ceil(out_channels / c_seed) - 1.
        nlf_groups: number of groups g that the seed channels are split into.
        out_channels: channels of the result; further generated channels are cropped.
        nlf: a key of :data:`NLFS`.

    Returns:
        [..., out_channels, H, W] in the dtype and memory format of ``seeds``. Half precision is computed in float32
        and rounded once, as in PyTorch's own pointwise functions.
    """
    n = seeds.shape[-3] // nlf_groups
    gamma = omega.numel() // nlf_groups
    exact = torch.float64 if seeds.dtype == torch.float64 else torch.float32
    x = seeds.to(exact).unflatten(-3, (nlf_groups, 1, n))  # [..., g, 1, n, H, W]
    per_block = (nlf_groups, gamma, 1, 1, 1)
    omega, phi = (fixed.to(exact).view(per_block) for fixed in (omega, phi))
    generated = NLFS[nlf].function(x, omega, phi).flatten(-5, -3).to(seeds.dtype)  # [..., g * gamma * n, H, W]
    result = torch.cat([seeds, generated[..., : out_channels - seeds.shape[-3], :, :]], dim=-3)
    if seeds.dim() == 4 and seeds.is_contiguous(memory_format=torch.channels_last):
        return result.contiguous(memory_format=torch.channels_last)
    return result
