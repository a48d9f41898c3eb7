"""GroupNL: learn a few seed filters and generate the other channels by grouped nonlinear functions of their maps."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from seedcnn import rng
from seedcnn.layers._base import SeededConv2d
from seedcnn.layers._checks import IntPair, check_divisible, check_positive, require
from seedcnn.layers._draws import Fixed, fixed_range
from seedcnn.layers.families import ConversionConfig, conv_arguments, register, share_of
from seedcnn.layers.forms import affine_of, seed_conv_of, still_channels
from seedcnn.layers.group_nl_form import FoldedGroupNL
from seedcnn.layers.norms import BatchNorm2d
from seedcnn.layers.targets import Form
from seedcnn.ops.channels import channel_shuffle, l2_normalize
from seedcnn.ops.group_nl import NLFS, group_nl

__all__ = ["NORMALIZE", "OMEGA_ID", "PHI_ID", "SAVES", "VARIANTS", "GroupNLConfig", "GroupNLConv2d"]

NORMALIZE = ("none", "batch", "l2")
VARIANTS = ("paper", "reference")
SAVES = ("output", "seeds")
_PAPER_PHI = (1.0, 5.0)
OMEGA_ID, PHI_ID = 0, 1  # tensor ids in the counter of the generator


def check_dense(conv: nn.Conv2d, layer: GroupNLConv2d) -> None:
    """Raise ``ValueError`` unless ``conv`` is a dense convolution with the layer's shape."""
    expected = (layer.out_channels, layer.in_channels, *layer.kernel_size)
    if conv.groups != 1 or tuple(conv.weight.shape) != expected:
        raise ValueError(f"`conv` ({conv}) has weight {tuple(conv.weight.shape)}; the layer needs {expected}, groups=1")


