"""Gaussian noise for training."""

from __future__ import annotations

import torch
from torch import Tensor

from seedcnn.data.augmentation._checks import check_call, check_share, chosen

__all__ = ["gaussian_noise"]


def gaussian_noise(images: Tensor, generator: torch.Generator, largest: float = 0.1, share: float = 0.5) -> Tensor:
    """Add normal noise of a random strength to a share of the images.

    Each of these images has its own standard deviation, uniform in [0, ``largest``]. Noise is also one of the test
    corruptions: a network that was trained so has seen it, and a table of its robustness must say so.

    Args:
        images: uint8 [N, C, H, W].
        generator: a CPU generator.
        largest: standard deviation on the 0..1 scale, in [0, 1].
        share: probability that an image gets noise, in [0, 1].

    Returns:
        uint8 [N, C, H, W], rounded and clipped, on the device of ``images``, which do not change.

    Raises:
        TypeError, ValueError: naming the argument, its value and the rule.
    """
    check_call(images, generator)
    check_share("largest", largest)
    check_share("share", share)
    picked = chosen(len(images), share, generator)
    strengths = torch.rand(len(picked), 1, 1, 1, generator=generator) * (255 * largest)
    noise = torch.randn(len(picked), *images.shape[1:], generator=generator).mul_(strengths)
    where = picked.to(images.device)
    noisy = noise.to(images.device).add_(images.index_select(0, where)).round_().clamp_(0, 255)
    return images.index_copy(0, where, noisy.to(torch.uint8))
