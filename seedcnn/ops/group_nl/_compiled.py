"""The GroupNL generator in plain operations that inductor can vectorise on CPUs.

On CPUs inductor lays out maps as channels_last and vectorises over channels. There the reference's order of blocks, by
groups and runs, becomes a division and a remainder per element and falls back to scalar code, which made a training
step of the layer slower than the plain convolution. This form indexes nothing: each channel has its own fixed numbers,
and if a seed has several generated channels, a 1x1 convolution with zeros and ones spreads the seeds.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from seedcnn.ops.group_nl.reference import NLFS

__all__ = ["group_nl_vectorised"]


def _per_channel(fixed: Tensor, run: int, count: int) -> Tensor:
    """Repeat fixed numbers [g * gamma] for ``run`` channels each, cropped to ``count``: [count, 1, 1]."""
    # A concatenation is stored; repeat_interleave would be indexed again for each element.
    return torch.cat([number.expand(run) for number in fixed.unbind()])[:count, None, None]


def _spread(seeds: Tensor, nlf_groups: int, gamma: int, count: int) -> Tensor:
    """Return the seed of each generated channel: [N, c, H, W] to [N, count, H, W], exactly."""
    channels = seeds.shape[1]
    run = channels // nlf_groups
    block = torch.arange(count, device=seeds.device) // run
    source = block // gamma * run + torch.arange(count, device=seeds.device) % run
    chosen = source[:, None] == torch.arange(channels, device=seeds.device)
    with torch.autocast(seeds.device.type, enabled=False):  # a product with 1 is exact in the seeds' dtype
        return F.conv2d(seeds, chosen.to(seeds.dtype)[:, :, None, None])


def group_nl_vectorised(
    seeds: Tensor, omega: Tensor, phi: Tensor, *, nlf_groups: int, out_channels: int, nlf: str
) -> Tensor:
    """Compute :func:`group_nl_reference` for seed maps [N, c_seed, H, W] on a CPU, under torch.compile.

    If gamma is above 1, a seed that is not finite makes all its pixel's generated channels not finite.
    """
    channels = seeds.shape[1]
    gamma, run, count = omega.numel() // nlf_groups, channels // nlf_groups, out_channels - channels
    exact = torch.float64 if seeds.dtype == torch.float64 else torch.float32
    source = seeds[:, :count] if gamma == 1 else _spread(seeds, nlf_groups, gamma, count)
    omega, phi = (_per_channel(fixed, run, count).to(exact) for fixed in (omega, phi))
    generated = NLFS[nlf].function(source.to(exact), omega, phi)
    return torch.cat([seeds, generated.to(seeds.dtype)], dim=1)
