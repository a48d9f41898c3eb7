"""Packing on the grid of an earlier release, so that a small delta leads from one to the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import exp, log

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import fx

from seedcnn.arrays import F32, I16
from seedcnn.bundle import Bundle, Preprocessing
from seedcnn.bundle.codings import sha256
from seedcnn.errors import BundleError
from seedcnn.export import OnnxModel
from seedcnn.export.bundles import DIVISOR_LEVELS, LARGEST, OnGrid, divisor_step, is_weight, vector_grids
from seedcnn.messages import Advance
from seedcnn.pack.memory import Activations, Inputs, Memory
from seedcnn.pack.rounding import integers_near
from seedcnn.pack.statistics import fisher_information, input_grams

__all__ = ["Parent", "check_follows", "check_kind", "parent_grids"]

_SHRUNK = 4  # a per-channel tensor that became this much smaller gets a finer grid
_INFORMED = 64  # images for the Fisher information
_OPENING = 40  # naming a tensor in a delta takes as many bytes as this number of changes


@dataclass(frozen=True, eq=False)
class Parent:
    """The release that a network was fine-tuned from.

    Args:
        bundle: as it was published; the child takes its grids.
        images: uint8 [N, H, W, 3] calibration images. Weights change where that brings the layers' outputs on these
            images closer, see :meth:`seedcnn.pack.rounding.Rounder.integers_near`. None rounds every weight to the
            nearest grid point, which suits fine grids only: on a coarse grid it would undo the parent's rounding.
        price: what one change must gain, in units of its effect on the loss; a higher price makes a smaller delta.
    """

    bundle: Bundle
    images: npt.NDArray[np.uint8] | None = None
    price: float = 0.1


def _prices(
    price: float,
    grids: Mapping[str, OnGrid],
    folded: fx.GraphModule,
    inputs: Inputs,
    weights: list[str],
    at_once: int = 16,
) -> dict[str, float]:
    """The price of a change in each tensor, in units of the harm that an error of one step does there.

    A change in a typical tensor costs ``price``; where a step matters less to the loss, a change costs more.
    """
    others = [name for name in grids if name not in weights]
    shares = fisher_information(folded, inputs.spread(_INFORMED), weights, other=others, at_once=at_once).shares
    units = {name: log(place.typical_step / shares[name]) for name, place in grids.items()}
    sizes = {name: folded.get_parameter(name).numel() for name in weights}
    typical = sum(sizes[name] * units[name] for name in weights) / max(sum(sizes.values()), 1)
    return {name: price * exp(2 * (typical - unit)) for name, unit in units.items()}


def _unscaled(weight: torch.Tensor, scale: F32 | None) -> torch.Tensor:
    """The weight that the parent's scales make of its integers times their step; 0 where a scale is 0."""
    if scale is None:
        return weight
    factors = torch.from_numpy(scale).reshape(-1, *[1] * (weight.ndim - 1))
    return torch.where(factors != 0, weight / torch.where(factors != 0, factors, 1), 0)


def _outgrown(name: str, exported: OnnxModel, step: float, before: I16) -> bool:
    values = exported.tensors[name]
    if name in exported.divisors and divisor_step(values) * DIVISOR_LEVELS < step:
        return True
    largest, old = float(np.abs(values).max()), step * float(np.abs(before.astype(np.int32)).max())
    return not is_weight(values.shape) and not old / _SHRUNK <= largest <= LARGEST * step


def check_kind(parent: Bundle, int8: bool) -> None:
    """Refuse a parent whose graph is of the other kind, because a delta changes tensors and never the graph.

    Args:
        parent: the bundle that the delta is to start from.
        int8: whether the child is packed as int8.

    Raises:
        BundleError: if one of the two graphs is int8 and the other float32.
    """
    kind = "int8" if _is_int8(parent) else "float32"
    wanted = "int8" if int8 else "float32"
    if kind != wanted:
        raise BundleError(
            f"the parent, {parent.manifest.model} release {parent.manifest.release}, has a graph in {kind} and the "
            f"child one in {wanted}: no delta leads from one to the other; pack in {kind}, or without a parent"
        )


def _is_int8(bundle: Bundle) -> bool:
    return any(node.op_type == "QuantizeLinear" for node in onnx.load_model_from_string(bundle.graph()).graph.node)