class GroupNLConv2d(SeededConv2d):
    """A convolution that computes ``seed_channels`` maps and generates the rest (GroupNL, Section 3, Algorithm 1).

    ``s = conv(x)`` has c_seed channels in g groups; group i gives gamma = ceil(c_out / c_seed) - 1 generated blocks
    ``f(s_i; omega_ij, phi_ij)``, for sine ``sin(omega * (s + phi))``; the output is ``cat[s, generated]``, cropped to
    c_out channels. omega and phi are g * gamma fixed numbers each, drawn from ``seed``; they are not learned.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode: as in
            ``nn.Conv2d``; ``groups`` are the groups of the seed convolution, ``bias`` has ``seed_channels`` elements.
        reduction_ratio: r; seed_channels = ceil(out_channels / r).
        seed_channels: c_seed, instead of ``reduction_ratio``; must be a multiple of ``nlf_groups``.
        nlf_groups: g, the number of groups with their own hyperparameters.
        nlf: a key of :data:`seedcnn.ops.group_nl.NLFS`.
        sparse: use gcd(in_channels, seed_channels) groups in the seed convolution.
        omega_range, phi_range: [low, high) of the fixed numbers; monomial exponents must be at least 1.
        normalize: normalisation of the seed maps, before both branches: "none" (the paper), "batch" (BatchNorm; folds
            away at export) or "l2" (each pixel's channel vector to length one, as the public code does).
        shuffle: shuffle channels before a grouped seed convolution, so that groups see each other's channels.
        variant: "paper" or "reference". "reference" is the public code: always l2 normalisation, phi = -shift with
            shifts drawn from ``omega_range`` (its ``phi_range`` never had an effect), and a state_dict with that
            code's keys ``conv1.weight``, ``periods`` and ``shifts``, whose numbers replace the drawn ones when loaded.
        save: what eager mode keeps for the backward pass besides the input: "output" (free if a norm follows, which
            keeps it too; nothing may change it in place) or "seeds" (1 / r of its size; for a layer directly followed
            by an in-place activation). The function stays the same.
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
        nlf_groups: int = 4,
        nlf: str = "sine",
        sparse: bool = False,
        omega_range: tuple[float, float] = (1, 2),
        phi_range: tuple[float, float] = (1, 5),
        normalize: str = "none",
        shuffle: bool = False,
        variant: str = "paper",
        save: str = "output",
        seed: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        in_channels, out_channels = check_positive(in_channels=in_channels, out_channels=out_channels)
        reduction_ratio, nlf_groups, groups = check_positive(
            reduction_ratio=reduction_ratio, nlf_groups=nlf_groups, groups=groups
        )
        if seed_channels is None:
            seed_channels = -(-out_channels // reduction_ratio)
        (seed_channels,) = check_positive(seed_channels=seed_channels)
        if seed_channels > out_channels:
            raise ValueError(f"`seed_channels` (={seed_channels}) must not exceed `out_channels` (={out_channels})")
        check_divisible("seed_channels", seed_channels, "nlf_groups", nlf_groups)
        require("nlf", nlf, tuple(NLFS))
        require("normalize", normalize, NORMALIZE)
        require("variant", variant, VARIANTS)
        require("save", save, SAVES)
        if sparse and groups != 1:
            raise ValueError(f"`groups` (={groups}) must be 1 when `sparse` is True, which chooses the groups itself")
        if variant == "reference" and shuffle:
            raise ValueError(
                f"`shuffle` (={shuffle!r}) must be False for the reference variant: the public code shuffles the "
                "generated channels, not the input of the seed convolution"
            )
        if variant == "reference" and (nlf != "sine" or normalize == "batch"):
            raise ValueError(f"`nlf` (={nlf!r}), `normalize` (={normalize!r}): the reference variant is sine with l2")
        if nlf == "monomial" and not omega_range[0] >= 1:
            raise ValueError(
                f"`omega_range` (={omega_range!r}) must not go below 1: a monomial's gradient at 0 would blow up"
            )
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, padding_mode, seed=seed)
        conv_groups = math.gcd(in_channels, seed_channels) if sparse else groups
        check_divisible("in_channels", in_channels, "groups", conv_groups)
        check_divisible("seed_channels", seed_channels, "groups", conv_groups)
        self.seed_channels, self.conv_groups, self.shuffle = seed_channels, conv_groups, shuffle
        self.gamma = -(-out_channels // seed_channels) - 1
        self.nlf_groups, self.nlf, self.variant, self.save = nlf_groups, nlf, variant, save
        self.normalize = "l2" if variant == "reference" else normalize
        self.omega_fixed = fixed_range("omega_range", omega_range)
        self.phi_fixed = fixed_range("phi_range", phi_range)
        if variant == "reference":  # phi = -shift, shifts in omega_range
            self.phi_fixed = fixed_range("omega_range", (-omega_range[1], -omega_range[0]))
        self.given: tuple[Tensor, Tensor] | None = None  # numbers of a loaded public checkpoint instead of drawn ones
        self.weight = self.make_weight(seed_channels, in_channels // conv_groups, device, dtype)
        fan_in = self.weight[0].numel()
        self.bias = self.make_bias(seed_channels, fan_in, device, dtype) if bias else None
        self.norm = BatchNorm2d(seed_channels, device=device, dtype=dtype) if normalize == "batch" else None
        self.draw_fixed(self.weight.device)

    @property
    def generated_channels(self) -> int:
        """c_gen = out_channels - seed_channels."""
        return self.out_channels - self.seed_channels

    def fixed(self) -> dict[str, Fixed]:
        """Return omega and phi, float32 [nlf_groups * gamma]."""
        shape = (self.nlf_groups * self.gamma,)
        return {
            "omega": Fixed(OMEGA_ID, self.omega_fixed, shape),
            "phi": Fixed(PHI_ID, self.phi_fixed, shape),
        }

    def draw_fixed(self, device: torch.device) -> None:
        """Draw omega and phi from ``self.seed``, or use those of a loaded public checkpoint."""
        if self.given is None:
            super().draw_fixed(device)
        else:
            self.omega, self.phi = (numbers.to(device) for numbers in self.given)

    def inner_widths(self) -> tuple[int, ...]:
        """Return the seed channels."""
        return (self.seed_channels,)

    def nlf_evals(self, shape: tuple[int, ...]) -> int:
        """Count one per generated element if the function has hyperparameters, else none."""
        return self.generated_channels * shape[-2] * shape[-1] if NLFS[self.nlf].uses else 0

    @torch.no_grad()
    def start_from(self, conv: nn.Conv2d) -> None:
        """Copy dense filter k into seed channel k, so that the following layers still fit the seed channels.

        A grouped seed convolution keeps only the input channels it sees. For a whole network,
        :func:`seedcnn.convert.seed_from_dense_` does better.

        Raises:
            ValueError: if the convolution has groups or its shape differs from the layer's.
        """
        check_dense(conv, self)
        self.weight.copy_(self.fitting(conv.weight[: self.seed_channels]))
        if self.bias is not None and conv.bias is not None:
            self.bias.copy_(conv.bias[: self.seed_channels])

    def fitting(self, weight: Tensor) -> Tensor:
        """Cut dense filters [c_seed, c_in, kh, kw] to the input channels that a grouped seed convolution sees."""
        seen, rows = self.in_channels // self.conv_groups, self.seed_channels // self.conv_groups
        parts = [weight[i * rows : (i + 1) * rows, i * seen : (i + 1) * seen] for i in range(self.conv_groups)]
        return torch.cat(parts)

    def use_norm_after(self, norm: bool) -> None:
        """Keep the output for the backward pass if a norm keeps it anyway, else the seeds."""
        self.save = "output" if norm else "seeds"

    def folded(self, norm: nn.BatchNorm2d | None, form: Form) -> nn.Module:
        """Return a :class:`FoldedGroupNL`, or a plain convolution if nothing is generated."""
        if self.gamma == 0 and self.normalize != "l2" and not self.shuffle:
            scale, shift = affine_of(self.norm, self.out_channels)
            outer_scale, outer_shift = affine_of(norm, self.out_channels)
            scale, shift = scale * outer_scale, shift * outer_scale + outer_shift
            still = still_channels(self.norm, self.out_channels)
            return seed_conv_of(self, self.conv_groups, scale, shift, form.target, still)
        return FoldedGroupNL(self, norm, form)

    def normalized_seeds(self, x: Tensor) -> Tensor:
        """Compute the normalised seed maps: [..., c_in, H, W] to [..., c_seed, H', W']."""
        if self.shuffle and self.conv_groups > 1:
            x = channel_shuffle(x, self.conv_groups)
        seeds = self.convolve(x, self.weight, self.bias, self.conv_groups)
        if self.norm is not None:
            return self.norm(seeds)
        return l2_normalize(seeds) if self.normalize == "l2" else seeds

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, c_in, H, W] to [N, c_out, H', W'], keeping channels_last and the autocast dtype."""
        seeds = self.normalized_seeds(x)
        if self.gamma == 0:
            return seeds
        return group_nl(
            seeds,
            self.omega.to(seeds.device),
            self.phi.to(seeds.device),
            nlf_groups=self.nlf_groups,
            out_channels=self.out_channels,
            nlf=self.nlf,
            save=self.save,
        )

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.variant == "reference":
            del destination[prefix + "seed"]
            for name in ("weight", "bias"):
                if prefix + name in destination:
                    destination[f"{prefix}conv1.{name}"] = destination.pop(prefix + name)
            destination[prefix + "periods"], destination[prefix + "shifts"] = self.omega.clone(), -self.phi

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if self.variant == "reference":
            state_dict[prefix + "seed"] = torch.tensor(rng.to_int64(self.seed))  # the public code stores none
            for name in ("weight", "bias"):
                if f"{prefix}conv1.{name}" in state_dict:
                    state_dict[prefix + name] = state_dict.pop(f"{prefix}conv1.{name}")
            numbers = [state_dict.pop(prefix + name, None) for name in ("periods", "shifts")]
            count, missing, messages = self.nlf_groups * self.gamma, rest[2], rest[4]
            missing += [prefix + name for name, n in zip(("periods", "shifts"), numbers, strict=True) if n is None]
            if any(n is not None and n.numel() != count for n in numbers):
                messages.append(f"{prefix}periods and shifts must hold {count} numbers each")
            elif None not in numbers:
                omega, shifts = (n.detach().float().cpu().flatten() for n in numbers)
                self.given = (omega, -shifts)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        """Return the arguments that differ from the defaults."""
        text = f"{super().extra_repr()}, seed_channels={self.seed_channels}, nlf_groups={self.nlf_groups}"
        if self.conv_groups != 1:
            text += f", groups={self.conv_groups}"
        if self.bias is not None:
            text += ", bias=True"
        if self.shuffle:
            text += ", shuffle=True"
        if self.variant != "paper":
            text += f", variant={self.variant}"
        if self.save != "output":
            text += f", save={self.save}"
        return f"{text}, nlf={self.nlf}, normalize={self.normalize}"


