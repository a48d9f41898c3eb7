"""Filters generated from seed filters by fixed functions, with a gradient that keeps only the seeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["FGFS", "generate_filters"]

_AXES = (1, 2, 3)


def _monomial(s: Tensor, beta: Tensor) -> Tensor:
    # At s = 0 the slope is 0 for every beta >= 1, because sign(0) is 0, and autograd multiplies by it.
    return torch.sign(s) * torch.abs(s) ** beta


def _gaussian(s: Tensor, beta: Tensor) -> Tensor:
    t = torch.tanh((beta * s) ** 2 / 2)
    return -2 * t / (1 + t)  # exp(-u) - 1


def _multiquadric(s: Tensor, beta: Tensor) -> Tensor:
    u = (beta * s) ** 2
    return u / (1 + torch.sqrt(1 + u))  # sqrt(1 + u) - 1


def _inverse_quadric(s: Tensor, beta: Tensor) -> Tensor:
    u = (beta * s) ** 2
    return -u / (1 + u)  # 1 / (1 + u) - 1


def _inverse_multiquadric(s: Tensor, beta: Tensor) -> Tensor:
    u = (beta * s) ** 2
    root = torch.sqrt(1 + u)
    return -u / (root * (1 + root))  # 1 / sqrt(1 + u) - 1


FGFS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "monomial": _monomial,
    "gaussian": _gaussian,
    "multiquadric": _multiquadric,
    "inverse_quadric": _inverse_quadric,
    "inverse_multiquadric": _inverse_multiquadric,
    "polynomial": _monomial,
}
"""Filter generation functions of (seed, beta), MonoCNN Eq. 5-9; "polynomial" is the sum of several monomials.

Each function omits its value at 0, which standardising would subtract anyway. For the small weights of wide layers the
values of four of them are close to 1, and float32 would lose the difference.
"""
_AT_ZERO = {"gaussian": 1, "multiquadric": 1, "inverse_quadric": 1, "inverse_multiquadric": 1}


def _both(s: Tensor, beta: Tensor, fgf: str) -> tuple[Tensor, Tensor]:
    """A function of :data:`FGFS` and its derivative with respect to s; common subexpressions are computed once."""
    if FGFS[fgf] is _monomial:
        power = s.abs() ** (beta - 1)
        return s * power, beta * power * s.sign().square()
    u, slope = (beta * s) ** 2, beta.square() * s
    if fgf == "gaussian":
        return FGFS[fgf](s, beta), -2 * slope * torch.exp(-u)
    if fgf == "multiquadric":
        return FGFS[fgf](s, beta), slope * torch.rsqrt(1 + u)
    if fgf == "inverse_quadric":
        return FGFS[fgf](s, beta), -2 * slope / (1 + u).square()
    return FGFS[fgf](s, beta), -slope * torch.rsqrt(1 + u) / (1 + u)


def _tile(seeds: Tensor, count: int) -> Tensor:
    return seeds.repeat(-(-count // seeds.shape[0]), 1, 1, 1)[:count]


def _generate(seeds: Tensor, beta: Tensor, fgf: str, normalize: bool, eps: float) -> Tensor:
    filters = FGFS[fgf](_tile(seeds, beta.shape[1]), beta).sum(0)
    if not normalize:
        return filters + _AT_ZERO.get(fgf, 0)
    return (filters - filters.mean(_AXES, keepdim=True)) / (filters.std(_AXES, keepdim=True) + eps)


class _Generate(torch.autograd.Function):
    """Autograd would keep six tensors of the size of all filters; computing them again is cheap."""

    @staticmethod
    def forward(seeds: Tensor, beta: Tensor, fgf: str, normalize: bool, eps: float) -> Tensor:
        return _generate(seeds, beta, fgf, normalize, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs[:2])
        ctx.options = inputs[2:]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        seeds, beta = ctx.saved_tensors
        fgf, normalize, eps = ctx.options
        (grad,) = grads
        if torch.is_grad_enabled():  # for second derivatives
            filters = _generate(seeds, beta, fgf, normalize, eps)
            return *torch.autograd.grad(filters, seeds, grad, create_graph=True), None, None, None, None
        count = beta.shape[1]
        values, slopes = _both(_tile(seeds, count), beta, fgf)
        if normalize:
            grad = _through_standardising(values.sum(0), grad, eps)
        by_filter = (slopes * grad).sum(0)
        wide = by_filter.new_zeros(-(-count // seeds.shape[0]) * seeds.shape[0], *seeds.shape[1:])
        wide[:count] = by_filter
        by_seed = wide.view(-1, *seeds.shape).sum(0)
        return by_seed.to(seeds.dtype), None, None, None, None


def _through_standardising(filters: Tensor, grad: Tensor, eps: float) -> Tensor:
    """The gradient with respect to ``filters`` of ``(filters - mean) / (std + eps)``, from the gradient ``grad``."""
    centred = filters - filters.mean(_AXES, keepdim=True)
    std = filters.std(_AXES, keepdim=True)
    degrees = filters[0].numel() - 1
    by_std = (grad * centred).sum(_AXES, keepdim=True) / (std + eps).square()
    # The standard deviation has no slope if all elements are equal.
    turn = torch.where(std > 0, by_std / (degrees * std), torch.zeros_like(std))
    by_centred = grad / (std + eps) - turn * centred
    return by_centred - by_centred.mean(_AXES, keepdim=True)


def generate_filters(seeds: Tensor, beta: Tensor, *, fgf: str, normalize: bool, eps: float) -> Tensor:
    """Generate all filters of a layer from its seed filters (MonoCNN, Eq. 5-9).

    In eager mode only seeds and ``beta`` are kept for the gradient.

    Args:
        seeds: [n_seed, c, kh, kw]; filter o is generated from seed o % n_seed.
        beta: fixed numbers [terms, c_out, c or 1, 1, 1]; the terms are summed.
        fgf: a key of :data:`FGFS`.
        normalize: standardise each filter over (c, kh, kw): ``(w - mean) / (std + eps)``, with unbiased ``std``.
        eps: see ``normalize``.

    Returns:
        [c_out, c, kh, kw] in the wider of the two dtypes.
    """
    if torch.compiler.is_compiling():
        return _generate(seeds, beta, fgf, normalize, eps)
    filters: Tensor = _Generate.apply(seeds, beta, fgf, normalize, eps)
    return filters
