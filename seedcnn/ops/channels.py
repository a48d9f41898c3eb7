"""Functions of a map's channels."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["channel_shuffle", "l2_normalize"]

_L2_EPS = 1e-4  # its reciprocal fits half precision


def l2_normalize(x: Tensor) -> Tensor:
    """Divide each pixel's channel vector by its length: [..., C, H, W] to the same shape.

    Lengths below 1e-4 count as 1e-4, so that zero stays zero and the gradient stays bounded; the squares are summed in
    float32, so that half precision neither overflows nor underflows.
    """
    square = x.float().square().sum(-3, keepdim=True)
    return x * square.clamp(min=_L2_EPS**2).rsqrt().to(x.dtype)


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave the channels of the groups: channel i of group j becomes channel i * groups + j.

    [..., C, H, W] to the same shape, in the memory format of x.
    """
    dealt: Tensor = x.unflatten(-3, (groups, -1)).transpose(-4, -3).flatten(-4, -3)  # type: ignore[no-untyped-call]
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return dealt.contiguous(memory_format=torch.channels_last)
    return dealt
