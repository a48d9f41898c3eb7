"""Inference forms: the modules a folded network is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seedcnn.export.targets import SINES, Target
from seedcnn.layers import GroupNLConv2d, SineFMConv2d
from seedcnn.layers.group_nl import OMEGA_ID, PHI_ID, channel_shuffle, l2_normalize
from seedcnn.ops.group_nl import NLFS, nlf_index, triangle_wave
from seedcnn.rng import FixedPoint

__all__ = ["DepthwiseSum", "FoldedGroupNL", "SeedSpec", "affine_of", "seed_conv_of"]

# Functions of one affine argument u = W * z + B, which absorbs omega, phi and the undoing of the following norm; sine,
# which is one of them, is written as the target wants it.
_OF_AFFINE: dict[str, Callable[[Tensor], Tensor]] = {
    "triangle": triangle_wave,
    "gaussian": lambda u: torch.exp(-u.square()),
    "abs": torch.abs,
    "negate": torch.neg,
    "identity": lambda u: u,
}
# Beyond this the seed maps cannot be recovered from their normalised form to 1e-5 in float32.
_MAX_SHIFT_OVER_SCALE = 64.0
_STILL = 1e-4  # of a norm's eps: a smaller variance is rounding noise


@dataclass(frozen=True)
class SeedSpec:
    """How a fixed tensor is drawn again: ``count`` draws, each repeated ``repeat`` times in a row."""

    seed: int
    tensor_id: int
    fixed: FixedPoint
    count: int
    repeat: int


def affine_of(norm: nn.BatchNorm2d | None, channels: int) -> tuple[Tensor, Tensor]:
    """A BatchNorm in eval mode as scale and shift, both [channels] in float64; ones and zeros for None.

    A channel that never varied in training has nothing to scale: its scale is 1, not the root of 1 / eps, which would
    leave numbers in the folded weights that are of no use and spoil the grid of all others.
    """
    if norm is None:
        return torch.ones(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a BatchNorm without running statistics cannot be folded")
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.affine:
        scale = scale * norm.weight.detach().double()
    scale = torch.where(norm.running_var <= _STILL * norm.eps, 1.0, scale)
    shift = -norm.running_mean.double() * scale
    return scale, shift + norm.bias.detach().double() if norm.affine else shift


class DepthwiseSum(nn.Module):
    """A grouped convolution with one output per group, as a depthwise convolution and a sum over each group's inputs.

    The same function as ``conv`` (groups == out_channels), and several times faster in most runtimes.

    Args:
        conv: the grouped convolution.
        sums: one of :data:`seedcnn.export.targets.SUMS`.
    """

    def __init__(self, conv: nn.Conv2d, sums: str = "rows") -> None:
        super().__init__()
        self.sums, self.outputs = sums, conv.out_channels
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
        y = self._sum_by_rows(y) if self.sums == "rows" else self._sum_by_convolution(y)
        return y if self.bias is None else y + self.bias

    def _sum_by_rows(self, y: Tensor) -> Tensor:
        height, width = y.shape[2], y.shape[3]
        stacked = y.reshape(y.shape[0], self.outputs, self.per_output * height, width)
        total = stacked[:, :, :height]
        for index in range(1, self.per_output):
            total = total + stacked[:, :, index * height : (index + 1) * height]
        return total

    def _sum_by_convolution(self, y: Tensor) -> Tensor:
        block = _block(self.outputs)
        inputs = torch.arange(block * self.per_output, device=y.device) // self.per_output
        ones = (inputs == torch.arange(block, device=y.device)[:, None]).to(y.dtype)  # [block, block * per_output]
        groups = self.outputs // block
        return F.conv2d(y, ones[:, :, None, None].repeat(groups, 1, 1, 1), groups=groups)


def _block(outputs: int) -> int:
    """How many sums a group of the 1x1 convolution makes: whole vectors of 16, and as few products with zero as can be.

    The smallest divisor of ``outputs`` that is a multiple of 16, else of 8, else all of them.
    """
    for unit in (16, 8):
        if outputs % unit == 0:
            return unit
    return outputs


def seed_conv_of(
    layer: GroupNLConv2d | SineFMConv2d, groups: int, scale: Tensor, shift: Tensor, target: Target
) -> nn.Module:
    """The layer's seed convolution followed by ``scale * s + shift`` per seed channel, as one module."""
    conv = nn.Conv2d(
        layer.in_channels,
        layer.seed_channels,
        layer.kernel_size,  # type: ignore[arg-type]
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        layer.dilation,  # type: ignore[arg-type]
        groups,
        padding_mode=layer.padding_mode,  # type: ignore[arg-type]
    )
    bias = torch.zeros_like(shift) if layer.bias is None else layer.bias.detach().double()
    conv.weight = nn.Parameter((layer.weight.detach().double() * scale[:, None, None, None]).float())
    conv.bias = nn.Parameter((bias * scale + shift).float())
    if groups == layer.seed_channels and layer.in_channels > layer.seed_channels:
        return DepthwiseSum(conv, target.sums)
    return conv


