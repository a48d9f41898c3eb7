"""MonoConv: learn one or a few seed filters, generate every filter of the layer from them by fixed functions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from seedcnn.layers._base import SeededConv2d
from seedcnn.layers._checks import IntPair, check_positive, conv2d, require
from seedcnn.layers._draws import draw, fixed_range
from seedcnn.layers._norms import GroupNorm
from seedcnn.ops.mono_filters import FGFS, generate_filters

__all__ = ["BETA_ID", "FGFS", "MonoConv2d", "generate_filters"]

BETA_ID = 0  # tensor id in the counter of the generator
_NORM_GROUPS = 16
_SPACES = ("element", "filter")
_EPS = {"element": 1e-5, "filter": 1e-16}


class MonoConv2d(SeededConv2d):
    """A convolution whose filters are all generated from a few learnable seed filters (MonoCNN, Sections 3.3 and 3.4).

    Filter o is ``f(seed filter o % n_seed, beta)`` with fixed beta, then standardised (Eq. 3, which the authors' code
    applies to the filter, not to the response map). No seed filter is used as it is. beta is drawn from ``seed``; it is
    neither learned nor stored.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode: as in ``nn.Conv2d``.
        bias: as in ``nn.Conv2d``; with ``pointwise`` it is the 1x1 convolution's.
        seed_filters: n_seed, number of learnable filters (1 where neither this nor ``exp_factor`` is given).
        exp_factor: fan-out of a seed filter instead: n_seed = ceil(out_channels / exp_factor).
        fgf: "monomial" (sign(s) |s|^beta), "gaussian", "multiquadric", "inverse_quadric", "inverse_multiquadric"
            (Eq. 5-9), or "polynomial": the sum of ``terms`` monomials with exponents of their own (the paper leaves
            the coefficients open; ours are 1).
        terms: of the polynomial; 1 in every other function.
        beta_range: [low, high) of beta; low >= 1 for monomials, whose slope would be infinite at 0.
        beta_per: "element": one beta for each (filter, input channel) pair, as in the authors' code; "filter": one for
            each filter, as in the text.
        normalize: standardise each filter.
        eps: added to the standard deviation; 1e-5 for "element" and 1e-16 for "filter" where not given: high powers of
            small weights have standard deviations far below 1e-5, and such filters would vanish.
        pointwise: append GroupNorm(16), ReLU and a learnable 1x1 convolution, the form of the paper's Table 1.
        seed: the layer's own 64-bit seed.
        device, dtype: of the weights; beta stays float32.

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
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, padding_mode, seed=seed)
        check_positive(groups=groups, terms=terms)
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

    def draw_fixed(self, device: torch.device) -> None:
        """Draw beta, float32 [terms, c_out, c_in / groups or 1, 1, 1], from ``self.seed`` (seedcnn-rng/1)."""
        per_filter = self.weight.shape[1] if self.beta_per == "element" else 1
        shape = (self.terms, self.out_channels, per_filter, 1, 1)
        self.beta = draw(self.seed, self.beta_fixed, BETA_ID, shape, device)

    def filters(self) -> Tensor:
        """The generated filters [c_out, c_in / groups, kh, kw] in the weight's dtype; computed in float32 at least."""
        made = generate_filters(self.weight, self.beta, fgf=self.fgf, normalize=self.normalize, eps=self.eps)
        return made.to(self.weight.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """[N, c_in, H, W] to [N, c_out, H', W']; channels_last and the autocast dtype are kept."""
        y = self.convolve(x, self.filters(), self.bias, self.groups)
        if self.norm is not None and self.pointwise is not None:
            y = self.pointwise(torch.relu(self.norm(y)))
        return y

    def extra_repr(self) -> str:
        """Arguments that differ from the defaults."""
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
        check_positive(exp_factor=exp_factor)
        return -(-out_channels // exp_factor)
    count = 1 if seed_filters is None else seed_filters
    check_positive(seed_filters=count)
    if count > out_channels:
        raise ValueError(f"`seed_filters` (={count}) must not exceed `out_channels` (={out_channels})")
    return count
