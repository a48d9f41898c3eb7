"""Rounding weights to a grid so that the layer's outputs, rather than its weights, stay close.

Weights are rounded one after another, and those still to come make up for the error so far, as well as the layer's real
inputs allow: the second-order rounding of Frantar et al., "OPTQ" (ICLR 2023), after Hassibi and Stork's optimal brain
surgeon. The Fisher information of a layer's weights says how fine its grid must be.
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

_ROWS, _PER_INPUT = 4096, 2  # input patches behind a layer's statistics: at least, and for each of its inputs
_DAMPING = 0.01
_BLOCK = 128
_AT_ONCE = 64  # images of one forward pass


def relative_steps(folded: fx.GraphModule, images: Tensor, names: Iterable[str], seed: int = 0) -> dict[str, float]:
    """Relative step of each tensor's grid: one over the square root of its Fisher information.

    A step of size d adds noise of variance d^2 / 12 to each weight, and the loss rises by half of that times the
    Fisher information. Steps in this proportion raise the loss least for the bits that they save.

    Args:
        images: float32 [N, c, H, W], normalised; each takes one backward pass, with a label drawn from the network's
            own output.
        names: parameters of ``folded``.
        seed: of the draw of labels.

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
        for image in images.split(1):
            logits = folded(image)
            label = torch.multinomial(logits.detach().softmax(1), 1, generator=generator)[:, 0]
            gradients = torch.autograd.grad(F.cross_entropy(logits, label), list(wanted.values()))
            for name, gradient in zip(wanted, gradients, strict=True):
                found[name] += float(gradient.square().mean())
    finally:
        for parameter in wanted.values():
            parameter.requires_grad_(False)
    least = max(found.values(), default=0.0) * 1e-6 or 1.0  # for a tensor that the loss does not depend on
    logs = {name: math.log(max(value, least)) / 2 for name, value in found.items()}
    sizes = {name: wanted[name].numel() for name in wanted}
    centre = sum(sizes[name] * logs[name] for name in logs) / max(sum(sizes.values()), 1)
    return {name: math.exp(centre - value) for name, value in logs.items()}


