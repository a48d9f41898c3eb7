"""Local binary convolution: fixed filters of -1, 0 and 1, ReLU, and a learnable 1x1 convolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seedcnn.layers._base import SeededConv2d
from seedcnn.layers._checks import IntPair, check_positive, conv2d
from seedcnn.layers._draws import Fixed, draw
from seedcnn.layers.families import ConversionConfig, register
from seedcnn.layers.forms import ChannelAffine, SeedSpec, geometry_of, with_norm
from seedcnn.layers.norms import BatchNorm2d
from seedcnn.layers.targets import Form
from seedcnn.rng import FixedPoint

__all__ = ["DRAWS_ID", "DRAWS_RANGE", "LocalBinaryConv2d", "ternary"]

DRAWS_ID = 0  # tensor id in the counter of the generator
DRAWS_RANGE = FixedPoint.from_range(-1, 1)


def ternary(draws: Tensor, threshold: float) -> Tensor:
    """Return 1 where a draw is at least ``threshold``, -1 where it is below ``-threshold``, 0 elsewhere; float32."""
    return (draws >= threshold).float() - (draws < -threshold).float()


class LocalBinaryConv2d(SeededConv2d):
    """A fixed sparse ternary convolution, ReLU, and a learnable 1x1 convolution (LBCNN, Juefei-Xu et al. 2017).

    Each element of the fixed filters comes from one draw u, uniform in [-1, 1) from ``seed``: 1 if u >= 1 - p, -1 if
    u < p - 1, else 0, with p = ``nonzero_fraction``. (In the original code p counts draws with replacement, so fewer
    elements are nonzero than it says; a later port uses 1 - p under the same name.)

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, padding_mode: as in ``nn.Conv2d``; the
            geometry is the fixed convolution's.
        groups: groups of the fixed convolution.
        bias: add a bias to the 1x1 convolution.
        mid_channels: maps between the fixed and the learnable part; out_channels if not given.
        nonzero_fraction: expected share of nonzero elements, in (0, 1].
        norm: add a BatchNorm before the fixed convolution, as in the original block.
        seed: the layer's own 64-bit seed.
        device, dtype: device and dtype of the weights; the fixed filters stay float32.

    Shape:
        [N, c_in, H, W] or [c_in, H, W] to [N, c_out, H', W'] or [c_out, H', W'], H' and W' as in ``nn.Conv2d``.

    Raises:
        ValueError: naming the argument, its value and the rule.
    """

    generates_filters = True
    filters: Tensor

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
        mid_channels: int | None = None,
        nonzero_fraction: float = 0.9,
        norm: bool = False,
        seed: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        in_channels, out_channels = check_positive(in_channels=in_channels, out_channels=out_channels)
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, padding_mode, seed=seed)
        mid_channels = out_channels if mid_channels is None else mid_channels
        groups, mid_channels = check_positive(groups=groups, mid_channels=mid_channels)
        for name, value in (("in_channels", in_channels), ("mid_channels", mid_channels)):
            if value % groups:
                raise ValueError(f"`{name}` (={value}) must be divisible by `groups` (={groups})")
        if not 0 < nonzero_fraction <= 1:
            raise ValueError(f"`nonzero_fraction` (={nonzero_fraction!r}) must be in (0, 1]")
        self.mid_channels, self.groups, self.nonzero_fraction = mid_channels, groups, nonzero_fraction
        # Rounded to float32 here, so that the device compares with the same number.
        self.threshold = float(np.float32(1 - nonzero_fraction))
        self.norm = BatchNorm2d(in_channels, device=device, dtype=dtype) if norm else None
        self.pointwise: nn.Conv2d = conv2d(mid_channels, out_channels, 1, bias=bias, device=device, dtype=dtype)
        self.draw_fixed(self.pointwise.weight.device)

    def fixed(self) -> dict[str, Fixed]:
        """Return the draws that the filters are made of, [mid_channels, c_in / groups, kh, kw]."""
        shape = (self.mid_channels, self.in_channels // self.groups, *self.kernel_size)
        return {"filters": Fixed(DRAWS_ID, DRAWS_RANGE, shape)}

    def draw_fixed(self, device: torch.device) -> None:
        """Draw the fixed filters, float32, from ``self.seed`` (seedcnn-rng/1)."""
        super().draw_fixed(device)
        self.filters = ternary(self.filters, self.threshold)

    def folded(self, norm: nn.BatchNorm2d | None, form: Form) -> nn.Module:  # noqa: ARG002
        """Return a :class:`FoldedLocalBinary`."""
        return FoldedLocalBinary(self, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, c_in, H, W] to [N, c_out, H', W'], keeping channels_last and the autocast dtype."""
        if self.norm is not None:
            x = self.norm(x)
        return self.pointwise(torch.relu(self.convolve(x, self.filters.to(x.device, x.dtype), None, self.groups)))

    def extra_repr(self) -> str:
        """Return the arguments that differ from the defaults."""
        text = f"{super().extra_repr()}, mid_channels={self.mid_channels}, nonzero_fraction={self.nonzero_fraction}"
        return text if self.groups == 1 else f"{text}, groups={self.groups}"


class FoldedLocalBinary(nn.Module):
    """Local binary convolution + BatchNorm; loading the graph makes the ternary filters from seeded draws.

    Shape:
        [N, c_in, H, W] to [N, c_out, H', W'].
    """

    def __init__(self, layer: LocalBinaryConv2d, norm: nn.BatchNorm2d | None) -> None:
        super().__init__()
        self.geometry, self.groups, self.threshold = geometry_of(layer), layer.groups, layer.threshold
        self.before = nn.Identity() if layer.norm is None else ChannelAffine(layer.norm)
        fixed = layer.fixed()["filters"]
        self.draws = nn.Parameter(draw(layer.seed, fixed.bounds, fixed.tensor_id, fixed.shape, torch.device("cpu")))
        self.pointwise = with_norm(layer.pointwise, norm)
        self.seed_specs = {"draws": SeedSpec(layer.seed, fixed.tensor_id, fixed.bounds, self.draws.numel(), 1)}

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, c_in, H, W] to [N, c_out, H', W']."""
        filters = ternary(self.draws, self.threshold)
        return self.pointwise(torch.relu(self.geometry.convolve(self.before(x), filters, None, self.groups)))


@dataclass(frozen=True)
class LocalBinaryConfig(ConversionConfig):
    """Config of :class:`seedcnn.layers.LocalBinaryConv2d`, with ``mid_channels`` equal to its output channels."""

    nonzero_fraction: float = 0.9
    norm: bool = False


register("lbc", LocalBinaryConfig, LocalBinaryConv2d)
