"""The readable truth of the GroupNL generator (GroupNL, Eq. 3-6, 11 and Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["NLFS", "group_nl_reference", "nlf_index"]


def _sine(x: Tensor, omega: Tensor, phi: Tensor) -> Tensor:
    return torch.sin(omega * (x + phi))


def _abs(x: Tensor, omega: Tensor, phi: Tensor) -> Tensor:  # noqa: ARG001
    return torch.abs(x + phi)


def _identity(x: Tensor, omega: Tensor, phi: Tensor) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, omega.shape, phi.shape))


NLFS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"sine": _sine, "abs": _abs, "identity": _identity}
"""Nonlinear transformation functions: sine (GroupNL Eq. 10), |x + phi|, and plain duplication (a control)."""


def nlf_index(seed_channels: int, out_channels: int, nlf_groups: int) -> tuple[Tensor, Tensor]:
    """Where each generated channel comes from.

    Returns:
        ``(source, nlf)``, both int64 [out_channels - seed_channels]: generated channel c is made from seed channel
        ``source[c]`` with hyperparameter pair ``nlf[c]``. Group i of n = seed_channels / nlf_groups channels gives
        gamma blocks (i, j); block (i, j) uses pair i * gamma + j; blocks are concatenated in that order.
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
        out_channels: channels of the result; what is generated beyond it is cropped.
        nlf: a key of :data:`NLFS`.

    Returns:
        [..., out_channels, H, W] in the dtype and memory format of ``seeds``.
    """
    n = seeds.shape[-3] // nlf_groups
    gamma = omega.numel() // nlf_groups
    x = seeds.unflatten(-3, (nlf_groups, 1, n))  # [..., g, 1, n, H, W]
    per_block = (nlf_groups, gamma, 1, 1, 1)
    omega, phi = (fixed.to(seeds.dtype).view(per_block) for fixed in (omega, phi))
    generated = NLFS[nlf](x, omega, phi).flatten(-5, -3)  # [..., g * gamma * n, H, W]
    result = torch.cat([seeds, generated[..., : out_channels - seeds.shape[-3], :, :]], dim=-3)
    if seeds.dim() == 4 and seeds.is_contiguous(memory_format=torch.channels_last):
        return result.contiguous(memory_format=torch.channels_last)
    return result
