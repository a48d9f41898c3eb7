"""Convex mixtures of random maps, in the manner of PRIME (Modas et al., "PRIME: A few primitives can boost robustness
to common corruptions", ECCV 2022).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from seedcnn.data.augmentation._checks import check_call, check_share, chosen

__all__ = ["prime"]

_LEVELS = 256
_FREQUENCIES = 4  # of a colour curve
_CURVE = 0.3  # standard deviation of the lowest frequency; the k-th has a k-th of it
_FILTER = 0.5  # standard deviation of each of the nine numbers that are added to the identity
_LINEAR = 0.25  # largest change of each of the four numbers of a linear map
_SHIFT = 0.15  # largest shift, as a share of half the image


def _changing(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Choose about half of the images for one map: indices int64 [M], and strengths uniform in [0, 1), [M, 1]."""
    where = chosen(count, 0.5, generator)
    return where, torch.rand(len(where), 1, generator=generator)


def _curves(count: int, generator: torch.Generator) -> Tensor:
    """Colour curves v + sum_k a_k sin(pi k v), as changes of 256 levels: float32 [count, 256]."""
    levels = torch.linspace(0, 1, _LEVELS)
    orders = torch.arange(1, _FREQUENCIES + 1)
    waves = torch.sin(math.pi * orders[:, None] * levels) * (255 * _CURVE / orders[:, None])
    return torch.randn(count, _FREQUENCIES, generator=generator) @ waves


def _recoloured(levels: Tensor, generator: torch.Generator) -> Tensor:
    """Send each channel of half of the images, uint8 [N, C, H, W], through a curve of its own; float32."""
    count, channels, height, width = levels.shape
    images = levels.float()
    where, strengths = _changing(count, generator)
    changes = _curves(len(where) * channels, generator).view(-1, channels, _LEVELS) * strengths[:, None]
    tables = changes.add_(torch.arange(_LEVELS, dtype=torch.float32)).clamp_(0, 255).to(images.device)
    where = where.to(images.device)
    places = levels.index_select(0, where).flatten(2).long()
    return images.index_copy_(0, where, tables.gather(2, places).view(-1, channels, height, width))


def _filter_(images: Tensor, generator: torch.Generator) -> None:
    """Convolve half of the images with random 3x3 filters near the identity, whose sum is 1, in place."""
    count, channels, height, width = images.shape
    where, strengths = _changing(count, generator)
    if not len(where):
        return
    filters = torch.randn(len(where), 9, generator=generator)
    filters -= filters.mean(1, keepdim=True)  # the image keeps its mean
    filters *= strengths * _FILTER
    filters[:, 4] += 1
    each = filters.repeat_interleave(channels, 0).view(-1, 1, 3, 3).to(images.device)
    where = where.to(images.device)
    padded = F.pad(images.index_select(0, where), (1, 1, 1, 1), mode="replicate").view(1, -1, height + 2, width + 2)
    found = F.conv2d(padded, each, groups=len(each)).view(-1, channels, height, width)
    images.index_copy_(0, where, found.clamp_(0, 255))


def _centres(length: int) -> Tensor:
    """Centres of ``length`` pixels on the scale -1 to 1 of ``F.grid_sample``."""
    return (2 * torch.arange(length) + 1) / length - 1


def _move_(images: Tensor, generator: torch.Generator) -> None:
    """Send half of the images through small affine maps, in place; beyond its border the border's pixels go on."""
    count, _, height, width = images.shape
    where, strengths = _changing(count, generator)
    if not len(where):
        return
    largest = torch.tensor([_LINEAR, _LINEAR * height / width, _SHIFT, _LINEAR * width / height, _LINEAR, _SHIFT])
    changes = (2 * torch.rand(len(where), 6, generator=generator) - 1) * largest * strengths
    xx, xy, x, yx, yy, y = changes.to(images.device)[:, :, None, None].unbind(1)
    columns, rows = (_centres(each).to(images.device) for each in (width, height))
    rows = rows[:, None]
    grid = torch.empty(len(where), height, width, 2, device=images.device)
    torch.add((1 + xx) * columns, xy * rows + x, out=grid[..., 0])
    torch.add(yx * columns, (1 + yy) * rows + y, out=grid[..., 1])
    where = where.to(images.device)
    found = F.grid_sample(images.index_select(0, where), grid, padding_mode="border", align_corners=False)
    images.index_copy_(0, where, found)


def _weights(count: int, chains: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Weights of the original [count] and of the chains [count, chains], which sum to 1 for each image.

    Those of the chains are Dirichlet(1, ..., 1), that of the original is Beta(1, 1).
    """
    times = -torch.rand(count, chains, generator=generator).clamp_min_(1e-7).log_()
    original = torch.rand(count, generator=generator)
    return original, times * ((1 - original) / times.sum(1))[:, None]


def _mixed(images: Tensor, generator: torch.Generator, chains: int) -> Tensor:
    count = len(images)
    original, weights = (each.to(images.device) for each in _weights(count, chains, generator))
    total = images * original.view(-1, 1, 1, 1)
    for weight in weights.unbind(1):
        branch = _recoloured(images, generator)
        _filter_(branch, generator)
        _move_(branch, generator)
        total.addcmul_(branch, weight.view(-1, 1, 1, 1))
    return total.round_().clamp_(0, 255).to(torch.uint8)


def prime(images: Tensor, generator: torch.Generator, *, chains: int = 2, share: float = 1.0) -> Tensor:
    """Mix each image with chains of random maps of itself, in the manner of PRIME.

    A chain is a colour curve for each channel (the identity and four sines), a 3x3 filter near the identity and an
    affine map near the identity (the paper: a smooth random displacement), each with probability 1/2 and a strength
    uniform in [0, 1). The chains are mixed by Dirichlet weights, the mixture and the original by a Beta weight, both
    uniform.

    Args:
        images: uint8 [N, C, H, W].
        generator: a CPU generator.
        chains: number of chains, positive.
        share: probability that an image changes, in [0, 1].

    Returns:
        uint8 [N, C, H, W], contiguous, on the device of ``images``, which do not change.

    Raises:
        TypeError, ValueError: naming the argument, its value and the rule.
    """
    check_call(images, generator)
    check_share("share", share)
    if isinstance(chains, bool) or not isinstance(chains, int) or chains < 1:
        raise ValueError(f"`chains` (={chains!r}) must be a positive integer")
    where = chosen(len(images), share, generator).to(images.device)
    if not len(where):
        return images.clone()
    return images.index_copy(0, where, _mixed(images.index_select(0, where), generator, chains))