class Rounder:
    """Rounds the weights of a folded network's convolutions and linear layers by the statistics of their inputs.

    Args:
        folded: the network; it is left unchanged.
        images: float32 [N, c, H, W], normalised; the statistics come from these.
        names: the weights to round. A weight that belongs to no ``nn.Conv2d`` or ``nn.Linear`` is rounded to the
            nearest grid point.
    """

    def __init__(self, folded: fx.GraphModule, images: Tensor, names: Iterable[str]) -> None:
        self._weights = {name: folded.get_parameter(name).detach() for name in names}
        layers = {
            f"{name}.weight": layer
            for name, layer in folded.named_modules()
            if _is_plain(layer) and f"{name}.weight" in self._weights
        }
        self._grams = _grams(folded, layers, images)
        self._factors: dict[str, tuple[Tensor, Tensor]] = {}

    def integers(self, name: str, step: float) -> I16:
        """The weight's integers on a grid, int16 of its shape.

        Raises:
            ValueError: if the step is so fine that an integer would exceed 32767 in size.
        """
        weight = self._weights[name]
        if name in self._grams:
            if name not in self._factors:
                self._factors[name] = _factor(self._grams[name])
            order, factor = self._factors[name]
            groups = factor.shape[0]
            rows = (weight.reshape(groups, weight.shape[0] // groups, -1).double() / step).float()
            rounded = _round(rows, order, factor).reshape(weight.shape)
        else:
            rounded = torch.round(weight.double() / step)
        return _fitting(name, rounded, step)

    def integers_near(self, name: str, step: float, before: I16, price: float, opening: int = 0) -> I16:
        """The weight's integers on its parent's grid, with few of them changed.

        In each row, the change by one step that brings the layer's outputs closest to those of the exact weight is made
        first, then the next best, for as long as a change gains more than it costs. The parent's own rounding survives,
        because it hardly shows in the outputs.

        Args:
            before: the parent's integers, of the weight's shape.
            price: what one change must gain, in units of what an error of one step at a typical input does to the
                outputs; 0 makes every change that helps.
            opening: a tensor that changes at all pays for this many changes more; if its changes together gain less,
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


def _grams(
    folded: fx.GraphModule, layers: dict[str, nn.Conv2d | nn.Linear], images: Tensor, rows: int | None = None
) -> dict[str, Tensor]:
    """X^T X over some input patches X of each layer, by group: [groups, k, k] in float64."""
    found: dict[str, Tensor] = {}

    def hook(name: str) -> object:
        def take(layer: nn.Conv2d | nn.Linear, inputs: tuple[Tensor, ...]) -> None:
            total = rows or max(_ROWS, _PER_INPUT * layer.weight[0].numel())
            wanted = max(1, math.ceil(total * min(_AT_ONCE, len(images)) / len(images)))
            patches = _patches(layer, inputs[0].detach(), wanted)  # [groups, rows, k]
            gram = patches.transpose(1, 2) @ patches
            found[name] = found[name] + gram.double() if name in found else gram.double()

        return take

    handles = [layer.register_forward_pre_hook(hook(name)) for name, layer in layers.items()]  # type: ignore[arg-type]
    try:
        with torch.no_grad():
            for batch in images.split(_AT_ONCE):
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


def _patches(layer: nn.Conv2d | nn.Linear, x: Tensor, wanted: int) -> Tensor:
    """Input patches of a layer, evenly spread over images and places: about ``wanted`` of them, [groups, rows, k]."""
    if isinstance(layer, nn.Linear):
        rows = x.reshape(1, -1, x.shape[-1])
        return rows[:, :: max(1, rows.shape[1] // wanted)]
    padding: str | int | tuple[int, ...] = layer.padding
    if padding == "same" or layer.padding_mode != "zeros":
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        x = F.pad(x, layer._reversed_padding_repeated_twice, mode)
        padding = 0
    if not isinstance(padding, str) and any(sides := padding if isinstance(padding, tuple) else (padding, padding)):
        x = F.pad(x, (sides[1], sides[1], sides[0], sides[0]))
    return _gathered(x, layer.kernel_size, layer.dilation, layer.stride, layer.groups, wanted)


def _gathered(
    x: Tensor,
    kernel: tuple[int, ...],
    dilation: tuple[int, ...],
    stride: tuple[int, ...],
    groups: int,
    wanted: int,
) -> Tensor:
    """Patches of padded images, in the order of ``F.unfold``; those that are not wanted are never made."""
    n, channels, *sides = x.shape
    steps = x.stride()
    out = [(sides[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in (0, 1)]
    shape = (n, out[0], out[1], channels, kernel[0], kernel[1])
    jumps = (steps[2] * stride[0], steps[3] * stride[1], steps[1], steps[2] * dilation[0], steps[3] * dilation[1])
    windows = x.as_strided(shape, (steps[0], *jumps), x.storage_offset())
    places = out[0] * out[1]
    picked = torch.arange(0, n * places, max(1, n * places // wanted))
    image, place = picked // places, picked % places
    rows = windows[image, place // out[1], place % out[1]]  # [rows, c, kh, kw]
    return rows.reshape(len(picked), groups, -1).transpose(0, 1)


def _factor(gram: Tensor) -> tuple[Tensor, Tensor]:
    """The order in which a layer's columns are rounded, strongest input first, [groups, k], and the upper Cholesky
    factor of the inverse of the damped Gram matrix in that order, float32 [groups, k, k].

    With H = V V^T and V upper triangular, H^-1 = U^T U and U = V^-1; V is the Cholesky factor of H turned around.
    """
    strength = gram.diagonal(dim1=1, dim2=2)
    order = strength.argsort(dim=1, descending=True)
    size = gram.shape[1]
    rows = gram.gather(1, order[:, :, None].expand_as(gram)).gather(2, order[:, None, :].expand_as(gram))
    damping = _DAMPING * strength.mean(1).clamp_min(1e-12)
    rows = rows + damping[:, None, None] * torch.eye(size, dtype=gram.dtype)
    turned = torch.linalg.cholesky(rows.flip(1, 2)).flip(1, 2)
    identity = torch.eye(size, dtype=gram.dtype).expand_as(turned)
    return order, torch.linalg.solve_triangular(turned, identity, upper=True).float()


def _round(rows: Tensor, order: Tensor, factor: Tensor, block: int = _BLOCK) -> Tensor:
    """Round [groups, rows, k], in grid steps, to whole numbers; a block's errors reach later columns all at once.

    Columns lie in memory one after another, so that each is one run of numbers.
    """
    size, factor = rows.shape[2], factor.to(rows.dtype)
    index = order[:, None, :].expand_as(rows)
    left = rows.gather(2, index).transpose(1, 2).contiguous()  # [groups, k, rows]
    whole = torch.empty_like(left)
    for begin in range(0, size, block):
        end = min(begin + block, size)
        errors = left.new_empty(left.shape[0], end - begin, left.shape[2])
        for column in range(begin, end):
            torch.round(left[:, column], out=whole[:, column])
            error = errors[:, column - begin]
            torch.sub(left[:, column], whole[:, column], out=error)
            error /= factor[:, column, column, None]
            if column + 1 < end:
                left[:, column + 1 : end].baddbmm_(factor[:, column, column + 1 : end, None], error[:, None], alpha=-1)
        if end < size:
            left[:, end:].baddbmm_(factor[:, begin:end, end:].transpose(1, 2), errors, alpha=-1)
    return torch.empty_like(rows).scatter_(2, index, whole.transpose(1, 2))