@dataclass(frozen=True)
class GroupNLConfig(ConversionConfig):
    """Config of :class:`seedcnn.layers.GroupNLConv2d`; the arguments are that layer's.

    The defaults are the form that learns best (docs/adr/0009): normalised seeds, absolute values with shifts around
    zero. The layer's own defaults, and :meth:`paper`, are the paper's form.

    Args:
        reduction_ratio: r; c_seed = c_out / r of the block's spatial convolutions (GroupNL Tables 3 and 4).
        sparse: use gcd(c_in, c_seed) groups in the seed convolution.
        groups: groups of the seed convolution, between dense (1) and sparse; a layer uses the greatest common divisor
            of this, c_in and c_seed.
        nlf_groups, nlf, omega_range, phi_range, normalize, shuffle, variant: see the layer.
    """

    reduction_ratio: int = 2
    sparse: bool = False
    groups: int = 1
    nlf_groups: int = 4
    nlf: str = "abs"
    omega_range: tuple[float, float] = (1, 2)
    phi_range: tuple[float, float] = (-0.5, 0.5)
    normalize: str = "batch"
    shuffle: bool = False
    variant: str = "paper"

    def check_fields(self) -> None:
        """Refuse what the layer does not know, and what it ignores."""
        self.one_of("nlf", NLFS)
        self.one_of("normalize", NORMALIZE)
        self.one_of("variant", VARIANTS)
        if self.sparse:
            self.without_effect("groups", "with sparse=True, which chooses the groups itself")
        if self.variant == "reference":
            self.without_effect("phi_range", "in the variant 'reference', whose shifts follow omega_range", _PAPER_PHI)
        if "omega" not in NLFS[self.nlf].uses:
            self.without_effect("omega_range", f"with nlf {self.nlf!r}, which has no omega")
        if "phi" not in NLFS[self.nlf].uses:
            self.without_effect("phi_range", f"with nlf {self.nlf!r}, which has no phi", _PAPER_PHI)

    def for_depthwise(self) -> GroupNLConfig:
        """Return the sparse form: a dense seed convolution would cost far more than the depthwise one it replaces."""
        return replace(self, sparse=True, groups=1)

    @classmethod
    def paper(cls, **options: Any) -> GroupNLConfig:
        """Return the form of GroupNL, Section 3: sine, omega in [1, 2), phi in [1, 5), unnormalised seeds.

        It needs a learning rate about thirty times smaller than the other forms, and learns less well (docs/worth.md).

        Args:
            options: fields that override these.
        """
        return cls(**({"nlf": "sine", "phi_range": _PAPER_PHI, "normalize": "none"} | options))


def _group_nl(config: GroupNLConfig, conv: nn.Conv2d, width: int, seed: int) -> nn.Module:
    seed_channels = share_of("reduction_ratio", config.reduction_ratio, width)
    groups = 1 if config.sparse else math.gcd(config.groups, conv.in_channels, seed_channels)
    return GroupNLConv2d(
        **conv_arguments(conv),
        groups=groups,
        seed_channels=seed_channels,
        nlf_groups=config.nlf_groups,
        nlf=config.nlf,
        sparse=config.sparse,
        omega_range=config.omega_range,
        phi_range=config.phi_range,
        normalize=config.normalize,
        shuffle=config.shuffle,
        variant=config.variant,
        seed=seed,
    )


register("groupnl", GroupNLConfig, _group_nl, {"groupnl-paper": GroupNLConfig.paper})