def check_follows(parent: Bundle, **facts: object) -> None:
    """Refuse a child that no delta can lead to, as far as its facts tell before it is packed.

    Args:
        parent: the bundle that the delta is to start from.
        facts: fields of the child's manifest; its ``release`` must be above the parent's, all others equal to it.

    Raises:
        BundleError: naming the field and both values.
    """
    manifest = parent.manifest
    for name, value in facts.items():
        theirs = getattr(manifest, name)
        if name == "release" and isinstance(value, int) and value <= theirs:
            raise BundleError(
                f"the child is release {value} and the parent release {theirs}: a delta leads to a later release"
            )
        if isinstance(value, Preprocessing) and value != theirs:
            raise BundleError(
                f"the rules for pictures of the child and the parent differ: {value.differences(theirs)}; no delta "
                "leads from one to the other; pack without a parent"
            )
        if name != "release" and value != theirs:
            raise BundleError(
                f"the child has the {name} {value!s:.80} and the parent {theirs!s:.80}: no delta leads from one to the "
                "other; pack without a parent"
            )


def _check_architecture(parent: Bundle, exported: OnnxModel) -> None:
    """Refuse a network whose tensors or graph differ from the parent's."""
    manifest = parent.manifest
    known = {entry.name: entry for entry in manifest.tensors if entry.seeded is None and not entry.role}
    shapes = {name: values.shape for name, values in (exported.tensors | exported.constants).items()}
    if {name: entry.shape for name, entry in known.items()} != shapes:
        odd = sorted(name for name in known.keys() | shapes if name not in shapes or name not in known)
        odd = odd or [name for name, shape in shapes.items() if known[name].shape != shape]
        raise BundleError(
            f"the parent, {manifest.model} release {manifest.release}, has another architecture; "
            f"these tensors differ: {', '.join(odd):.200}"
        )
    if not _is_int8(parent) and sha256(exported.graph) != manifest.graph.sha256:
        raise BundleError(
            f"the parent, {manifest.model} release {manifest.release}, has another graph: no delta leads from "
            "it to the child; pack for the target that the parent was packed for, or without a parent"
        )


def parent_grids(
    parent: Parent,
    folded: fx.GraphModule,
    exported: OnnxModel,
    rule: Preprocessing,
    memory: Memory | None = None,
    advance: Advance | None = None,
) -> dict[str, OnGrid]:
    """The parent's grids for a network of the same architecture, and the integers too where the parent has images.

    A bias or folded norm gets a new grid if it is far larger or smaller than before, or if the old one would round to
    zero a number that the graph divides by.

    Raises:
        BundleError: if names or shapes of the tensors or the graphs differ, or a weight does not fit the parent's grid.
        BundleFormatError, DigestError: if a tensor of the parent is damaged.
    """
    _check_architecture(parent.bundle, exported)
    table = {entry.name: entry for entry in parent.bundle.manifest.tensors if entry.seeded is None}
    known = {name: entry for name, entry in table.items() if not entry.role}
    scales = {name: table[entry.scale] for name, entry in known.items() if entry.scale}
    grids = {name: OnGrid(entry.grid) for name, entry in known.items() if entry.grid is not None}
    olds: dict[str, I16] = {}
    values = parent.bundle.unscaled(olds)
    for name, entry in scales.items():
        grids[name] = replace(grids[name], scale=values[entry.name], scale_grid=entry.grid)
    outgrown = [name for name in grids if _outgrown(name, exported, grids[name].grid.step, olds[name])]
    fresh = {name: grid for name, grid in vector_grids(exported.tensors, exported.divisors).items() if name in outgrown}
    grids = {name: grid for name, grid in grids.items() if name not in outgrown}
    if parent.images is None:
        return grids | fresh
    inputs, memory = Inputs(parent.images, rule), Memory.of(None) if memory is None else memory
    sizes = Activations.of(folded, rule.shape)
    weights = [name for name in grids if is_weight(known[name].shape)]
    prices = _prices(parent.price, grids, folded, inputs, weights, memory.at_once(sizes.backward, most=16))
    tensors = {name: folded.get_parameter(name).detach() for name in grids}

    def follow(name: str, gram: torch.Tensor | None) -> None:
        place = grids[name]
        before = olds[name]
        wanted = _unscaled(tensors[name], place.scale)
        try:
            integers = integers_near(name, wanted, gram, place.grid.step, before, prices[name], opening=_OPENING)
        except ValueError as error:
            raise BundleError(f"the parent's grid does not fit: {error}") from None
        if name in exported.divisors:
            integers = np.where(integers == 0, np.sign(exported.tensors[name]).astype(np.int16), integers)
        grids[name] = replace(place, integers=integers)

    left = dict.fromkeys(grids)
    for name, gram in input_grams(folded, weights, inputs, memory, memory.at_once(sizes.forward, most=64), advance):
        follow(name, gram)
        del left[name]
    for name in left:
        follow(name, None)
    return grids | fresh  # a delta carries the fresh ones whole
