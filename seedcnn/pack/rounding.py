"""Rounding weights to a grid so that the layer's outputs, rather than its weights, stay close.

Weights are rounded one after another, and those still to come make up for the error so far, as well as the layer's real
inputs allow: the second-order rounding of Frantar et al., "OPTQ" (ICLR 2023), after Hassibi and Stork's optimal brain
surgeon. It is Babai's nearest plane for the lattice of the layer's inputs, which needs no inverse.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from seedcnn.arrays import I16

__all__ = ["Rounder", "integers_near"]

_DAMPING = 0.01
_BLOCK = 64


class Rounder:
    """Rounds the weights of a network's convolutions and linear layers by the statistics of their inputs.

    Args:
        weights: learned tensors by name, in the shape of their layers.
        grams: of their inputs by name, see :func:`seedcnn.pack.statistics.input_grams`; they are consumed one by one. A
            weight that has none is rounded to the nearest grid point.
    """

    def __init__(self, weights: Mapping[str, Tensor], grams: Iterable[tuple[str, Tensor]]) -> None:
        self._weights = weights
        self._factors = {name: _factor(gram) for name, gram in grams}

    def integers(self, name: str, step: float) -> I16:
        """The weight's integers on a grid, int16 of its shape.

        Raises:
            ValueError: if the step is so fine that an integer would exceed 32767 in size.
        """
        weight = self._weights[name]
        if name in self._factors:
            order, factor = self._factors[name]
            rows = (_rows(weight, factor.shape).double() / step).float()
            rounded = _as_before(_round(rows, order, factor), weight)
        else:
            rounded = torch.round(weight.double() / step)
        return _fitting(name, rounded, step)


def integers_near(
    name: str, weight: Tensor, gram: Tensor | None, step: float, before: I16, price: float, opening: int = 0
) -> I16:
    """The weight's integers on its parent's grid, with few of them changed.

    In each row, the change by one step that brings the layer's outputs closest to those of the exact weight is made
    first, then the next best, for as long as a change gains more than it costs. The parent's own rounding survives,
    because it hardly shows in the outputs.

    Args:
        name: for messages.
        weight: in the shape of its layer.
        gram: of the layer's inputs; None counts changes of the weight instead of changes of the outputs.
        before: the parent's integers, of the weight's shape.
        price: what one change must gain, in units of what an error of one step at a typical input does to the
            outputs; 0 makes every change that helps.
        opening: a tensor that changes at all pays for this many changes more; if its changes together gain less,
            none is made.

    Raises:
        ValueError: as :meth:`Rounder.integers`.
    """
    old = torch.from_numpy(before.astype(np.float64))
    target = weight.double() / step
    if gram is not None:
        gram = gram.double()
        target, start = _rows(target, gram.shape), _rows(old, gram.shape)
        unit = gram.diagonal(dim1=1, dim2=2).mean()
        rounded = _pursue(target, start, gram, price * unit)
        gain = _energy(target - start, gram) - _energy(target - rounded, gram)
    else:
        unit, start = torch.ones((), dtype=torch.float64), old
        rounded = torch.where((target - old).abs() > 0.5 * (1 + price), target.round(), old)
        gain = (target - old).square().sum() - (target - rounded).square().sum()
    costs = price * unit * (opening + (rounded - start).abs().sum())
    chosen = rounded if gain > costs else start
    return _fitting(name, chosen.reshape(weight.shape) if gram is None else _as_before(chosen, weight), step)


def _rows(weight: Tensor, shape: torch.Size) -> Tensor:
    """A weight [out, ...] as [groups, rows, k] for Gram matrices of ``shape`` [groups, k, k].

    A layer has groups of filters, each with inputs of its own, or one group whose inputs are cut into pieces, or both.
    """
    groups, size = shape[0], shape[2]
    pieces = weight[0].numel() // size
    out = weight.shape[0] // (groups // pieces)
    return weight.reshape(groups // pieces, out, pieces, size).transpose(1, 2).reshape(groups, out, size)


def _as_before(rows: Tensor, weight: Tensor) -> Tensor:
    """Undo :func:`_rows`."""
    groups, out, size = rows.shape
    pieces = weight[0].numel() // size
    return rows.reshape(groups // pieces, pieces, out, size).transpose(1, 2).reshape(weight.shape)


def _energy(error: Tensor, gram: Tensor) -> Tensor:
    """The squared error of the layer's outputs, summed, for an error [groups, rows, k] of its weights."""
    return ((error @ gram) * error).sum()


