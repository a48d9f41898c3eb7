"""SineFM: convolve some channels and generate the others from several normalised sines of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seedcnn.layers._base import SeededConv2d
from seedcnn.layers._checks import IntPair, check_divisible, check_positive, conv2d
from seedcnn.layers._draws import Fixed, fixed_range
from seedcnn.layers.families import ConversionConfig, conv_arguments, options_of, register, share_of
from seedcnn.layers.forms import SeedSpec, affine_of, column, seed_conv_of
from seedcnn.layers.norms import BatchNorm2d
from seedcnn.layers.targets import SINES, Form
from seedcnn.ops.group_nl import group_nl

__all__ = ["OMEGA_ID", "PHI_ID", "SineFMConv2d"]

OMEGA_ID, PHI_ID = 0, 1  # tensor ids in the counter of the generator


class SineFMConv2d(SeededConv2d):
    """SineFM as GroupNL describes it (GroupNL Eq. 7-9 and 15); its authors' code is not public as far as we know.

    ``s = conv(x)`` has c_seed channels; view i of t is ``BatchNorm_i(sin(omega_i * (s + phi_i)))``; a 1x1 convolution
    with c_seed groups makes the generated channels from the views, and the output is ``cat[s, generated]``, cropped to
    c_out. The paper leaves two points open, and we infer them: the views are interleaved seed by seed, so that a group
    of the 1x1 convolution sees the t views of one seed channel, and that convolution has no bias.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode: as in
            ``nn.Conv2d``; ``groups`` are the groups of the seed convolution, ``bias`` has ``seed_channels`` elements.
        reduction_ratio: r; seed_channels = ceil(out_channels / r).
        seed_channels: c_seed, instead of ``reduction_ratio``.
        t: number of sines, each a view of the seed maps with its own norm.
        omega_range, phi_range: [low, high) of the fixed numbers.
        seed: the layer's own 64-bit seed.
        device, dtype: device and dtype of the weights; the fixed numbers stay float32.

    Shape:
        [N, c_in, H, W] or [c_in, H, W] to [N, c_out, H', W'] or [c_out, H', W'], H' and W' as in ``nn.Conv2d``.

    Raises:
        ValueError: naming the argument, its value and the rule.
    """

    omega: Tensor
    phi: Tensor

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
        in_channels, out_channels = check_positive(in_channels=in_channels, out_channels=out_channels)
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, padding_mode, seed=seed)
        reduction_ratio, groups, t = check_positive(reduction_ratio=reduction_ratio, groups=groups, t=t)
        if seed_channels is None:
            seed_channels = -(-out_channels // reduction_ratio)
        (seed_channels,) = check_positive(seed_channels=seed_channels)
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

    def fixed(self) -> dict[str, Fixed]:
        """Return omega and phi, float32 [t]."""
        return {
            "omega": Fixed(OMEGA_ID, self.omega_fixed, (self.t,)),
            "phi": Fixed(PHI_ID, self.phi_fixed, (self.t,)),
        }

    def inner_widths(self) -> tuple[int, ...]:
        """Return the seed channels."""
        return (self.seed_channels,)

    def nlf_evals(self, shape: tuple[int, ...]) -> int:
        """Count one per sine."""
        return self.t * self.seed_channels * shape[-2] * shape[-1] if self.generated_channels else 0

    def folded(self, norm: nn.BatchNorm2d | None, form: Form) -> nn.Module:
        """Return a :class:`FoldedSineFM`."""
        return FoldedSineFM(self, norm, form)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, c_in, H, W] to [N, c_out, H', W'], keeping channels_last and the autocast dtype."""
        seeds = self.convolve(x, self.weight, self.bias, self.groups)
        if self.align is None:
            return seeds
        # One operator makes the seeds and the sines, and keeps only its output, as the norms do anyway.
        maps = group_nl(
            seeds,
            self.omega.to(seeds.device),
            self.phi.to(seeds.device),
            nlf_groups=1,
            out_channels=(self.t + 1) * self.seed_channels,
        )
        sines = maps[..., self.seed_channels :, :, :].split(self.seed_channels, -3)  # type: ignore[no-untyped-call]
        views = [norm(sine) for norm, sine in zip(self.norms, sines, strict=True)]
        generated = self.align(torch.stack(views, dim=-3).flatten(-4, -3))  # from [..., c_seed * t, H, W]
        result = torch.cat([seeds, generated[..., : self.generated_channels, :, :]], dim=-3)
        if seeds.dim() == 4 and seeds.is_contiguous(memory_format=torch.channels_last):
            return result.contiguous(memory_format=torch.channels_last)
        return result

    def extra_repr(self) -> str:
        """Return the arguments that differ from the defaults."""
        text = f"{super().extra_repr()}, seed_channels={self.seed_channels}, t={self.t}"
        return text if self.bias is None else f"{text}, bias=True"


