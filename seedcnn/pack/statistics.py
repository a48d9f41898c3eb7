"""Facts that rounding needs about a network: how much each weight matters, and how each layer's inputs depend on each
other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from seedcnn.messages import Advance
from seedcnn.pack.memory import Inputs, Memory

__all__ = ["Fisher", "fisher_information", "input_grams"]

_ROWS, _PER_INPUT = 4096, 2  # input patches behind a layer's statistics: at least, and for each of its inputs
_TOGETHER = 16  # images of one backward pass
_FORWARD = 64  # images of one forward pass
_BLOCKS, _BLOCK = 8, 512  # a Gram matrix is symmetric: only half of its blocks are computed
_GRAM_SHARE = 3  # a third of the memory is for Gram matrices at a time


@dataclass(frozen=True)
class Fisher:
    """The Fisher information of a network's tensors.

    Attributes:
        shares: relative step of each tensor's grid, one over the square root of its information. The geometric mean,
            weighted by the tensors' sizes, is 1.
        typical: the information of a weight whose share is 1.
        count: number of weights.
    """

    shares: dict[str, float]
    typical: float
    count: int

    def step_for(self, loss: float) -> float:
        """The step at which rounding to the nearest raises the loss by ``loss`` nats: the noise of a step d has the
        variance d^2 / 12, and the loss rises by half of that times the information."""
        return math.sqrt(24 * loss / max(self.typical * self.count, 1e-30))


def fisher_information(
    folded: fx.GraphModule,
    inputs: Inputs,
    names: Iterable[str],
    *,
    other: Iterable[str] = (),
    seed: int = 0,
    at_once: int = _TOGETHER,
) -> Fisher:
    """Estimate the Fisher information of a network's tensors.

    Labels are drawn from the network's own output. Then the gradients of different images are independent with mean 0,
    so that the square of their sum estimates the sum of their squares, and one backward pass serves several images.

    A step of size d adds noise of variance d^2 / 12 to each weight, and the loss rises by half of that times the
    information. Steps in proportion to :attr:`Fisher.shares` raise the loss least for the bits that they save.

    Args:
        inputs: a few dozen images.
        names: weights, parameters of ``folded``.
        other: parameters that get a share, too, but do not count for what is typical.
        seed: of the draw of labels.
        at_once: images of one backward pass, at most 16.
    """
    parameters = dict(folded.named_parameters(remove_duplicate=False))
    weights = list(names)
    wanted = {name: parameters[name] for name in (*weights, *other)}
    found = dict.fromkeys(wanted, 0.0)
    generator = torch.Generator().manual_seed(seed)
    for parameter in wanted.values():
        parameter.requires_grad_(True)
    try:
        for batch in inputs.batches(min(at_once, _TOGETHER)):
            logits = folded(batch)
            labels = torch.multinomial(logits.detach().softmax(1), 1, generator=generator)[:, 0]
            loss = F.cross_entropy(logits, labels, reduction="sum")
            for name, gradient in zip(wanted, torch.autograd.grad(loss, list(wanted.values())), strict=True):
                found[name] += float(torch.linalg.vector_norm(gradient)) ** 2 / gradient.numel() / len(inputs)
    finally:
        for parameter in wanted.values():
            parameter.requires_grad_(False)
    least = max(found.values(), default=0.0) * 1e-6 or 1.0  # for a tensor that the loss does not depend on
    logs = {name: math.log(max(value, least)) / 2 for name, value in found.items()}
    count = sum(wanted[name].numel() for name in weights)
    centre = sum(wanted[name].numel() * logs[name] for name in weights) / max(count, 1)
    return Fisher({name: math.exp(centre - value) for name, value in logs.items()}, math.exp(2 * centre), count)


def input_grams(
    folded: fx.GraphModule,
    names: Iterable[str],
    inputs: Inputs,
    memory: Memory,
    at_once: int = _FORWARD,
    advance: Advance | None = None,
) -> Iterator[tuple[str, Tensor]]:
    """X^T X over some input patches X of each layer, as many layers at a time as the memory holds.

    Args:
        names: weights of ``folded``; those of other modules than ``nn.Conv2d`` and ``nn.Linear`` have no input patches
            and are left out.
        inputs: the images that the patches come from.
        memory: a layer whose matrix would take over a third of it is cut into pieces of its inputs, whose products with
            each other are left out.
        at_once: images of one forward pass.
        advance: called after each of these.

    Yields:
        A weight's name, and float32 [groups or pieces, k, k].
    """
    wanted = set(names)
    layers = {
        f"{name}.weight": layer
        for name, layer in folded.named_modules()
        if _is_plain(layer) and f"{name}.weight" in wanted
    }
    room = memory.total // _GRAM_SHARE
    pieces = {name: _pieces(layer, room) for name, layer in layers.items()}
    sizes = {name: _gram_bytes(layer, pieces[name]) for name, layer in layers.items()}
    parts = _parts(sizes, room)
    for part in parts:
        found = _Grams({name: (layers[name], pieces[name]) for name in part}, len(inputs), min(at_once, len(inputs)))
        with found, torch.no_grad():
            for batch in inputs.batches(at_once):
                folded(batch)
                if advance is not None:
                    advance(len(batch))
        for name in part:
            if name in found.of:
                yield name, found.of.pop(name)


def _width(layer: nn.Conv2d | nn.Linear) -> int:
    return layer.weight[0].numel()


def _gram_bytes(layer: nn.Conv2d | nn.Linear, pieces: int) -> int:
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    return 4 * groups * pieces * math.ceil(_width(layer) / pieces) ** 2


def _pieces(layer: nn.Conv2d | nn.Linear, room: int) -> int:
    """Into how many equal pieces the inputs of a layer are cut, so that their Gram matrices fit."""
    width = _width(layer)
    counts = [count for count in range(1, width + 1) if width % count == 0]
    return next((count for count in counts if _gram_bytes(layer, count) <= room), width)


def _parts(sizes: dict[str, int], room: int) -> list[list[str]]:
    """The layers in order, in runs whose matrices fit together."""
    parts: list[list[str]] = []
    left = 0
    for name, size in sizes.items():
        if not parts or size > left:
            parts.append([])
            left = room
        parts[-1].append(name)
        left -= size
    return parts


class _Grams:
    """Adds up the Gram matrices of some layers while the network runs; ``of`` holds them."""

    def __init__(self, layers: dict[str, tuple[nn.Conv2d | nn.Linear, int]], images: int, at_once: int) -> None:
        self.of: dict[str, Tensor] = {}
        self._layers, self._images, self._at_once = layers, images, at_once
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> None:
        for name, (layer, pieces) in self._layers.items():
            self._handles.append(layer.register_forward_pre_hook(self._hook(name, pieces)))

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _hook(self, name: str, pieces: int) -> Callable[..., None]:
        def take(layer: nn.Conv2d | nn.Linear, inputs: tuple[Tensor, ...]) -> None:
            total = max(_ROWS, _PER_INPUT * _width(layer))
            wanted = max(1, math.ceil(total * self._at_once / self._images))
            patches = _patches(layer, inputs[0].detach(), wanted)  # [groups, rows, k]
            if pieces > 1:
                groups, rows, width = patches.shape
                cut = patches.reshape(groups, rows, pieces, width // pieces)
                patches = cut.transpose(1, 2).reshape(groups * pieces, rows, -1)
            if name not in self.of:
                self.of[name] = patches.new_zeros(patches.shape[0], patches.shape[2], patches.shape[2])
            _add_gram(self.of[name], patches)

        return take


def _add_gram(gram: Tensor, patches: Tensor) -> None:
    """Add X^T X of patches X [groups, rows, k] to [groups, k, k]."""
    size = gram.shape[1]
    block = size if size < 2 * _BLOCK else math.ceil(size / _BLOCKS)
    turned = patches.transpose(1, 2)
    for begin in range(0, size, block):
        end = begin + block
        product = turned[:, begin:end] @ patches[:, :, begin:]
        gram[:, begin:end, begin:] += product
        if end < size:
            gram[:, end:, begin:end] += product[:, :, end - begin :].transpose(1, 2)


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
