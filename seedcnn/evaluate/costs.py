"""Costs of a network on paper: learnable and fixed numbers, multiply-accumulates, NLF evaluations, bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seedcnn import html
from seedcnn.convert.copies import copy_model, copy_without_weights
from seedcnn.convert.given import unwrapped
from seedcnn.convert.tracing import NORMS, frozen_types
from seedcnn.errors import ConfigError
from seedcnn.evaluate._cost_conventions import CONVENTIONS, Meter, is_row, own_parameters
from seedcnn.layers import ConvLayer, SeededConv2d, learnable_count
from seedcnn.models.raw import has_raw_heads, raw_outputs

__all__ = ["CONVENTIONS", "Cost", "LayerCost", "cost"]


@dataclass(frozen=True)
class LayerCost:
    """One row of the table: a module that has parameters or does something that is counted.

    Attributes:
        name: qualified name; "" is the model itself.
        kind: its class.
        params, fixed, macs, nlf_evals: as in :class:`Cost`.
        output: shape of its output for one picture, None if it never ran or its output is not one tensor.
    """

    name: str
    kind: str
    params: int
    fixed: int
    macs: int
    nlf_evals: int
    output: tuple[int, ...] | None


@dataclass(frozen=True)
class Cost:
    """Costs of one network for one picture.

    Attributes:
        params: learnable scalars.
        fixed: fixed numbers, drawn from seeds; they are neither learned nor transmitted.
        macs: multiply-accumulates as ``convention`` counts them.
        nlf_evals: evaluations of nonlinear functions: one for each generated element of a GroupNL layer whose function
            has hyperparameters, one for each sine of a SineFM layer, one for each generated weight (and term) of a
            MonoConv layer, which generates its filters in every forward pass.
        fp32_bytes: 4 bytes a parameter, 8 a BatchNorm channel (mean and variance), 16 a channel of a frozen one, 8 for
            the model seed if anything is seeded; what would travel without any coding.
        saved_bytes: of the tensors kept for the backward pass of one picture in training mode: unique storages, without
            parameters, buffers and fixed numbers; of a detector without those of its losses.
        layers: one row for each module that has or does anything.
        unsupported: types of modules with learnable parameters that the convention does not count (norms are free by
            definition under conv-linear and not listed), and operations that no formula is known for.
        convention: a key of :data:`CONVENTIONS`.
    """

    params: int
    fixed: int
    macs: int
    nlf_evals: int
    fp32_bytes: int
    saved_bytes: int
    layers: tuple[LayerCost, ...]
    unsupported: tuple[str, ...]
    convention: str

    @property
    def gradient_bytes(self) -> int:
        """Bytes that one training step exchanges: 4 a learnable scalar."""
        return 4 * self.params

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {**dataclasses.asdict(self), "gradient_bytes": self.gradient_bytes}

    def __repr__(self) -> str:
        unsupported = f", unsupported={self.unsupported}" if self.unsupported else ""
        return (
            f"Cost(params={self.params:,}, fixed={self.fixed:,}, macs={self.macs:,} ({self.convention}), "
            f"nlf_evals={self.nlf_evals:,}, fp32_bytes={self.fp32_bytes:,}, saved_bytes={self.saved_bytes:,}, "
            f"{len(self.layers)} layers{unsupported})"
        )

    def _repr_html_(self) -> str:
        """The costs of the whole network, and below them those of each layer, as a notebook shows them."""
        rows = [
            ("learnable parameters", self.params),
            ("fixed numbers, drawn from seeds", self.fixed),
            (f"MACs ({self.convention})", self.macs),
            ("NLF evaluations", self.nlf_evals),
            ("bytes as float32", self.fp32_bytes),
            ("bytes kept for the backward pass", self.saved_bytes),
        ]
        heads = ("layer", "class", "parameters", "fixed", "MACs", "NLF evaluations", "output")
        layers = [
            (each.name or "(the model)", each.kind, each.params, each.fixed, each.macs, each.nlf_evals, _size(each))
            for each in self.layers
        ]
        parts = [html.table(("of one picture", ""), rows)]
        parts += [html.paragraph(f"not counted: {', '.join(self.unsupported)}")] if self.unsupported else []
        return "".join([*parts, html.folded(f"{len(layers)} layers", html.table(heads, layers))])


def _size(layer: LayerCost) -> str | None:
    return None if layer.output is None else "x".join(map(str, layer.output))


def _picture(model: nn.Module, count: int, input_size: tuple[int, int, int]) -> Tensor:
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(0))
    return torch.zeros(count, *input_size, device=like.device, dtype=like.dtype)


def _answer(model: nn.Module, pictures: Tensor) -> object:
    return raw_outputs(model, pictures) if has_raw_heads(model) else model(pictures)


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _saved(model: nn.Module, input_size: tuple[int, int, int], kept_anyway: set[int]) -> int:
    """Bytes kept for the backward pass of one picture."""

    def of(count: int) -> int:
        found: dict[int, torch.UntypedStorage] = {}  # holds the storages, so that no address is used twice

        def pack(tensor: Tensor) -> Tensor:
            if _storage(tensor) not in kept_anyway:
                found[_storage(tensor)] = tensor.untyped_storage()
            return tensor

        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            result = _answer(model, _picture(model, count, input_size))
        total = sum(storage.nbytes() for storage in found.values())
        del result
        return total

    # BatchNorm cannot train on one value a channel; bytes are a constant and a part for each picture.
    return 2 * of(2) - of(3)


def _rows(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that can have a row; what is inside a layer of ours belongs to that layer."""
    rows: dict[str, nn.Module] = {}
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if name.startswith(inside) and inside:
            continue
        rows[name] = module
        if is_row(module):
            inside += (f"{name}.",) if name else ("",)
    return rows