def _fitting(name: str, rounded: Tensor, step: float) -> I16:
    largest = int(rounded.abs().max()) if rounded.numel() else 0
    if largest > 32767:
        raise ValueError(f"`step` (={step:g}) is too fine: {name} reaches {largest} steps; at most 32767 fit")
    return rounded.to(torch.int16).numpy()


def _pursue(target: Tensor, start: Tensor, gram: Tensor, cost: Tensor) -> Tensor:
    """[groups, rows, k] in grid steps: ``start`` after single steps, each of which gained more than ``cost``."""
    whole = start.clone()
    pull = (target - whole) @ gram  # minus half the gradient of the error of the outputs
    weight = gram.diagonal(dim1=1, dim2=2)[:, None, :]
    while True:
        gain = 2 * pull.abs() - weight
        best, place = gain.max(dim=2, keepdim=True)
        paying = best > cost.clamp_min(1e-9)
        if not paying.any():
            return whole
        moves = torch.where(paying, pull.gather(2, place).sign(), 0.0)
        whole.scatter_add_(2, place, moves)
        rows = gram.gather(1, place.expand(-1, -1, gram.shape[2]))
        pull -= moves * rows


def _factor(gram: Tensor) -> tuple[Tensor, Tensor]:
    """The order of a layer's columns, weakest input first, int64 [groups, k], and the lower Cholesky factor of the
    damped Gram matrix in that order, its columns divided by their diagonal: float32 [groups, k, k].

    ``gram`` is used up: a matrix of a wide layer takes a tenth of a gigabyte.
    """
    strength = gram.diagonal(dim1=1, dim2=2)
    order = strength.argsort(dim=1)
    damping = _DAMPING * strength.mean(1).clamp_min(1e-12)
    room = gram.gather(1, order[:, :, None].expand_as(gram))
    torch.gather(room, 2, order[:, None, :].expand_as(gram), out=gram)
    gram.diagonal(dim1=1, dim2=2).add_(damping[:, None])
    lower, failed = torch.linalg.cholesky_ex(gram, out=(room, torch.empty(0, dtype=torch.int32)))
    if bool(failed.any()):  # float32 is too coarse for these inputs
        lower = torch.linalg.cholesky(gram.double()).to(gram.dtype)
    lower /= lower.diagonal(dim1=1, dim2=2)[:, None, :].clone()
    return order, lower


def _round(rows: Tensor, order: Tensor, factor: Tensor, block: int = _BLOCK) -> Tensor:
    """Round [groups, rows, k], in grid steps, to whole numbers, the strongest inputs first.

    Before a column's numbers are rounded, the errors of all columns before it, times the factor's column, are added to
    them; a block of columns gets the errors from outside all at once. Columns lie in memory one after another, so that
    each is one run of numbers.
    """
    size, factor = rows.shape[2], factor.to(rows.dtype)
    index = order[:, None, :].expand_as(rows)
    exact = rows.gather(2, index).transpose(1, 2).contiguous()  # [groups, k, rows]
    left, whole, error = exact.clone(), torch.empty_like(exact), torch.empty_like(exact)
    for end in range(size, 0, -block):
        begin = max(0, end - block)
        if end < size:
            left[:, begin:end].baddbmm_(factor[:, end:, begin:end].transpose(1, 2), error[:, end:])
        for column in range(end - 1, begin - 1, -1):
            torch.round(left[:, column], out=whole[:, column])
            torch.sub(exact[:, column], whole[:, column], out=error[:, column])
            if column > begin:
                left[:, begin:column].baddbmm_(factor[:, column, begin:column, None], error[:, column, None])
    return torch.empty_like(rows).scatter_(2, index, whole.transpose(1, 2))
