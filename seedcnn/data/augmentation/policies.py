"""AugMix and TrivialAugment as torchvision has them, as controls: image by image, and therefore slow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from seedcnn.data.augmentation._checks import check_call

__all__ = ["augmix", "trivial_augment"]


def _each(images: Tensor, generator: torch.Generator, policy: Callable[[Tensor], Any]) -> Tensor:
    """Send each image through a policy that draws from torch's global generator, which is left as it was."""
    seed = int(torch.randint(2**62, (1,), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # only the CPU's: other devices keep their states
        changed = [policy(image) for image in images.cpu().contiguous()]
    return (torch.stack(changed) if changed else images.clone()).to(images.device)


def augmix(images: Tensor, generator: torch.Generator) -> Tensor:
    """Augment by AugMix (Hendrycks et al., ICLR 2020) with torchvision's defaults, without those of its maps that are
    test corruptions (brightness, contrast, colour, sharpness), as in the paper.

    It works on one image at a time, on the CPU: about ten times as slow as :func:`seedcnn.data.augmentation.prime`.
    The loss of the paper (JSD) is not part of it.

    Args:
        images: uint8 [N, C, H, W], with one or three channels.
        generator: a CPU generator; it seeds torch's global one, whose state is restored.

    Returns:
        uint8 [N, C, H, W] on the device of ``images``, which do not change.

    Raises:
        TypeError, ValueError: naming the argument, its value and the rule.
    """
    from torchvision.transforms import v2

    _check_channels(images, generator)
    return _each(images, generator, v2.AugMix(all_ops=False))


def trivial_augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Augment by TrivialAugment (Müller and Hutter, ICCV 2021; torchvision's "wide" space): one random map an image.

    Three of its maps are test corruptions: brightness, contrast and colour (saturation). It works on one image at a
    time, on the CPU, and is slow.

    Args, Returns, Raises:
        As :func:`augmix`.
    """
    from torchvision.transforms import v2

    _check_channels(images, generator)
    return _each(images, generator, v2.TrivialAugmentWide())


def _check_channels(images: Tensor, generator: torch.Generator) -> None:
    check_call(images, generator)
    if images.shape[1] not in (1, 3):
        raise ValueError(f"`images` has {images.shape[1]} channels; AugMix and TrivialAugment take one or three")
