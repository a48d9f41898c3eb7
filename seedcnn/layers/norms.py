"""Norms that also accept unbatched maps; a tracer does not look inside them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["BatchNorm2d", "GroupNorm"]


class BatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` that also accepts [C, H, W], as a batch of one."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [N, C, H, W] or [C, H, W]."""
        return super().forward(x) if x.dim() == 4 else super().forward(x[None])[0]


class GroupNorm(nn.GroupNorm):
    """``nn.GroupNorm`` over maps that also accepts [C, H, W], as a batch of one, and keeps channels_last."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [N, C, H, W] or [C, H, W]."""
        if x.dim() == 3:
            return super().forward(x[None])[0]
        y = super().forward(x)
        if x.is_contiguous(memory_format=torch.channels_last):
            return y.contiguous(memory_format=torch.channels_last)
        return y
