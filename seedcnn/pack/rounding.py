"""Rounding weights to a grid so that the layer's answers, not its weights, stay close.

Each weight is rounded in turn, and what that does to the layer's output is made up for by the weights still to come, as
far as the layer's real inputs allow: the second-order rounding of Frantar et al., "OPTQ" (ICLR 2023), after Hassibi and
Stork's optimal brain surgeon. How fine a layer's grid must be is taken from the Fisher information of its weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from seedcnn.arrays import I16

__all__ = ["Rounder", "relative_steps"]

_ROWS = 32_768  # input patches that a layer's statistics are taken from
_DAMPING = 0.01
_BLOCK = 128
_PICTURES = 64  # at a time


def relative_steps(folded: fx.GraphModule, pictures: Tensor, names: Iterable[str], seed: int = 0) -> dict[str, float]:
    """How coarse the grid of each tensor may be, relative to the others: one over the root of its Fisher information.

    A step of size d adds noise of variance d^2 / 12 to each weight, and the loss rises by half of that times the
    Fisher information; steps of this proportion raise it least for the bits they save.

    Args:
        pictures: float32 [N, c, H, W], normalised; one backward pass each. The labels are drawn from the network's
            own answers.
        names: parameters of ``folded``.
        seed: of that draw.

    Returns:
        A factor for each name. Their geometric mean, weighted by the tensors' sizes, is 1.
    """
    parameters = dict(folded.named_parameters(remove_duplicate=False))
    wanted = {name: parameters[name] for name in names}
    found = dict.fromkeys(wanted, 0.0)
    generator = torch.Generator().manual_seed(seed)
    for parameter in wanted.values():
        parameter.requires_grad_(True)
    try:
        for picture in pictures.split(1):
            logits = folded(picture)
            label = torch.multinomial(logits.detach().softmax(1), 1, generator=generator)[:, 0]
            gradients = torch.autograd.grad(F.cross_entropy(logits, label), list(wanted.values()))
            for name, gradient in zip(wanted, gradients, strict=True):
                found[name] += float(gradient.square().mean())
    finally:
        for parameter in wanted.values():
            parameter.requires_grad_(False)
    least = max(found.values(), default=0.0) * 1e-6 or 1.0  # a tensor that nothing depends on
    logs = {name: math.log(max(value, least)) / 2 for name, value in found.items()}
    sizes = {name: wanted[name].numel() for name in wanted}
    centre = sum(sizes[name] * logs[name] for name in logs) / max(sum(sizes.values()), 1)
    return {name: math.exp(centre - value) for name, value in logs.items()}


class Rounder:
    """Rounds the weights of a folded network's convolutions and linear layers, with the statistics of their inputs.

    Args:
        folded: the network; nothing in it changes.
        pictures: float32 [N, c, H, W], normalised, that the statistics are taken from.
        names: the weights to be rounded; those that no ``nn.Conv2d`` or ``nn.Linear`` owns are rounded to the nearest.
    """

    def __init__(self, folded: fx.GraphModule, pictures: Tensor, names: Iterable[str]) -> None:
        self._weights = {name: folded.get_parameter(name).detach() for name in names}
        layers = {
            f"{name}.weight": layer
            for name, layer in folded.named_modules()
            if _is_plain(layer) and f"{name}.weight" in self._weights
        }
        self._grams = _grams(folded, layers, pictures)
        self._factors: dict[str, tuple[Tensor, Tensor]] = {}

    def integers(self, name: str, step: float) -> I16:
        """The weight's integers on a grid, int16 of its shape.

        Raises:
            ValueError: if they do not fit +-32767: the step is too fine.
        """
        weight = self._weights[name]
        if name in self._grams:
            if name not in self._factors:
                self._factors[name] = _factor(self._grams[name])
            order, factor = self._factors[name]
            groups = factor.shape[0]
            rows = weight.reshape(groups, weight.shape[0] // groups, -1).double() / step
            rounded = _round(rows, order, factor).reshape(weight.shape)
        else:
            rounded = torch.round(weight.double() / step)
        return _fitting(name, rounded, step)

    def integers_near(self, name: str, step: float, before: I16, price: float, opening: int = 0) -> I16:
        """The weight's integers on the grid of its parent, few of them changed.

        Of all changes by one step the one that brings the layer's answers nearest to the weight's is made, row by row,
        again and again, as long as it brings more than it costs. The parent's own rounding is not undone by this: it
        hardly shows in the answers.

        Args:
            before: the parent's integers, of the weight's shape.
            price: of a change, in what an error of one step in a typical input does to the answers; 0 makes every
                change that helps.
            opening: the first change of a tensor costs as much as so many more; where all together do not bring it,
                none is made.

        Raises:
            ValueError: as :meth:`integers`.
        """
        weight = self._weights[name]
        old = torch.from_numpy(before.astype(np.float64))
        target = weight.double() / step
        if name in self._grams:
            gram = self._grams[name]
            rows = (gram.shape[0], weight.shape[0] // gram.shape[0], -1)
            target, start = target.reshape(rows), old.reshape(rows)
            unit = gram.diagonal(dim1=1, dim2=2).mean()
            rounded = _pursue(target, start, gram, price * unit)
            gain = _energy(target - start, gram) - _energy(target - rounded, gram)
        else:
            unit, start = torch.ones((), dtype=torch.float64), old
            rounded = torch.where((target - old).abs() > 0.5 * (1 + price), target.round(), old)
            gain = (target - old).square().sum() - (target - rounded).square().sum()
        costs = price * unit * (opening + (rounded - start).abs().sum())
        return _fitting(name, (rounded if gain > costs else start).reshape(weight.shape), step)


def _energy(error: Tensor, gram: Tensor) -> Tensor:
    """What an error of the weights, [groups, rows, k], does to the answers, squared and summed."""
    return ((error @ gram) * error).sum()


def _fitting(name: str, rounded: Tensor, step: float) -> I16:
    largest = int(rounded.abs().max()) if rounded.numel() else 0
    if largest > 32767:
        raise ValueError(f"`step` (={step:g}) is too fine: {name} reaches {largest} of it; at most 32767 fit")
    return rounded.to(torch.int16).numpy()


def _pursue(target: Tensor, start: Tensor, gram: Tensor, cost: Tensor) -> Tensor:
    """[groups, rows, k] in grid steps: ``start`` with single steps made while they bring more than ``cost``."""
    whole = start.clone()
    pull = (target - whole) @ gram  # half of minus the gradient of the error of the answers
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


def _grams(
    folded: fx.GraphModule, layers: dict[str, nn.Conv2d | nn.Linear], pictures: Tensor, rows: int = _ROWS
) -> dict[str, Tensor]:
    """X^T X of about ``rows`` of each layer's input patches X, by group: [groups, k, k] in float64."""
    found: dict[str, Tensor] = {}

    def hook(name: str) -> object:
        def take(layer: nn.Conv2d | nn.Linear, inputs: tuple[Tensor, ...]) -> None:
            patches = _patches(layer, inputs[0].detach())  # [groups, rows, k]
            wanted = max(1, math.ceil(rows * min(_PICTURES, len(pictures)) / len(pictures)))
            patches = patches[:, :: max(1, patches.shape[1] // wanted)]
            gram = patches.transpose(1, 2) @ patches
            found[name] = found[name] + gram.double() if name in found else gram.double()

        return take

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]  # type: ignore[arg-type]
    try:
        with torch.no_grad():
            for batch in pictures.split(_PICTURES):
                folded(batch)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _is_plain(layer: nn.Module) -> bool:
    """Whether a layer answers with its inputs' patches times its weight; a subclass may pad or scale otherwise."""
    if isinstance(layer, nn.Conv2d):
        return type(layer).forward is nn.Conv2d.forward and type(layer)._conv_forward is nn.Conv2d._conv_forward
    return isinstance(layer, nn.Linear) and type(layer).forward is nn.Linear.forward


def _patches(layer: nn.Conv2d | nn.Linear, x: Tensor) -> Tensor:
    if isinstance(layer, nn.Linear):
        return x.reshape(1, -1, x.shape[-1])
    padding: str | int | tuple[int, ...] = layer.padding
    if padding == "same" or layer.padding_mode != "zeros":
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        x = F.pad(x, layer._reversed_padding_repeated_twice, mode)
        padding = 0
    size = (layer.kernel_size, layer.dilation, 0 if padding == "valid" else padding, layer.stride)
    columns = F.unfold(x, *size)  # type: ignore[arg-type]
    n, _, places = columns.shape
    return columns.reshape(n, layer.groups, -1, places).permute(1, 0, 3, 2).reshape(layer.groups, n * places, -1)


def _factor(gram: Tensor) -> tuple[Tensor, Tensor]:
    """The order in which a layer's inputs are rounded, the strongest first, and the upper Cholesky factor of the
    inverse of the damped Gram matrix in that order; [groups, k] and [groups, k, k]."""
    strength = gram.diagonal(dim1=1, dim2=2)
    order = strength.argsort(dim=1, descending=True)
    size = gram.shape[1]
    rows = gram.gather(1, order[:, :, None].expand_as(gram)).gather(2, order[:, None, :].expand_as(gram))
    damping = _DAMPING * strength.mean(1).clamp_min(1e-12)
    rows = rows + damping[:, None, None] * torch.eye(size, dtype=gram.dtype)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(rows))
    return order, torch.linalg.cholesky(inverse, upper=True)


def _round(rows: Tensor, order: Tensor, factor: Tensor, block: int = _BLOCK) -> Tensor:
    """[groups, rows, k] in grid steps to whole numbers; errors reach the columns beyond a block all at once."""
    size = rows.shape[2]
    index = order[:, None, :].expand_as(rows)
    left = rows.gather(2, index)
    whole = torch.empty_like(left)
    for begin in range(0, size, block):
        end = min(begin + block, size)
        errors = left.new_empty(left.shape[0], left.shape[1], end - begin)
        for column in range(begin, end):
            whole[:, :, column] = left[:, :, column].round()
            error = (left[:, :, column] - whole[:, :, column]) / factor[:, column, column, None]
            left[:, :, column:end] -= error[:, :, None] * factor[:, None, column, column:end]
            errors[:, :, column - begin] = error
        left[:, :, end:] -= errors @ factor[:, begin:end, end:]
    return torch.empty_like(whole).scatter_(2, index, whole)
