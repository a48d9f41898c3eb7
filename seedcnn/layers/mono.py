"""MonoConv: learn one or a few seed filters and generate every filter of the layer from them by fixed functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seedcnn.layers._base import SeededConv2d, conv_like
from seedcnn.layers._checks import IntPair, check_positive, conv2d, require
from seedcnn.layers._draws import Fixed, fixed_range
from seedcnn.layers.families import ConversionConfig, conv_arguments, options_of, register
from seedcnn.layers.forms import SeedSpec, affine_of, geometry_of, with_norm
from seedcnn.layers.norms import GroupNorm
from seedcnn.layers.targets import Form
from seedcnn.ops.mono_filters import FGFS, generate_filters

__all__ = ["BETA_ID", "FGFS", "FoldedMono", "MonoConfig", "MonoConv2d", "generate_filters"]

BETA_ID = 0  # tensor id in the counter of the generator
_NORM_GROUPS = 16
_SPACES = ("element", "filter")
_EPS = {"element": 1e-5, "filter": 1e-16}


class MonoConv2d(SeededConv2d):
    """A convolution whose filters are all generated from a few learnable seed filters (MonoCNN, Sections 3.3 and 3.4).

    Filter o is ``f(seed filter o % n_seed, beta)`` with fixed beta, then standardised (Eq. 3, which the authors' code
    applies to the filter, not to the response map). No seed filter is used unchanged. beta is drawn from ``seed``;
    it is neither learned nor stored.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode: as in ``nn.Conv2d``.
        bias: as in ``nn.Conv2d``; with ``pointwise``, the 1x1 convolution has the bias.
        seed_filters: n_seed, number of learnable filters (1 if neither this nor ``exp_factor`` is given).
        exp_factor: fan-out of a seed filter, instead: n_seed = ceil(out_channels / exp_factor).
        fgf: "monomial" (sign(s) |s|^beta), "gaussian", "multiquadric", "inverse_quadric", "inverse_multiquadric"
            (Eq. 5-9), or "polynomial": the sum of ``terms`` monomials, each with its own exponents (the paper does not
            specify the coefficients; ours are 1).
        terms: number of monomials in the polynomial; must be 1 for every other function.
        beta_range: [low, high) of beta; low >= 1 for monomials, whose slope would otherwise be infinite at 0.
        beta_per: "element": one beta per (filter, input channel) pair, as in the authors' code; "filter": one per
            filter, as in the text.
        normalize: standardise each filter.
        eps: added to the standard deviation; by default 1e-5 for "element" and 1e-16 for "filter": high powers of
            small weights have standard deviations far below 1e-5, and such filters would vanish.
        pointwise: append GroupNorm(16), ReLU and a learnable 1x1 convolution, the form of the paper's Table 1.
        seed: the layer's own 64-bit seed.
        device, dtype: device and dtype of the weights; beta stays float32.

    Shape:
        [N, c_in, H, W] or [c_in, H, W] to [N, c_out, H', W'] or [c_out, H', W'], H' and W' as in ``nn.Conv2d``.

    Raises:
        ValueError: naming the argument, its value and the rule.
    """

    generates_filters = True
    beta: Tensor

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
        seed_filters: int | None = None,
        exp_factor: int | None = None,
        fgf: str = "monomial",
        terms: int = 1,
        beta_range: tuple[float, float] = (1, 7),
        beta_per: str = "element",
        normalize: bool = True,
        eps: float | None = None,
        pointwise: bool = False,
        seed: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        in_channels, out_channels = check_positive(in_channels=in_channels, out_channels=out_channels)
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, padding_mode, seed=seed)
        groups, terms = check_positive(groups=groups, terms=terms)
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
            if value % groups:
                raise ValueError(f"`{name}` (={value}) must be divisible by `groups` (={groups})")
        self.seed_filters = _count_seeds(out_channels, seed_filters, exp_factor)
        require("fgf", fgf, tuple(FGFS))
        require("beta_per", beta_per, _SPACES)
        if terms != 1 and fgf != "polynomial":
            raise ValueError(f"`terms` (={terms}) must be 1 unless `fgf` (={fgf!r}) is 'polynomial'")
        self.beta_fixed = fixed_range("beta_range", beta_range)
        if FGFS[fgf] is FGFS["monomial"] and beta_range[0] < 1:
            raise ValueError(f"`beta_range` (={beta_range!r}) must start at 1 or above for `fgf` (={fgf!r})")
        per_group = in_channels // groups
        self.groups, self.fgf, self.terms, self.beta_per = groups, fgf, terms, beta_per
        self.normalize, self.eps = normalize, _EPS[beta_per] if eps is None else eps
        if not self.eps >= 0:
            raise ValueError(f"`eps` (={eps!r}) must not be negative")
        self.weight = self.make_weight(self.seed_filters, per_group, device, dtype)
        fan_in = self.weight[0].numel()
        if normalize and fan_in < 2:
            raise ValueError(f"`normalize` must be False for filters of one element (`in_channels` (={in_channels}))")
        self.bias = self.make_bias(out_channels, fan_in, device, dtype) if bias and not pointwise else None
        self.norm: GroupNorm | None = None
        self.pointwise: nn.Conv2d | None = None
        if pointwise:
            if out_channels % _NORM_GROUPS:
                raise ValueError(
                    f"`out_channels` (={out_channels}) must be divisible by {_NORM_GROUPS} when `pointwise` is True"
                )
            self.norm = GroupNorm(_NORM_GROUPS, out_channels, device=device, dtype=dtype)
            self.pointwise = conv2d(out_channels, out_channels, 1, bias=bias, device=device, dtype=dtype)
        self.draw_fixed(self.weight.device)

    def fixed(self) -> dict[str, Fixed]:
        """Return beta, float32 [terms, c_out, c_in / groups or 1, 1, 1]."""
        per_filter = self.weight.shape[1] if self.beta_per == "element" else 1
        return {"beta": Fixed(BETA_ID, self.beta_fixed, (self.terms, self.out_channels, per_filter, 1, 1))}

    def nlf_evals(self, shape: tuple[int, ...]) -> int:  # noqa: ARG002
        """Count one per generated weight and term: every forward pass generates the filters."""
        return self.terms * self.out_channels * self.weight[0].numel()

    def folded(self, norm: nn.BatchNorm2d | None, form: Form) -> nn.Module:
        """Return a :class:`FoldedMono`, or an ``nn.Conv2d`` with its filters if ``form.mono`` is "expanded"."""
        core = FoldedMono(self, None if self.pointwise is not None else norm)
        body = _expanded(core) if form.mono == "expanded" else core
        if self.norm is None or self.pointwise is None:
            return body
        return nn.Sequential(body, FoldedGroupNorm(self.norm), nn.ReLU(), with_norm(self.pointwise, norm))

    def filters(self) -> Tensor:
        """Generate the filters [c_out, c_in / groups, kh, kw] in the weight's dtype, computed in float32 or wider."""
        made = generate_filters(
            self.weight, self.beta.to(self.weight.device), fgf=self.fgf, normalize=self.normalize, eps=self.eps
        )
        return made.to(self.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, c_in, H, W] to [N, c_out, H', W'], keeping channels_last and the autocast dtype."""
        y = self.convolve(x, self.filters(), self.bias, self.groups)
        if self.norm is not None and self.pointwise is not None:
            y = self.pointwise(torch.relu(self.norm(y)))
        return y

    def extra_repr(self) -> str:
        """Return the arguments that differ from the defaults."""
        text = f"{super().extra_repr()}, seed_filters={self.seed_filters}, fgf={self.fgf}, beta_per={self.beta_per}"
        if self.terms != 1:
            text += f", terms={self.terms}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is not None:
            text += ", bias=True"
        return text if self.normalize else f"{text}, normalize=False"


def _count_seeds(out_channels: int, seed_filters: int | None, exp_factor: int | None) -> int:
    if seed_filters is not None and exp_factor is not None:
        raise ValueError(f"give `seed_filters` (={seed_filters}) or `exp_factor` (={exp_factor}), not both")
    if exp_factor is not None:
        (exp_factor,) = check_positive(exp_factor=exp_factor)
        return -(-out_channels // exp_factor)
    count = 1 if seed_filters is None else seed_filters
    (count,) = check_positive(seed_filters=count)
    if count > out_channels:
        raise ValueError(f"`seed_filters` (={count}) must not exceed `out_channels` (={out_channels})")
    return count


class FoldedMono(nn.Module):
    """MonoConv + BatchNorm in inference form, with the filters generated in the graph.

    It computes ``conv(x, scale * generate(weight, beta)) + bias``. The part that depends on parameters alone is
    exported as operations on constants, which a runtime runs once when it loads the graph. Only the seed filters,
    beta's seed, and one scale and one bias per output channel travel.

    Args:
        layer: the layer; its pointwise part is left out.
        norm: the BatchNorm that follows it, or None.

    Shape:
        [N, c_in, H, W] to [N, c_out, H', W'].
    """

    def __init__(self, layer: MonoConv2d, norm: nn.BatchNorm2d | None) -> None:
        super().__init__()
        self.geometry, self.groups = geometry_of(layer), layer.groups
        self.rule: dict[str, Any] = {"fgf": layer.fgf, "normalize": layer.normalize, "eps": layer.eps}
        self.weight = nn.Parameter(layer.weight.detach().clone())
        self.beta = nn.Parameter(layer.beta.detach().cpu().clone())
        scale, shift = affine_of(norm, layer.out_channels)
        bias = shift if layer.bias is None else layer.bias.detach().double() * scale + shift
        self.scale = None if norm is None else nn.Parameter(scale.float()[:, None, None, None])
        self.bias = None if norm is None and layer.bias is None else nn.Parameter(bias.float())
        self.seed_specs = {"beta": SeedSpec(layer.seed, BETA_ID, layer.beta_fixed, layer.beta.numel(), 1)}

    def filters(self) -> Tensor:
        """Generate the filters, scaled by the norm: [c_out, c_in / groups, kh, kw]."""
        made = generate_filters(self.weight, self.beta, **self.rule)
        return made if self.scale is None else made * self.scale

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, c_in, H, W] to [N, c_out, H', W']."""
        return self.geometry.convolve(x, self.filters(), self.bias, self.groups)


