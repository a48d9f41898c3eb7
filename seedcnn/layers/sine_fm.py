"""SineFM: convolve some channels, generate the others from several normalised sines of each."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from seedcnn.layers._base import SeededConv2d
from seedcnn.layers._checks import IntPair, check_divisible, check_positive, conv2d
from seedcnn.layers._draws import draw, fixed_range
from seedcnn.layers._norms import BatchNorm2d
from seedcnn.ops.group_nl import group_nl

__all__ = ["OMEGA_ID", "PHI_ID", "SineFMConv2d"]

OMEGA_ID, PHI_ID = 0, 1  # tensor ids in the counter of the generator


class SineFMConv2d(SeededConv2d):
    """SineFM as GroupNL describes it (GroupNL Eq. 7-9 and 15); no public code of its authors is known.

    ``s = conv(x)`` has c_seed channels; view i of t is ``BatchNorm_i(sin(omega_i * (s + phi_i)))``; a 1x1 convolution
    with c_seed groups makes the generated channels from the views, and the output is ``cat[s, generated]``, cropped to
    c_out. Inferred, because the paper does not say it: the views are interleaved seed by seed, so that a group of the
    1x1 convolution sees the t views of one seed channel, and that convolution has no bias.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode: as in
            ``nn.Conv2d``; ``groups`` are the groups of the seed convolution, ``bias`` has ``seed_channels`` elements.
        reduction_ratio: r; seed_channels = ceil(out_channels / r).
        seed_channels: c_seed, instead of ``reduction_ratio``.
        t: number of sines, each a view of the seed maps with a norm of its own.
        omega_range, phi_range: [low, high) of the fixed numbers.
        seed: the layer's own 64-bit seed.
        device, dtype: of the weights; the fixed numbers stay float32.

    Shape:
        [N, c_in, H, W] or [c_in, H, W] to [N, c_out, H', W'] or [c_out, H', W'], H' and W' as in ``nn.Conv2d``.

    Raises:
        ValueError: naming the argument, its value and the rule.
    """

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
        reduction_ratio: int = 2,
        seed_channels: int | None = None,
        t: int = 5,
        omega_range: tuple[float, float] = (1, 2),
        phi_range: tuple[float, float] = (1, 5),
        seed: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, padding_mode, seed=seed)
        check_positive(reduction_ratio=reduction_ratio, groups=groups, t=t)
        if seed_channels is None:
            seed_channels = -(-out_channels // reduction_ratio)
        check_positive(seed_channels=seed_channels)
        if seed_channels > out_channels:
            raise ValueError(f"`seed_channels` (={seed_channels}) must not exceed `out_channels` (={out_channels})")
        check_divisible("in_channels", in_channels, "groups", groups)
        check_divisible("seed_channels", seed_channels, "groups", groups)
        self.seed_channels, self.generated_channels = seed_channels, out_channels - seed_channels
        self.t, self.groups = t, groups
        self.omega_fixed, self.phi_fixed = fixed_range("omega_range", omega_range), fixed_range("phi_range", phi_range)
        self.weight = self.make_weight(seed_channels, in_channels // groups, device, dtype)
        self.bias = self.make_bias(seed_channels, self.weight[0].numel(), device, dtype) if bias else None
        self.norms = nn.ModuleList()
        self.align: nn.Conv2d | None = None
        if self.generated_channels:
            place = {"device": device, "dtype": dtype}
            self.norms.extend(BatchNorm2d(seed_channels, **place) for _ in range(t))
            wide = seed_channels * -(-self.generated_channels // seed_channels)
            self.align = conv2d(t * seed_channels, wide, 1, groups=seed_channels, bias=False, **place)
        self.draw_fixed(self.weight.device)

    def draw_fixed(self, device: torch.device) -> None:
        """Draw omega and phi, float32 [t], from ``self.seed`` (seedcnn-rng/1)."""
        self.omega = draw(self.seed, self.omega_fixed, OMEGA_ID, (self.t,), device)
        self.phi = draw(self.seed, self.phi_fixed, PHI_ID, (self.t,), device)

    def forward(self, x: Tensor) -> Tensor:
        """[N, c_in, H, W] to [N, c_out, H', W']; channels_last and the autocast dtype are kept."""
        seeds = self.convolve(x, self.weight, self.bias, self.groups)
        if self.align is None:
            return seeds
        # The seeds, then the sines: one operator, of which only the output is kept, as the norms do anyway.
        maps = group_nl(seeds, self.omega, self.phi, nlf_groups=1, out_channels=(self.t + 1) * self.seed_channels)
        sines = maps[..., self.seed_channels :, :, :].split(self.seed_channels, -3)  # type: ignore[no-untyped-call]
        views = [norm(sine) for norm, sine in zip(self.norms, sines, strict=True)]
        generated = self.align(torch.stack(views, dim=-3).flatten(-4, -3))  # [..., c_seed * t, H, W] before
        result = torch.cat([seeds, generated[..., : self.generated_channels, :, :]], dim=-3)
        if seeds.dim() == 4 and seeds.is_contiguous(memory_format=torch.channels_last):
            return result.contiguous(memory_format=torch.channels_last)
        return result

    def extra_repr(self) -> str:
        """Arguments that differ from the defaults."""
        text = f"{super().extra_repr()}, seed_channels={self.seed_channels}, t={self.t}"
        return text if self.bias is None else f"{text}, bias=True"
