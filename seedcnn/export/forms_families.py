"""Inference forms of the families with fixed numbers other than GroupNL and mono, and of a norm that stands alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seedcnn.export.forms import SeedSpec, affine_of, seed_conv_of
from seedcnn.export.forms_mono import fold_mono, geometry_of, with_norm
from seedcnn.export.targets import SINES, Target
from seedcnn.layers import (
    LocalBinaryConv2d,
    MonoConv2d,
    PerturbativeConv2d,
    SeededConv2d,
    SineFMConv2d,
    local_binary,
    perturbative,
    sine_fm,
)
from seedcnn.layers._draws import draw

__all__ = ["ChannelAffine", "FoldedLocalBinary", "FoldedPerturbative", "FoldedSineFM", "fold_family"]


class ChannelAffine(nn.Module):
    """A BatchNorm in eval mode that could not be folded: ``scale * x + shift`` per channel."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        scale, shift = affine_of(norm, norm.num_features)
        self.scale = nn.Parameter(scale.float()[:, None, None])
        self.shift = nn.Parameter(shift.float()[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """[..., C, H, W] to the same shape."""
        return x * self.scale + self.shift


class FoldedLocalBinary(nn.Module):
    """Local binary convolution + BatchNorm; the ternary filters are made from seeded draws when the graph is loaded.

    Shape:
        [N, c_in, H, W] to [N, c_out, H', W'].
    """

    def __init__(self, layer: LocalBinaryConv2d, norm: nn.BatchNorm2d | None) -> None:
        super().__init__()
        self.geometry, self.groups, self.threshold = geometry_of(layer), layer.groups, layer.threshold
        self.before = nn.Identity() if layer.norm is None else ChannelAffine(layer.norm)
        shape, fixed = layer.fixed_shape, local_binary.DRAWS_RANGE
        draws = draw(layer.seed, fixed, local_binary.DRAWS_ID, shape, torch.device("cpu"))
        self.draws = nn.Parameter(draws)
        self.pointwise = with_norm(layer.pointwise, norm)
        self.seed_specs = {"draws": SeedSpec(layer.seed, local_binary.DRAWS_ID, fixed, draws.numel(), 1)}

    def forward(self, x: Tensor) -> Tensor:
        """[N, c_in, H, W] to [N, c_out, H', W']."""
        filters = local_binary.ternary(self.draws, self.threshold)
        return self.pointwise(torch.relu(self.geometry.convolve(self.before(x), filters, None, self.groups)))


class FoldedPerturbative(nn.Module):
    """Perturbative layer + BatchNorm; the mask is cut from the seeded tile when the graph is loaded.

    Shape:
        [N, c_in, H, W] to [N, c_out, H', W'].
    """

    def __init__(self, layer: PerturbativeConv2d, norm: nn.BatchNorm2d | None) -> None:
        super().__init__()
        self.noise = nn.Parameter(layer.noise.detach().cpu().clone())
        self.after = nn.Identity() if layer.norm is None else ChannelAffine(layer.norm)
        self.pointwise = with_norm(layer.pointwise, norm)
        spec = SeedSpec(layer.seed, perturbative.NOISE_ID, layer.noise_fixed, self.noise.numel(), 1)
        self.seed_specs = {"noise": spec}

    def forward(self, x: Tensor) -> Tensor:
        """[N, c_in, H, W] to [N, c_out, H', W']."""
        mask = perturbative.noise_of_size(self.noise, x.shape[-2], x.shape[-1])
        return self.pointwise(self.after(torch.relu(x + mask)))


class FoldedSineFM(nn.Module):
    """SineFM + BatchNorm: ``cat(A * s + C, align(sin(omega * (s + phi))))``, all norms folded into ``align``, A and C.

    Shape:
        [N, c_in, H, W] to [N, c_out, H', W'].
    """

    def __init__(self, layer: SineFMConv2d, norm: nn.BatchNorm2d | None, target: Target) -> None:
        super().__init__()
        self.sine = SINES[target.sine]
        c_seed = layer.seed_channels
        self.generated = layer.generated_channels
        self.seed_conv = seed_conv_of(layer, layer.groups, *affine_of(None, c_seed), target)
        scale, shift = affine_of(norm, layer.out_channels)
        self.seed_scale = None if norm is None else nn.Parameter(scale[:c_seed].float()[:, None, None])
        self.seed_shift = None if norm is None else nn.Parameter(shift[:c_seed].float()[:, None, None])
        if layer.align is None:
            return
        self.align = _align(layer, layer.align, scale[c_seed:], shift[c_seed:])
        self.omega = nn.Parameter(layer.omega.cpu()[:, None, None].clone())
        self.phi = nn.Parameter(layer.phi.cpu()[:, None, None].clone())
        self.seed_specs = {
            "omega": SeedSpec(layer.seed, sine_fm.OMEGA_ID, layer.omega_fixed, layer.t, 1),
            "phi": SeedSpec(layer.seed, sine_fm.PHI_ID, layer.phi_fixed, layer.t, 1),
        }

    def forward(self, x: Tensor) -> Tensor:
        """[N, c_in, H, W] to [N, c_out, H', W']."""
        s = self.seed_conv(x)
        seeds = s if self.seed_scale is None or self.seed_shift is None else s * self.seed_scale + self.seed_shift
        if not self.generated:
            return seeds
        views = self.sine(self.omega * (s.unsqueeze(-3) + self.phi)).flatten(-4, -3)  # [N, c_seed * t, H', W']
        return torch.cat([seeds, self.align(views)[:, : self.generated]], dim=1)


def _align(layer: SineFMConv2d, align: nn.Conv2d, scale: Tensor, shift: Tensor) -> nn.Conv2d:
    """The 1x1 convolution with the views' norms before it and ``scale``, ``shift`` [c_gen] after it folded in."""
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


def fold_family(layer: SeededConv2d, norm: nn.BatchNorm2d | None, mono: str, target: Target) -> nn.Module | None:
    """The inference form of a layer and the norm that follows it, or None for a family without one here.

    Args:
        mono: a key of :data:`seedcnn.export.forms_mono.MONO_FORMS`.
        target: the runtime's form.
    """
    if isinstance(layer, MonoConv2d):
        return fold_mono(layer, norm, mono)
    if isinstance(layer, SineFMConv2d):
        return FoldedSineFM(layer, norm, target)
    if isinstance(layer, LocalBinaryConv2d):
        return FoldedLocalBinary(layer, norm)
    return FoldedPerturbative(layer, norm) if isinstance(layer, PerturbativeConv2d) else None
