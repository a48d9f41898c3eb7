"""A first convolution that whitens the patches of the training images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from seedcnn.convert.filters import convolutions
from seedcnn.data import normalize
from seedcnn.errors import ConfigError
from seedcnn.layers.low_pass import LowPassed, binomial, plain_type

__all__ = ["whiten_stem_"]

_IMAGES = 2000  # whose patches are counted
_EPSILON = 5e-4  # added to a variance, as in the source


@torch.no_grad()
def whiten_stem_(
    model: nn.Module, images: npt.NDArray[np.uint8], mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    """Set the first convolution to whitening filters of the images' patches, in place, and freeze them.

    The filters are the eigenvectors of the patches' covariance, largest variance first, each over the square root of
    its variance and with both signs (Jordan, "94 % on CIFAR-10 in 3.29 seconds on a single GPU", 2024, Section 3.2).
    Channels beyond those keep their filters. A bias stays learnable. Behind a low-pass filter the patches are those of
    the filtered images.

    Args:
        model: whose first convolution, in the order of registration, is a dense ``nn.Conv2d``.
        images: uint8 [N, H, W, C], the training images; the first 2,000 are used.
        mean, std: of the normalisation, per channel.

    Raises:
        ConfigError: if the first convolution is not dense, was converted, is larger than an image, or takes other
            channels than the images have.
    """
    name, stem, _ = next(convolutions(model), ("", None, []))
    if stem is None or plain_type(stem) is not nn.Conv2d or stem.groups != 1:
        kind = "there is none" if stem is None else f"{name} is a {type(stem).__name__}"
        groups = f" of {stem.groups} groups" if isinstance(stem, nn.Conv2d) else ""
        raise ConfigError(f"whiten_stem needs a dense nn.Conv2d as the first convolution; {kind}{groups}")
    size = (int(stem.kernel_size[0]), int(stem.kernel_size[1]))
    if stem.in_channels != images.shape[3] or size[0] > images.shape[1] or size[1] > images.shape[2]:
        raise ConfigError(
            f"whiten_stem: {name} takes {stem.in_channels} channels and patches of {size[0]}x{size[1]}; the images are "
            f"{images.shape[3]}x{images.shape[1]}x{images.shape[2]}"
        )
    some = normalize(torch.from_numpy(np.ascontiguousarray(images[:_IMAGES].transpose(0, 3, 1, 2))), mean, std)
    if isinstance(stem, LowPassed):
        some = binomial(some)
    patches = F.unfold(some, size, dilation=stem.dilation).transpose(1, 2).flatten(0, 1).double()
    patches -= patches.mean(0)
    variances, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (vectors / (variances + _EPSILON).sqrt()).T.flip(0)  # largest variance first
    largest = filters.gather(1, filters.abs().argmax(1, keepdim=True))
    filters = filters * largest.sign()  # eigh leaves the sign open
    both = torch.stack([filters, -filters], 1).flatten(0, 1).view(-1, *stem.weight.shape[1:])
    count = min(len(both), stem.out_channels)
    stem.weight[:count] = both[:count].to(stem.weight)
    stem.weight.requires_grad_(False)
