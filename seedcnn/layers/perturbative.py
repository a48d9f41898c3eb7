"""Perturbative layer: fixed additive noise, ReLU, and a learnable 1x1 convolution instead of a spatial one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seedcnn.layers._base import SeededConv2d
from seedcnn.layers._checks import IntPair, check_positive, conv2d, same_size
from seedcnn.layers._draws import Fixed
from seedcnn.layers.families import ConversionConfig, register
from seedcnn.layers.forms import ChannelAffine, SeedSpec, with_norm
from seedcnn.layers.norms import BatchNorm2d
from seedcnn.layers.targets import Form
from seedcnn.rng import FixedPoint

__all__ = ["NOISE_ID", "PerturbativeConv2d", "noise_of_size"]

NOISE_ID = 0  # tensor id in the counter of the generator


def noise_of_size(noise: Tensor, height: int, width: int) -> Tensor:
    """Return the mask [c, height, width] for maps of that size: the tile [c, T, T], cropped or repeated."""
    side = noise.shape[-1]
    rows = torch.arange(height, device=noise.device) % side
    columns = torch.arange(width, device=noise.device) % side
    return noise.index_select(1, rows).index_select(2, columns)


class PerturbativeConv2d(SeededConv2d):
    """``conv1x1(relu(x + noise))`` in the place of a spatial convolution (PNN, Juefei-Xu et al. 2018).

    The noise is fixed, uniform in [-level, level), one value per channel and position, shared over the batch. It comes
    from ``seed`` alone: the layer draws a tile [c_in, T, T] with T = ``mask_size``; smaller maps use a part of it,
    larger ones repeat it. So a layer can be built, saved and loaded before it sees any input, and only the seed is
    stored.

    Args:
        in_channels, out_channels, stride, groups, bias: as in ``nn.Conv2d``, for the 1x1 convolution.
        kernel_size, padding, dilation, padding_mode: geometry of the replaced convolution; it must keep the map's size
            (before the stride) and has no other effect.
        level: half width of the noise.
        mask_size: T, side of the tile.
        norm: add a BatchNorm before the 1x1 convolution, as in the original block.
        seed: the layer's own 64-bit seed.
        device, dtype: device and dtype of the weights; the noise stays float32.

    Shape:
        [N, c_in, H, W] or [c_in, H, W] to [N, c_out, H', W'] or [c_out, H', W'], H' and W' as in ``nn.Conv2d``.

    Raises:
        ValueError: naming the argument, its value and the rule.
    """

    noise: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: IntPair,
        stride: IntPair = 1,
        padding: IntPair | str = 0,
        dilation: IntPair = 1,
        groups: int = 1,
        bias: bool = False,
        padding_mode: str = "zeros",
        *,
        level: float = 0.1,
        mask_size: int = 32,
        norm: bool = False,
        seed: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        in_channels, out_channels = check_positive(in_channels=in_channels, out_channels=out_channels)
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, padding_mode, seed=seed)
        same_size(self.kernel_size, self.padding, self.dilation, padding_mode)
        (mask_size,) = check_positive(mask_size=mask_size)
        if not 0 < level < math.inf:
            raise ValueError(f"`level` (={level!r}) must be a positive finite number")
        self.level, self.mask_size = level, mask_size
        self.noise_fixed = FixedPoint.from_range(-level, level)
        place: Any = {"device": device, "dtype": dtype}
        self.norm = BatchNorm2d(in_channels, **place) if norm else None
        self.pointwise: nn.Conv2d = conv2d(in_channels, out_channels, 1, self.stride, groups=groups, bias=bias, **place)
        self.draw_fixed(self.pointwise.weight.device)

    def fixed(self) -> dict[str, Fixed]:
        """Return the tile of noise, [c_in, mask_size, mask_size]."""
        return {"noise": Fixed(NOISE_ID, self.noise_fixed, (self.in_channels, self.mask_size, self.mask_size))}

    def folded(self, norm: nn.BatchNorm2d | None, form: Form) -> nn.Module:  # noqa: ARG002
        """Return a :class:`FoldedPerturbative`."""
        return FoldedPerturbative(self, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, c_in, H, W] to [N, c_out, H', W'], keeping channels_last and the autocast dtype."""
        y = torch.relu(x + noise_of_size(self.noise.to(x.device), x.shape[-2], x.shape[-1]).to(x.dtype))
        return self.pointwise(y if self.norm is None else self.norm(y))

    def extra_repr(self) -> str:
        """Return the arguments that differ from the defaults."""
        return f"{super().extra_repr()}, level={self.level}, mask_size={self.mask_size}"


class FoldedPerturbative(nn.Module):
    """Perturbative layer + BatchNorm; loading the graph cuts the mask from the seeded tile.

    Shape:
        [N, c_in, H, W] to [N, c_out, H', W'].
    """

    def __init__(self, layer: PerturbativeConv2d, norm: nn.BatchNorm2d | None) -> None:
        super().__init__()
        self.noise = nn.Parameter(layer.noise.detach().cpu().clone())
        self.after = nn.Identity() if layer.norm is None else ChannelAffine(layer.norm)
        self.pointwise = with_norm(layer.pointwise, norm)
        spec = SeedSpec(layer.seed, NOISE_ID, layer.noise_fixed, self.noise.numel(), 1)
        self.seed_specs = {"noise": spec}

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, c_in, H, W] to [N, c_out, H', W']."""
        mask = noise_of_size(self.noise.to(x.device), x.shape[-2], x.shape[-1])
        return self.pointwise(self.after(torch.relu(x + mask)))


@dataclass(frozen=True)
class PerturbativeConfig(ConversionConfig):
    """Config of :class:`seedcnn.layers.PerturbativeConv2d`; the arguments are that layer's."""

    level: float = 0.1
    mask_size: int = 32
    norm: bool = False


register("pnn", PerturbativeConfig, PerturbativeConv2d)