class FoldedGroupNorm(nn.Module):
    """GroupNorm written out, because an exporter's own form would put extra constants in the graph.

    Shape:
        [N, C, H, W] to the same shape.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.num_groups, self.eps = norm.num_groups, norm.eps
        self.weight = nn.Parameter(norm.weight.detach()[:, None, None].clone())
        self.bias = nn.Parameter(norm.bias.detach()[:, None, None].clone())

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [N, C, H, W]."""
        y = x.unflatten(1, (self.num_groups, x.shape[1] // self.num_groups))
        y = y - y.mean((2, 3, 4), keepdim=True)
        y = y * (y.square().mean((2, 3, 4), keepdim=True) + self.eps).rsqrt()
        return y.flatten(1, 2) * self.weight + self.bias


def _expanded(core: FoldedMono) -> nn.Conv2d:
    rules = core.geometry
    conv = conv_like(rules, rules.in_channels, rules.out_channels, groups=core.groups, bias=core.bias is not None)
    conv.weight = nn.Parameter(core.filters().detach())
    if core.bias is not None:
        conv.bias = nn.Parameter(core.bias.detach())
    return conv


@dataclass(frozen=True)
class MonoConfig(ConversionConfig):
    """Config of :class:`seedcnn.layers.MonoConv2d`; the arguments are that layer's.

    Args:
        seed_filters: learnable filters per layer, at most the layer's output channels. The same number in every layer
            means a fan-out that doubles with the width: MonoCNN's {2, 4, 8, 16} over the widths 64, 128, 256, 512 is
            ``seed_filters=32``, and its Table 1 form is ``seed_filters=1, pointwise=True``, both with
            ``scope="stride1"`` for residual networks and ``scope="square"`` for VGG11.
        exp_factor: the same fan-out in every layer instead; it replaces ``seed_filters``.
        fgf, terms, beta_range, beta_per, normalize, eps, pointwise: see the layer.
    """

    seed_filters: int = 1
    exp_factor: int | None = None
    fgf: str = "monomial"
    terms: int = 1
    beta_range: tuple[float, float] = (1, 7)
    beta_per: str = "element"
    normalize: bool = True
    eps: float | None = None
    pointwise: bool = False

    def check_fields(self) -> None:
        """Refuse what the layer does not know, and what it ignores."""
        self.one_of("fgf", FGFS)
        self.one_of("beta_per", _SPACES)
        if self.exp_factor is not None:
            self.without_effect("seed_filters", f"with exp_factor={self.exp_factor}, which replaces it")
        if not self.normalize:
            self.without_effect("eps", "with normalize=False: it is added to the deviation that a filter is divided by")


def _mono(config: MonoConfig, conv: nn.Conv2d, width: int, seed: int) -> nn.Module:  # noqa: ARG001
    options = options_of(config)
    if config.exp_factor is not None:
        options["seed_filters"] = None
    elif config.seed_filters >= 1:
        options["seed_filters"] = min(config.seed_filters, conv.out_channels)
    return MonoConv2d(**conv_arguments(conv), **options, seed=seed)


register("mono", MonoConfig, _mono)
