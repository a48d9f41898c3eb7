"""Checks of arguments, and the choice of the images that change."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["check_call", "check_share", "chosen"]


def check_call(images: Any, generator: Any) -> None:
    """Check what every augmentation takes.

    Raises:
        TypeError: if the images are no tensor, or the generator is none of torch's.
        ValueError: if the images are not uint8 [N, C, H, W] with at least one pixel, or the generator is not on the
            CPU.
    """
    if not isinstance(images, Tensor):
        raise TypeError(f"`images` is a {type(images).__name__}; it must be a tensor, uint8 [N, C, H, W]")
    if images.dtype != torch.uint8 or images.ndim != 4 or (not images[:1].numel() and len(images)):
        raise ValueError(f"`images` is {images.dtype} {tuple(images.shape)}; it must be uint8 [N, C, H, W]")
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"`generator` is a {type(generator).__name__}; it must be a torch.Generator")
    if generator.device.type != "cpu":
        raise ValueError(
            f"`generator` is on {generator.device}; it must be on the CPU, so that it draws the same numbers everywhere"
        )


def check_share(name: str, value: float) -> None:
    """Check that an argument is a number in [0, 1].

    Raises:
        ValueError: if it is not.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError(f"`{name}` (={value!r}) must be a number in [0, 1]")


def chosen(count: int, share: float, generator: torch.Generator) -> Tensor:
    """Choose each of ``count`` images with probability ``share``: ascending indices, int64 [M], on the CPU."""
    return torch.nonzero(torch.rand(count, generator=generator) < share)[:, 0]
