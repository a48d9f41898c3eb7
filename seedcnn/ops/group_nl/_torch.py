"""The GroupNL generator and its gradient in torch's own kernels, one piece of the batch at a time.

Both memory formats are treated as a matrix. A row is an image in NCHW and a pixel in channels_last. In both, a row of
the output is the row of the seeds followed by nlf_groups * gamma blocks, and each block is generated from one
contiguous run of the seeds.
"""

from __future__ import annotations

import torch
from torch import Tensor

from seedcnn.ops.group_nl.reference import NLFS

__all__ = ["backward", "forward", "is_channels_last", "rows"]

_PIECE = 1 << 20  # generated elements per piece and thread; limits the memory beside input and output


def is_channels_last(x: Tensor) -> bool:
    """Whether a [N, C, H, W] tensor is stored as [N, H, W, C]."""
    return x.stride(1) == 1 and x.is_contiguous(memory_format=torch.channels_last)


def rows(x: Tensor, channels_last: bool) -> Tensor:
    """View [N, C, H, W], or a slice of its channels, as rows: [N, C * H * W] or [N * H * W, C]."""
    return x.permute(0, 2, 3, 1).flatten(0, 2) if channels_last else x.flatten(1)


def exact_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the arithmetic: float64 for float64, float32 for all others."""
    return torch.float64 if dtype == torch.float64 else torch.float32


class _Blocks:
    """The layout of a row: g groups, each with gamma blocks of ``run`` elements."""

    def __init__(self, omega: Tensor, phi: Tensor, groups: int, row: int, generated: int, channels_last: bool) -> None:
        self.groups, self.gamma = groups, omega.numel() // groups
        self.run, self.generated = row // groups, generated
        self.whole = self.gamma * row == generated  # whether nothing is cropped
        self.channels_last = channels_last
        self.omega, self.phi = (fixed.view(groups, self.gamma, 1) for fixed in (omega, phi))

    def pieces(self, count: int) -> range:
        self.step = max(1, _PIECE * torch.get_num_threads() // max(1, self.gamma * self.run * self.groups))
        return range(0, count, self.step)

    def seeds(self, x: Tensor) -> Tensor:
        """[R, g * run] as [R, g, 1, run]."""
        return x.unflatten(1, (self.groups, 1, self.run))

    def blocks(self, y: Tensor) -> Tensor:
        """[R, g * gamma * run] as [R, g, gamma, run]."""
        return y.unflatten(1, (self.groups, self.gamma, self.run))

    def angle(self, x: Tensor, out: Tensor) -> Tensor:
        """Write omega * (x + phi) for x [R, g * run] into ``out`` [R, g * gamma * run], and return ``out``."""
        if not self.channels_last:
            blocks = self.blocks(out)
            torch.add(self.seeds(x), self.phi, out=blocks)
            blocks.mul_(self.omega)
            return out
        # Runs of a few channels are too short for vector code, so the fixed numbers are expanded to all channels.
        omega, phi = (fixed.expand(-1, -1, self.run).flatten() for fixed in (self.omega, self.phi))
        if self.gamma == 1:
            torch.add(x, phi, out=out)
        else:
            self.blocks(out).copy_(self.seeds(x).expand(-1, -1, self.gamma, -1))
            out.add_(phi)
        return out.mul_(omega)

    def scale_by_omega(self, out: Tensor) -> Tensor:
        if self.channels_last:
            return out.mul_(self.omega.expand(-1, -1, self.run).flatten())
        self.blocks(out).mul_(self.omega)
        return out


def forward(
    seeds: Tensor, omega: Tensor, phi: Tensor, out: Tensor, *, nlf_groups: int, nlf: str, channels_last: bool
) -> None:
    """Write seeds [N, c, H, W] and the maps generated from them into ``out`` [N, C, H, W].

    Both tensors must be in the memory format that ``channels_last`` names.
    """
    exact = exact_dtype(seeds.dtype)
    x, y = rows(seeds, channels_last), rows(out, channels_last)
    kept, generated = y[:, : x.shape[1]], y[:, x.shape[1] :]
    omega, phi = omega.to(exact), phi.to(exact)
    blocks = _Blocks(omega, phi, nlf_groups, x.shape[1], generated.shape[1], channels_last)
    for start in blocks.pieces(len(x)):
        part, target = x[start : start + blocks.step], generated[start : start + blocks.step]
        kept[start : start + blocks.step].copy_(part)
        source = part.to(exact)
        if nlf == "sine":
            direct = blocks.whole and target.dtype == exact
            made = target if direct else source.new_empty(len(part), blocks.gamma * x.shape[1])
            blocks.angle(source, made).sin_()
            if direct:
                continue
        else:
            made = NLFS[nlf].function(blocks.seeds(source), blocks.omega, blocks.phi).flatten(1)
        target.copy_(made[:, : generated.shape[1]])


def backward(
    grad: Tensor,
    maps: Tensor,
    omega: Tensor,
    phi: Tensor,
    out: Tensor,
    *,
    nlf_groups: int,
    nlf: str,
    channels_last: bool,
) -> None:
    """Write the gradient with respect to the seeds into ``out`` [N, c, H, W].

    ``grad`` is the gradient with respect to the maps [N, C, H, W]; ``maps`` are these maps, or only the seeds
    [N, c, H, W].
    """
    exact = exact_dtype(maps.dtype)
    g, y, target = rows(grad, channels_last), rows(maps, channels_last), rows(out, channels_last)
    width = target.shape[1]
    omega, phi = omega.to(exact), phi.to(exact)
    blocks = _Blocks(omega, phi, nlf_groups, width, g.shape[1] - width, channels_last)
    for start in blocks.pieces(len(g)):
        piece = slice(start, start + blocks.step)
        source, upper = y[piece, :width].to(exact), g[piece]
        if nlf == "sine":
            slope = blocks.angle(source, source.new_empty(len(source), blocks.gamma * width)).cos_()
            blocks.scale_by_omega(slope)
        else:
            slope = NLFS[nlf].derivative(blocks.seeds(source), blocks.omega, blocks.phi)
            slope = slope.reshape(len(source), blocks.gamma * width)
        if blocks.whole:
            slope.mul_(upper[:, width:])
        else:
            slope[:, : blocks.generated].mul_(upper[:, width:])
            slope[:, blocks.generated :].zero_()
        if blocks.gamma == 1:
            total = slope
        else:
            total = blocks.blocks(slope).sum(2).flatten(1)
        torch.add(upper[:, :width], total, out=target[piece])