class FoldedGroupNL(nn.Module):
    """conv + GroupNL + BatchNorm in inference form: ``cat(z, A * f(W * z + B) + C)``.

    z is the seed convolution with the seeds' norm and the following norm's seed half folded in, ``z = a * s + c``; W
    and B undo that: ``W = omega / a`` and ``B = omega * (phi - c / a)`` for sine. They are computed from the fixed
    omega and phi and the learned a and c, which an exporter writes as operations on constants: the runtime does them
    once when it loads the graph, and the fixed numbers can travel as a seed. Where a is too small against c for this
    to be exact in float32, or the seeds are l2-normalised, nothing is absorbed: z = s, and a and c are applied to the
    seed half of the output.

    Args:
        layer: the layer, whose running statistics are used (eval mode).
        norm: the BatchNorm that follows it, or None.
        target: the runtime's form.
        absorb: whether the norm is absorbed, if it can be at all; None asks whether that is exact.

    Shape:
        [N, c_in, H, W] to [N, c_out, H', W'].
    """

    def __init__(
        self, layer: GroupNLConv2d, norm: nn.BatchNorm2d | None, target: Target, absorb: bool | None = None
    ) -> None:
        super().__init__()
        c_seed = layer.seed_channels
        seed_scale, seed_shift = affine_of(layer.norm, c_seed)
        scale, shift = affine_of(norm, layer.out_channels)
        a, c = scale[:c_seed], shift[:c_seed]
        self.l2 = layer.normalize == "l2"
        if absorb is None:
            absorb = bool((c.abs() <= _MAX_SHIFT_OVER_SCALE * a.abs()).all())
        self.absorbed = norm is not None and absorb and bool((a != 0).all()) and not self.l2
        if self.absorbed:
            seed_scale, seed_shift = seed_scale * a, seed_shift * a + c
        self.divisors = ("scale",) if self.absorbed else ()
        self.seed_conv = seed_conv_of(layer, layer.conv_groups, seed_scale, seed_shift, target)
        self.shuffle_groups = layer.conv_groups if layer.shuffle else 1
        self.nlf, self.nlf_groups = layer.nlf, layer.nlf_groups
        self.of_affine = SINES[target.sine] if self.nlf == "sine" else _OF_AFFINE.get(self.nlf)
        self.c_seed = c_seed
        self.scale = None if norm is None else _column(scale)  # a, then A: one tensor, which is one entry of a bundle
        self.shift = None if norm is None else _column(shift)  # c, then C
        source, block = nlf_index(c_seed, layer.out_channels, layer.nlf_groups)
        self.gathers = source.tolist() != list(range(c_seed))
        self.runs = _runs(source.tolist()) if target.spread == "concat" else None
        self.register_buffer("source", source, persistent=False)
        used = NLFS[layer.nlf].uses
        self.omega = _column(layer.omega.cpu()[block]) if "omega" in used else None
        self.phi = _column(layer.phi.cpu()[block]) if "phi" in used else None
        draws, repeat = layer.nlf_groups * layer.gamma, c_seed // layer.nlf_groups
        specs = {"omega": (OMEGA_ID, layer.omega_fixed), "phi": (PHI_ID, layer.phi_fixed)}
        # Numbers of a loaded public checkpoint have no seed: they travel as they are.
        self.seed_specs = {
            name: SeedSpec(layer.seed, *specs[name], draws, repeat) for name in used if layer.given is None
        }

    def _gather(self, x: Tensor, dim: int) -> Tensor:
        return x.index_select(dim, self.get_buffer("source")) if self.gathers else x

    def _spread(self, z: Tensor) -> Tensor:
        """The seed map of each generated channel."""
        if self.runs is None or not self.gathers:
            return self._gather(z, 1)
        return torch.cat([z[:, begin:end] for begin, end in self.runs], dim=1)

    def argument(self) -> tuple[Tensor | None, Tensor | None]:
        """W and B of a function of one affine argument, both [c_gen, 1, 1]; None stands for ones and zeros."""
        w, b = self._undo()
        if self.phi is not None:
            b = self.phi if b is None else self.phi + b
        if self.omega is not None:
            w = self.omega if w is None else self.omega * w
            b = None if b is None else self.omega * b
        return w, b

    def _undo(self) -> tuple[Tensor | None, Tensor | None]:
        """What gives back the seeds before the absorbed norm: scale and shift, both [c_gen, 1, 1]."""
        if not self.absorbed or self.scale is None or self.shift is None:
            return None, None
        a, c = (self._gather(part[: self.c_seed], 0) for part in (self.scale, self.shift))
        return a.reciprocal(), -(c / a)

    def generate(self, z: Tensor) -> Tensor:
        """The generated maps before A and C: [N, c_seed, H', W'] to [N, c_gen, H', W']."""
        u = self._spread(z)
        w, b = self._undo() if self.of_affine is None else self.argument()
        u = u if w is None else u * w
        u = u if b is None else u + b
        if self.of_affine is not None:
            return self.of_affine(u)
        zero = torch.zeros(1, 1, 1)
        omega, phi = (zero if fixed is None else fixed for fixed in (self.omega, self.phi))
        return NLFS[self.nlf].function(u, omega, phi)

    def seeds(self, x: Tensor) -> Tensor:
        """The seed maps z: [N, c_in, H, W] to [N, c_seed, H', W']."""
        if self.shuffle_groups > 1:
            x = channel_shuffle(x, self.shuffle_groups)
        z = self.seed_conv(x)
        return l2_normalize(z) if self.l2 else z

    def forward(self, x: Tensor) -> Tensor:
        """[N, c_in, H, W] to [N, c_out, H', W']."""
        z = self.seeds(x)
        generated = self.generate(z)
        if self.scale is not None and self.shift is not None:
            generated = generated * self.scale[self.c_seed :] + self.shift[self.c_seed :]
            if not self.absorbed:
                z = z * self.scale[: self.c_seed] + self.shift[: self.c_seed]
        return torch.cat([z, generated], dim=1)


def _runs(indices: list[int]) -> list[tuple[int, int]]:
    """Indices as runs of neighbours: (first, last + 1) of each."""
    runs: list[tuple[int, int]] = []
    for index in indices:
        if runs and runs[-1][1] == index:
            runs[-1] = (runs[-1][0], index + 1)
        else:
            runs.append((index, index + 1))
    return runs


def _column(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.float()[:, None, None].contiguous())