class FoldedSineFM(nn.Module):
    """SineFM + BatchNorm: ``cat(A * s + C, align(sin(omega * (s + phi))))``, all norms folded into ``align``, A and C.

    Shape:
        [N, c_in, H, W] to [N, c_out, H', W'].
    """

    def __init__(self, layer: SineFMConv2d, norm: nn.BatchNorm2d | None, form: Form) -> None:
        super().__init__()
        self.sine = SINES[form.target.sine]
        c_seed = layer.seed_channels
        self.generated = layer.generated_channels
        self.seed_conv = seed_conv_of(layer, layer.groups, *affine_of(None, c_seed), form.target)
        scale, shift = affine_of(norm, layer.out_channels)
        self.seed_scale = None if norm is None else column(scale[:c_seed])
        self.seed_shift = None if norm is None else column(shift[:c_seed])
        if layer.align is None:
            return
        self.align = _align(layer, layer.align, scale[c_seed:], shift[c_seed:])
        self.omega = nn.Parameter(layer.omega.cpu()[:, None, None].clone())
        self.phi = nn.Parameter(layer.phi.cpu()[:, None, None].clone())
        self.seed_specs = {
            "omega": SeedSpec(layer.seed, OMEGA_ID, layer.omega_fixed, layer.t, 1),
            "phi": SeedSpec(layer.seed, PHI_ID, layer.phi_fixed, layer.t, 1),
        }

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, c_in, H, W] to [N, c_out, H', W']."""
        s = self.seed_conv(x)
        seeds = s if self.seed_scale is None or self.seed_shift is None else s * self.seed_scale + self.seed_shift
        if not self.generated:
            return seeds
        views = self.sine(self.omega * (s.unsqueeze(-3) + self.phi)).flatten(-4, -3)  # [N, c_seed * t, H', W']
        return torch.cat([seeds, self.align(views)[:, : self.generated]], dim=1)


def _align(layer: SineFMConv2d, align: nn.Conv2d, scale: Tensor, shift: Tensor) -> nn.Conv2d:
    """Fold the views' norms before the 1x1 convolution and ``scale``, ``shift`` [c_gen] after it into its weights."""
    wide, times = align.out_channels, align.out_channels // layer.seed_channels
    inner = [affine_of(norm, layer.seed_channels) for norm in layer.norms]  # type: ignore[arg-type]
    in_scale, in_shift = (torch.stack(part, 1).repeat_interleave(times, 0) for part in zip(*inner, strict=True))
    out_scale, out_shift = torch.ones(wide).double(), torch.zeros(wide).double()
    out_scale[: len(scale)], out_shift[: len(shift)] = scale, shift
    weight = align.weight.detach().double()[:, :, 0, 0]  # [wide, t]
    folded = nn.Conv2d(align.in_channels, wide, 1, groups=align.groups)
    folded.weight = nn.Parameter((weight * in_scale * out_scale[:, None]).float()[:, :, None, None])
    folded.bias = nn.Parameter(((weight * in_shift).sum(1) * out_scale + out_shift).float())
    return folded


@dataclass(frozen=True)
class SineFMConfig(ConversionConfig):
    """Config of :class:`seedcnn.layers.SineFMConv2d`; the arguments are that layer's.

    Args:
        reduction_ratio: as in :class:`GroupNLConfig`.
        t, omega_range, phi_range: see the layer.
    """

    reduction_ratio: int = 2
    t: int = 5
    omega_range: tuple[float, float] = (1, 2)
    phi_range: tuple[float, float] = (1, 5)


def _sine_fm(config: SineFMConfig, conv: nn.Conv2d, width: int, seed: int) -> nn.Module:
    options = options_of(config) | {"seed_channels": share_of("reduction_ratio", config.reduction_ratio, width)}
    return SineFMConv2d(**conv_arguments(conv), **options, seed=seed)


register("sinefm", SineFMConfig, _sine_fm)
