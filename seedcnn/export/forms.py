"""Inference forms: the modules a folded network is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seedcnn.layers import GroupNLConv2d
from seedcnn.layers.group_nl import OMEGA_ID, PHI_ID
from seedcnn.ops.group_nl import nlf_index
from seedcnn.rng import FixedPoint

__all__ = ["DepthwiseSum", "FoldedGroupNL", "GeneratorAffine", "SeedSpec", "affine_of", "seed_conv_of"]

_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {"sine": torch.sin, "abs": torch.abs, "identity": lambda u: u}
# Beyond this the seed maps cannot be recovered from their normalised form to 1e-5 in float32.
_MAX_SHIFT_OVER_SCALE = 64.0


@dataclass(frozen=True)
class SeedSpec:
    """How a fixed tensor is drawn again: ``count`` draws, each repeated ``repeat`` times in a row."""

    seed: int
    tensor_id: int
    fixed: FixedPoint
    count: int
    repeat: int


@dataclass(frozen=True)
class GeneratorAffine:
    """What W and B of ``f(W * z + B)`` are made of, so that an exporter can write them as constants of the graph.

    ``u = z``, or ``u = (z - c) / a`` when the following norm's seed half was absorbed into z; then ``W u' + B`` equals
    ``omega * (u + phi)`` for sine, ``u + phi`` for abs and ``u`` for identity.

    Attributes:
        omega, phi: fixed numbers, float32 [c_gen, 1, 1], or None where the function has none.
        a, c: the absorbed scale and shift, float32 [c_seed, 1, 1], or None.
        source: seed channel of each generated channel, or None where generated channel k comes from seed channel k.
        seeds: how omega and phi are drawn again, by name.
    """

    omega: Tensor | None
    phi: Tensor | None
    a: Tensor | None
    c: Tensor | None
    source: list[int] | None
    seeds: dict[str, SeedSpec]

    def compute(self) -> tuple[Tensor | None, Tensor | None]:
        """W and B, both float32 [c_gen, 1, 1], or None where they are one or zero."""
        w, b = self.omega, self.phi
        if self.a is not None and self.c is not None:
            a, c = (self.a, self.c) if self.source is None else (self.a[self.source], self.c[self.source])
            w = a.reciprocal() if self.omega is None else self.omega / a
            b = -(c / a) if self.phi is None else self.phi - c / a
        if self.omega is not None and b is not None:
            b = self.omega * b
        return w, b


def affine_of(norm: nn.BatchNorm2d | None, channels: int) -> tuple[Tensor, Tensor]:
    """A BatchNorm in eval mode as scale and shift, both [channels] in float64; ones and zeros for None."""
    if norm is None:
        return torch.ones(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a BatchNorm without running statistics cannot be folded")
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    shift = -norm.running_mean.double() * scale
    if norm.affine:
        scale, shift = scale * norm.weight.detach().double(), shift * norm.weight.detach().double()
        shift = shift + norm.bias.detach().double()
    return scale, shift


class DepthwiseSum(nn.Module):
    """A grouped convolution with one output per group, as a depthwise convolution and a sum over each group's inputs.

    The same function as ``conv`` (groups == out_channels), and several times faster in most runtimes.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.per_output = conv.in_channels // conv.out_channels
        self.depthwise = nn.Conv2d(
            conv.in_channels,
            conv.in_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            conv.stride,  # type: ignore[arg-type]
            conv.padding,  # type: ignore[arg-type]
            conv.dilation,  # type: ignore[arg-type]
            conv.in_channels,
            bias=False,
            padding_mode=conv.padding_mode,
        )
        self.depthwise.weight = nn.Parameter(conv.weight.detach().reshape(self.depthwise.weight.shape))
        self.bias = nn.Parameter(conv.bias.detach()[:, None, None]) if conv.bias is not None else None

    def forward(self, x: Tensor) -> Tensor:
        """[N, c_in, H, W] to [N, c_out, H', W']."""
        y = self.depthwise(x)
        y = y.unflatten(1, (y.shape[1] // self.per_output, self.per_output)).sum(2)
        return y if self.bias is None else y + self.bias


def seed_conv_of(layer: GroupNLConv2d, scale: Tensor, shift: Tensor) -> nn.Module:
    """The layer's seed convolution followed by ``scale * s + shift`` per seed channel, as one module."""
    conv = nn.Conv2d(
        layer.in_channels,
        layer.seed_channels,
        layer.kernel_size,  # type: ignore[arg-type]
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        layer.dilation,  # type: ignore[arg-type]
        layer.conv_groups,
        padding_mode=layer.padding_mode,  # type: ignore[arg-type]
    )
    bias = torch.zeros_like(shift) if layer.bias is None else layer.bias.detach().double()
    conv.weight = nn.Parameter((layer.weight.detach().double() * scale[:, None, None, None]).float())
    conv.bias = nn.Parameter((bias * scale + shift).float())
    if layer.conv_groups == layer.seed_channels and layer.in_channels > layer.seed_channels:
        return DepthwiseSum(conv)
    return conv


class FoldedGroupNL(nn.Module):
    """conv + GroupNL + BatchNorm in inference form: ``cat(z, A * f(W * z + B) + C)``.

    z is the seed convolution with the seeds' norm and the following norm's seed half folded in, ``z = a * s + c``; W
    and B undo that (:class:`GeneratorAffine`). Where a is too small against c for that to be exact in float32,
    nothing is absorbed: z = s, and a and c are applied to the seed half of the output.

    Args:
        layer: the layer, whose running statistics are used (eval mode).
        norm: the BatchNorm that follows it, or None.

    Shape:
        [N, c_in, H, W] to [N, c_out, H', W'].
    """

    def __init__(self, layer: GroupNLConv2d, norm: nn.BatchNorm2d | None) -> None:
        super().__init__()
        c_seed = layer.seed_channels
        seed_scale, seed_shift = affine_of(layer.norm, c_seed)
        scale, shift = affine_of(norm, layer.out_channels)
        a, c = scale[:c_seed], shift[:c_seed]
        absorb = norm is not None and bool((c.abs() <= _MAX_SHIFT_OVER_SCALE * a.abs()).all() and (a != 0).all())
        if absorb:
            self.seed_conv = seed_conv_of(layer, seed_scale * a, seed_shift * a + c)
        else:
            self.seed_conv = seed_conv_of(layer, seed_scale, seed_shift)
        self.function = _FUNCTIONS[layer.nlf]
        self.affine = _generator_affine(layer, a if absorb else None, c if absorb else None)
        w, b = self.affine.compute()
        self.w = None if w is None else nn.Parameter(w)
        self.b = None if b is None else nn.Parameter(b)
        has_affine, keeps_seeds = norm is not None, norm is not None and not absorb
        self.gen_scale = nn.Parameter(_column(scale[c_seed:])) if has_affine else None
        self.gen_shift = nn.Parameter(_column(shift[c_seed:])) if has_affine else None
        self.seed_scale = nn.Parameter(_column(a)) if keeps_seeds else None
        self.seed_shift = nn.Parameter(_column(c)) if keeps_seeds else None

    def forward(self, x: Tensor) -> Tensor:
        """[N, c_in, H, W] to [N, c_out, H', W']."""
        z = self.seed_conv(x)
        u = z if self.affine.source is None else z[:, self.affine.source]
        u = u if self.w is None else u * self.w
        u = u if self.b is None else u + self.b
        generated = self.function(u)
        if self.gen_scale is not None and self.gen_shift is not None:
            generated = generated * self.gen_scale + self.gen_shift
        if self.seed_scale is not None and self.seed_shift is not None:
            z = z * self.seed_scale + self.seed_shift
        return torch.cat([z, generated], dim=1)


def _column(values: Tensor) -> Tensor:
    return values.float()[:, None, None].contiguous()


def _generator_affine(layer: GroupNLConv2d, a: Tensor | None, c: Tensor | None) -> GeneratorAffine:
    source, block = nlf_index(layer.seed_channels, layer.out_channels, layer.nlf_groups)
    fixed: dict[str, Tensor | None] = {"omega": None, "phi": None}
    seeds = {}
    ids = {"omega": (OMEGA_ID, layer.omega_fixed, layer.omega), "phi": (PHI_ID, layer.phi_fixed, layer.phi)}
    for name in {"sine": ("omega", "phi"), "abs": ("phi",), "identity": ()}[layer.nlf]:
        tensor_id, bounds, drawn = ids[name]
        fixed[name] = _column(drawn.cpu()[block])
        count, repeat = layer.nlf_groups * layer.gamma, layer.seed_channels // layer.nlf_groups
        seeds[name] = SeedSpec(layer.seed, tensor_id, bounds, count, repeat)
    same = source.tolist() == list(range(layer.seed_channels))
    return GeneratorAffine(
        fixed["omega"],
        fixed["phi"],
        None if a is None else _column(a),
        None if c is None else _column(c),
        None if same else source.tolist(),
        seeds,
    )
