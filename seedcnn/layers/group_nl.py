"""GroupNL: learn a few seed filters, generate the other channels with grouped nonlinear functions of their maps."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from seedcnn import rng
from seedcnn.layers._base import IntPair, SeededConv2d, check_divisible, check_positive
from seedcnn.ops.group_nl import NLFS, group_nl_reference

__all__ = ["NORMALIZE", "GroupNLConv2d"]

NORMALIZE = ("none", "batch")
OMEGA_ID, PHI_ID = 0, 1  # tensor ids in the counter of the generator


class GroupNLConv2d(SeededConv2d):
    """A convolution that computes ``seed_channels`` maps and generates the rest (GroupNL, Section 3, Algorithm 1).

    ``s = conv(x)`` has c_seed channels in g groups; group i gives gamma = ceil(c_out / c_seed) - 1 generated blocks
    ``sin(omega_ij * (s_i + phi_ij))``; the output is ``cat[s, generated]``, cropped to c_out channels. omega and phi
    are g * gamma fixed numbers each, drawn from ``seed``; they are neither learned nor stored.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode: as in
            ``nn.Conv2d``; ``groups`` are the groups of the seed convolution, ``bias`` has ``seed_channels`` elements.
        reduction_ratio: r; seed_channels = ceil(out_channels / r).
        seed_channels: c_seed, instead of ``reduction_ratio``; must be a multiple of ``nlf_groups``.
        nlf_groups: g, the number of groups with hyperparameters of their own.
        nlf: "sine", "abs" (``|s + phi|``) or "identity" (plain duplication, a control).
        sparse: use gcd(in_channels, seed_channels) groups in the seed convolution.
        omega_range, phi_range: [low, high) of the fixed numbers.
        normalize: "none" (the paper) or "batch" (BatchNorm on the seed maps, before both branches; it folds away at
            export).
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
        nlf_groups: int = 4,
        nlf: str = "sine",
        sparse: bool = False,
        omega_range: tuple[float, float] = (1, 2),
        phi_range: tuple[float, float] = (1, 5),
        normalize: str = "none",
        seed: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        check_positive(in_channels=in_channels, out_channels=out_channels)
        check_positive(reduction_ratio=reduction_ratio, nlf_groups=nlf_groups, groups=groups)
        if seed_channels is None:
            seed_channels = -(-out_channels // reduction_ratio)
        check_positive(seed_channels=seed_channels)
        if seed_channels > out_channels:
            raise ValueError(f"`seed_channels` (={seed_channels}) must not exceed `out_channels` (={out_channels})")
        check_divisible("seed_channels", seed_channels, "nlf_groups", nlf_groups)
        if nlf not in NLFS:
            raise ValueError(f"`nlf` (={nlf!r}) must be one of {', '.join(map(repr, NLFS))}")
        if normalize not in NORMALIZE:
            raise ValueError(f"`normalize` (={normalize!r}) must be one of {', '.join(map(repr, NORMALIZE))}")
        if sparse and groups != 1:
            raise ValueError(f"`groups` (={groups}) must be 1 when `sparse` is True, which chooses the groups itself")
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, padding_mode, seed=seed)
        conv_groups = math.gcd(in_channels, seed_channels) if sparse else groups
        check_divisible("in_channels", in_channels, "groups", conv_groups)
        check_divisible("seed_channels", seed_channels, "groups", conv_groups)
        self.seed_channels, self.conv_groups = seed_channels, conv_groups
        self.gamma = -(-out_channels // seed_channels) - 1
        self.nlf_groups, self.nlf, self.normalize = nlf_groups, nlf, normalize
        self.omega_fixed = self._range("omega_range", omega_range)
        self.phi_fixed = self._range("phi_range", phi_range)
        self.weight = self.make_weight(seed_channels, in_channels // conv_groups, device, dtype)
        fan_in = self.weight[0].numel()
        self.bias = self.make_bias(seed_channels, fan_in, device, dtype) if bias else None
        self.norm = nn.BatchNorm2d(seed_channels, device=device, dtype=dtype) if normalize == "batch" else None
        self.draw_fixed(self.weight.device)

    @staticmethod
    def _range(name: str, bounds: tuple[float, float]) -> rng.FixedPoint:
        try:
            low, high = bounds
            return rng.FixedPoint.from_range(low, high)
        except (TypeError, ValueError) as error:
            raise ValueError(f"`{name}` (={bounds!r}) must be two finite numbers, low <= high: {error}") from None

    @property
    def generated_channels(self) -> int:
        """c_gen = out_channels - seed_channels."""
        return self.out_channels - self.seed_channels

    def draw_fixed(self, device: torch.device) -> None:
        """Draw omega and phi, float32 [nlf_groups * gamma], from ``self.seed`` (seedcnn-rng/1)."""
        count = self.nlf_groups * self.gamma
        omega = rng.uniform(self.seed, self.omega_fixed, tensor_id=OMEGA_ID, count=count)
        phi = rng.uniform(self.seed, self.phi_fixed, tensor_id=PHI_ID, count=count)
        self.omega, self.phi = torch.from_numpy(omega).to(device), torch.from_numpy(phi).to(device)

    def forward(self, x: Tensor) -> Tensor:
        """[N, c_in, H, W] to [N, c_out, H', W']; channels_last and the autocast dtype are kept."""
        seeds = self.convolve(x, self.weight, self.bias, self.conv_groups)
        if self.norm is not None:
            seeds = self.norm(seeds) if seeds.dim() == 4 else self.norm(seeds[None])[0]
        if self.gamma == 0:
            return seeds
        return group_nl_reference(
            seeds, self.omega, self.phi, nlf_groups=self.nlf_groups, out_channels=self.out_channels, nlf=self.nlf
        )

    def extra_repr(self) -> str:
        """Arguments that differ from the defaults."""
        text = f"{super().extra_repr()}, seed_channels={self.seed_channels}, nlf_groups={self.nlf_groups}"
        if self.conv_groups != 1:
            text += f", groups={self.conv_groups}"
        if self.bias is not None:
            text += ", bias=True"
        return f"{text}, nlf={self.nlf}, normalize={self.normalize}"