def _unsupported(rows: dict[str, nn.Module], meter: Meter, convention: str) -> tuple[str, ...]:
    found = set(meter.unknown)
    for name, module in rows.items():
        own = own_parameters(module)
        free = convention == "conv-linear" and isinstance(module, NORMS)
        if not own or free or meter.macs[name] or any(_storage(p) in meter.used for p in own):
            continue
        found.add(type(module).__name__ if name in meter.shapes else f"{type(module).__name__} (not reached)")
    return tuple(sorted(found))


def _count(model: nn.Module, input_size: tuple[int, int, int], convention: str) -> dict[str, Any]:
    """Everything that takes a forward pass of ``model``, a copy that may be changed."""
    rows = _rows(model)
    fixed = {
        name: [getattr(module, part) for part in module.fixed()]
        for name, module in rows.items()
        if isinstance(module, ConvLayer)
    }
    meter, generated = Meter(), dict.fromkeys(rows, 0)
    meter.attach(model.eval())

    def watch(name: str) -> Callable[..., None]:
        def add(module: nn.Module, args: object, output: object) -> None:  # noqa: ARG001
            if isinstance(module, ConvLayer) and isinstance(output, Tensor):
                generated[name] += module.nlf_evals(tuple(output.shape))

        return add

    handles = [module.register_forward_hook(watch(name)) for name, module in rows.items()]
    with torch.no_grad():
        CONVENTIONS[convention](model, meter, lambda: _answer(model, _picture(model, 1, input_size)))
    for handle in handles:
        handle.remove()
    table = []
    counted: set[int] = set()
    for name, module in rows.items():
        own = [p for p in own_parameters(module) if id(p) not in counted]  # a shared parameter counts once
        counted.update(map(id, own))
        values = sum(p.numel() for p in own), sum(t.numel() for t in fixed.get(name, [])), meter.macs[name]
        row = LayerCost(name, type(module).__name__, *values, generated[name], meter.shapes.get(name))
        if row.params or row.fixed or row.macs or row.nlf_evals:
            table.append(row)
    unsupported = _unsupported(rows, meter, convention)
    kept = [*model.parameters(), *model.buffers(), *(t for tensors in fixed.values() for t in tensors)]
    saved = _saved(model.train(), input_size, {_storage(tensor) for tensor in kept})
    return {"layers": tuple(table), "unsupported": unsupported, "saved_bytes": saved}


def cost(model: nn.Module, input_size: tuple[int, int, int] = (3, 32, 32), *, convention: str = "conv-linear") -> Cost:
    """Count the costs of ``model`` for one picture; the model is not changed and nothing is computed on real numbers
    where the model allows it.

    A detector is counted up to its heads' outputs, at the size to which it resizes and pads the image; decoding and
    suppression of boxes have no multiply-accumulates. The second stage of a Faster R-CNN is counted for as many boxes
    as it looks at if suppression removes none (:func:`seedcnn.models.raw.proposals`), so that the count does not depend
    on the weights.

    Args:
        model: any torch model that takes a batch of pictures; wrappers of ``torch.compile``, DataParallel and
            DistributedDataParallel are taken off.
        input_size: channels, height and width of a picture.
        convention: what a multiply-accumulate is, a key of :data:`CONVENTIONS`: "conv-linear" (equal to half of
            ``torch.utils.flop_counter``), "torchprofile" (the GroupNL and MonoCNN tables) or "torchsummaryx" (the
            dissertation's tables).

    Raises:
        ConfigError: if the convention does not exist.
        ValueError: if ``input_size`` is not three positive integers, or the model cannot take such a picture.
    """
    if convention not in CONVENTIONS:
        raise ConfigError(f"unknown convention {convention!r}; known conventions: {', '.join(CONVENTIONS)}")
    if len(input_size) != 3 or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in input_size):
        raise ValueError(f"`input_size` (={input_size!r}) must be three positive integers: channels, height, width")
    model = unwrapped(model)
    has_numbers = not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
    try:
        try:
            counted = _count(copy_without_weights(model), input_size, convention)
        except Exception:
            # The same counts, slower: for models that look at their numbers, and to get the real error of a misfit.
            if not has_numbers:
                raise
            counted = _count(copy_model(model).cpu(), input_size, convention)
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        sentence = (str(error) or type(error).__name__).split("\n")[0]
        raise ValueError(f"{type(model).__name__} cannot take `input_size` (={input_size}): {sentence}") from error
    modules = list(model.modules())
    parameters = sum(p.numel() for p in model.parameters())
    norms = sum(m.num_features for m in modules if isinstance(m, nn.modules.batchnorm._BatchNorm))
    frozen = sum(m.get_buffer("running_mean").numel() for m in modules if isinstance(m, frozen_types()))
    seeded = any(isinstance(m, SeededConv2d) for m in modules)
    layers: tuple[LayerCost, ...] = counted["layers"]
    return Cost(
        params=learnable_count(model),
        fixed=sum(row.fixed for row in layers),
        macs=sum(row.macs for row in layers),
        nlf_evals=sum(row.nlf_evals for row in layers),
        fp32_bytes=4 * parameters + 8 * norms + 16 * frozen + 8 * seeded,
        convention=convention,
        **counted,
    )
