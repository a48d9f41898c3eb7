"""The GroupNL generator in plain operations that inductor can vectorise on CPUs.

On CPUs inductor stores maps as channels_last and vectorises over channels. The block order of the reference, with its
groups and runs, then needs a division and a remainder for each element, and falls back to scalar code: a training step
of the layer was slower than one of the plain convolution. This form has no indexing: each channel has fixed numbers of
its own, and if several maps are generated from a seed, a 1x1 convolution with zeros and ones copies the seeds.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from seedcnn.ops.group_nl.reference import NLFS

__all__ = ["group_nl_vectorised"]


def _per_channel(fixed: Tensor, run: int, count: int) -> Tensor:
    """Fixed numbers [g * gamma], each repeated for ``run`` channels and cropped to ``count``: [count, 1, 1]."""
    # A concatenation is stored; repeat_interleave would compute an index for each element.
    return torch.cat([number.expand(run) for number in fixed.unbind()])[:count, None, None]


def _spread(seeds: Tensor, nlf_groups: int, gamma: int, count: int) -> Tensor:
    """Copy the seed of each generated channel, exactly: [N, c, H, W] to [N, count, H, W]."""
    channels = seeds.shape[1]
    run = channels // nlf_groups
    block = torch.arange(count, device=seeds.device) // run
    source = block // gamma * run + torch.arange(count, device=seeds.device) % run
    chosen = source[:, None] == torch.arange(channels, device=seeds.device)
    with torch.autocast(seeds.device.type, enabled=False):  # a product with 1 is exact in the dtype of the seeds
        return F.conv2d(seeds, chosen.to(seeds.dtype)[:, :, None, None])


def group_nl_vectorised(
    seeds: Tensor, omega: Tensor, phi: Tensor, *, nlf_groups: int, out_channels: int, nlf: str
) -> Tensor:
    """:func:`group_nl_reference` for seed maps [N, c_seed, H, W] on a CPU, under torch.compile.

    If gamma is above 1, a non-finite seed makes all generated channels of its pixel non-finite.
    """
    channels = seeds.shape[1]
    gamma, run, count = omega.numel() // nlf_groups, channels // nlf_groups, out_channels - channels
    exact = torch.float64 if seeds.dtype == torch.float64 else torch.float32
    source = seeds[:, :count] if gamma == 1 else _spread(seeds, nlf_groups, gamma, count)
    omega, phi = (_per_channel(fixed, run, count).to(exact) for fixed in (omega, phi))
    generated = NLFS[nlf].function(source.to(exact), omega, phi)
    return torch.cat([seeds, generated.to(seeds.dtype)], dim=1)
