"""Bundles of exported networks."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import floor, log2
from pathlib import Path

import numpy as np
import numpy.typing as npt

from seedcnn.arrays import F32
from seedcnn.bundle import (
    Grid,
    Preprocessing,
    as_scale,
    encode_grid,
    encode_raw,
    encode_seeded,
    grid_of_step,
    write_bundle,
)
from seedcnn.bundle.adaptable import Site
from seedcnn.bundle.codings import Coded, encode_integers
from seedcnn.errors import BundleError, ExportError
from seedcnn.export.norm_sites import NormSites
from seedcnn.export.onnx_graphs import INPUT, OUTPUT, OnnxModel
from seedcnn.rng import random_bytes
from seedcnn.runtime.answerer import Answerer
from seedcnn.runtime.pictures import canned_pictures
from seedcnn.runtime.session import open_session

__all__ = [
    "DIVISOR_LEVELS",
    "LARGEST",
    "SCALE_ENDING",
    "VECTOR_LEVELS",
    "BundleInfo",
    "OnGrid",
    "divisor_step",
    "encode_learned",
    "encode_tensors",
    "grids_of_step",
    "is_weight",
    "to_bundle",
    "vector_grids",
]

CANNED_COUNT = 4
_CANNED_SEED = 0x5EEDC44E
RELATIVE_TOLERANCE = 1e-3
_MAX_LOGIT = 1e6
VECTOR_LEVELS = 500
SCALE_ENDING = ".scale"
_SHORTEST_VECTOR = 8  # elements; a shorter vector is not worth a step in the manifest
LARGEST = 32_000  # largest integer on a grid, which leaves a later release room on the same grid
DIVISOR_LEVELS = 4  # steps in the smallest number that a graph divides by, so that none becomes zero


@dataclass(frozen=True)
class BundleInfo:
    """A bundle's facts about its model, besides the tensors.

    Args:
        model, family: names; a device follows one family.
        release: counter that grows with each release of the family.
        min_release: devices that once ran a release above this may not go below it.
        preprocessing: rule that turns an image into the input.
        labels: class names in the order of the logits.
        data: name of the test set, for the accuracy that the bundle states; may be empty.
    """

    model: str
    family: str
    release: int
    preprocessing: Preprocessing
    labels: Sequence[str]
    min_release: int = 0
    data: str = ""


def is_weight(shape: tuple[int, ...]) -> bool:
    """Return whether a tensor goes on the weights' grid: at least two axes longer than 1, as in convolutions."""
    return sum(size > 1 for size in shape) >= 2


@dataclass(frozen=True, eq=False)
class OnGrid:
    """A tensor's grid.

    Attributes:
        grid: value = integer * step, or scale of the output channel * (integer * step).
        integers: int16 of the tensor's shape, if they are not simply the nearest ones.
        scale: float32 [output channels], which travels as a tensor of its own; None scales nothing.
        scale_grid: of ``scale``; None for a grid as in :func:`vector_grids`.
    """

    grid: Grid
    integers: npt.NDArray[np.int16] | None = None
    scale: F32 | None = None
    scale_grid: Grid | None = None

    @property
    def typical_step(self) -> float:
        """The step, times the root mean square of the scales."""
        if self.scale is None or not self.scale.any():
            return self.grid.step
        return self.grid.step * float(np.sqrt(np.square(self.scale, dtype=np.float64).mean()))

    def encode(self, name: str, values: F32) -> list[Coded]:
        """Code a tensor, and behind it the scale, which takes its name and ``.scale``.

        Raises:
            BundleError: if a value is not finite or does not fit its grid, or a scale is of another shape or size.
        """
        scale = None
        if self.scale is not None:
            where = name + SCALE_ENDING
            own = self.scale_grid
            if own is None and (found := vector_grids({where: self.scale})):
                own = found[where].grid
            plain = encode_raw(where, self.scale) if own is None else encode_grid(where, self.scale, own)
            scale = as_scale(plain)
        if self.integers is None:
            coded = encode_grid(name, values, self.grid, scale=scale)
        else:
            coded = encode_integers(name, self.integers, self.grid, scale=scale)
        return [coded] if scale is None else [coded, scale]


def divisor_step(values: F32) -> float:
    """Return the coarsest step for a tensor that the graph divides by: a quarter of its smallest nonzero magnitude."""
    sizes = np.abs(values[values != 0])
    return float(sizes.min(initial=np.inf)) / DIVISOR_LEVELS


def vector_grids(
    tensors: Mapping[str, F32], divisors: Collection[str] = (), levels: int = VECTOR_LEVELS
) -> dict[str, OnGrid]:
    """Give each per-channel tensor (biases, folded norms) that is long enough its own grid.

    The step is a power of two, which is short in the manifest. The error is at most half a step, and a later release
    may grow thirtyfold on the same grid. A divisor gets no grid if its smallest number needs a finer
    step than its largest allows.

    Args:
        divisors: tensors that the graph divides by, see :func:`divisor_step`.
        levels: steps up to the largest number, at least; twice as many at most.
    """
    found = {}
    for name, values in tensors.items():
        largest = float(np.abs(values).max(initial=0))
        if is_weight(values.shape) or values.size < _SHORTEST_VECTOR or not 2.0**-80 < largest < 2.0**30:
            continue
        step = largest / levels
        if name in divisors:
            step = min(step, divisor_step(values))
        step = 2.0 ** floor(log2(step))
        if largest / step <= LARGEST:
            found[name] = OnGrid(grid_of_step(step))
    return found


def grids_of_step(tensors: Mapping[str, F32], step: float, divisors: Collection[str] = ()) -> dict[str, OnGrid]:
    """Give all weights (see :func:`is_weight`) a grid of one step, and the rest :func:`vector_grids`.

    A weight that the graph divides by gets no grid if the step would round any of it to zero.
    """
    grid = OnGrid(grid_of_step(step))
    weights = [name for name, values in tensors.items() if is_weight(values.shape)]
    found = {name: grid for name in weights if name not in divisors or step <= divisor_step(tensors[name])}
    return found | vector_grids(tensors, divisors)


def encode_tensors(model: OnnxModel, grids: Mapping[str, OnGrid] | None = None) -> list[Coded]:
    """Code every tensor of a graph: learned ones by :func:`encode_learned`, constants exactly, fixed ones as seeds."""
    seeded = [encode_seeded(name, shape, drawn) for name, (shape, drawn) in model.seeded.items()]
    constants = [encode_raw(name, values) for name, values in model.constants.items()]
    return [*encode_learned(model.tensors, grids), *constants, *seeded]


def encode_learned(tensors: Mapping[str, F32], grids: Mapping[str, OnGrid] | None = None) -> list[Coded]:
    """Code learned tensors, each followed by its scale if it has one.

    Args:
        grids: grid by tensor name; other tensors are stored as float32.

    Raises:
        BundleError: see :meth:`OnGrid.encode`; or if a scale would take the name of another tensor.
    """
    coded: list[Coded] = []
    for name, values in tensors.items():
        place = (grids or {}).get(name)
        coded += [encode_raw(name, values)] if place is None else place.encode(name, values)
    if taken := {item.entry.name for item in coded if item.entry.role} & tensors.keys():
        raise BundleError(f"the scale of a tensor would take the name of another one: {min(taken)!r}")
    return coded


def _initializers(coded: Sequence[Coded]) -> dict[str, F32]:
    """The tensors that the graph reads, as a device expands them."""
    return {item.entry.name: item.expanded for item in coded if not item.entry.role}


def to_bundle(
    model: OnnxModel,
    info: BundleInfo,
    *,
    step: float | None = None,
    grids: Mapping[str, OnGrid] | None = None,
    tolerance: float = RELATIVE_TOLERANCE,
    libraries: Sequence[Path] = (),
    compression: str = "entropy",
    norms: NormSites | None = None,
    norms_grid: Grid | None = None,
) -> bytes:
    """Write a bundle: coded tensors, seeds, graph, manifest and four canned test vectors.

    ONNX Runtime computes the expected logits of the canned vectors from the tensors as the device will expand them.

    Args:
        step: step of the weights' grid, see :func:`grids_of_step`; None stores float32.
        grids: grid by tensor name, instead of a step.
        tolerance: largest deviation of a device's logits on the canned vectors, as a share of the largest logit.
        libraries: shared libraries of the operators that the graph needs, see ``seedcnn.runtime.custom_op``.
        compression: of the integers, one of :data:`seedcnn.bundle.compression.STORAGES`.
        norms: what a device needs to adapt the norms, see :func:`seedcnn.export.norm_sites.find_norms`.
        norms_grid: grid of their statistics, a parent's.

    Raises:
        BundleError: if a weight is not finite or does not fit the grid.
        ExportError: if the logits on the canned vectors are not finite, exceed 1e6, or do not fit the labels.
    """
    if grids is None and step is not None:
        grids = grids_of_step(model.tensors, step, model.divisors)
    coded = encode_tensors(model, grids)
    table: tuple[Site, ...] = ()
    if norms is not None:
        coded.append(norms.encode(norms_grid))
        table = norms.table([item.entry.name for item in coded])
    session = open_session(model.graph, _initializers(coded), libraries=libraries)
    rule = info.preprocessing
    shape = (CANNED_COUNT, rule.height, rule.width, rule.channels)
    images = random_bytes(_CANNED_SEED, tensor_id=0, count=int(np.prod(shape))).reshape(shape)
    logits = Answerer(session, INPUT, OUTPUT, rule).logits(images)
    largest = _check_logits(logits, len(info.labels))
    return write_bundle(
        model=info.model,
        family=info.family,
        release=info.release,
        min_release=info.min_release,
        graph=model.graph,
        graph_input=INPUT,
        graph_output=OUTPUT,
        tensors=coded,
        preprocessing=rule,
        labels=info.labels,
        canned_seed=_CANNED_SEED,
        canned_logits=logits,
        canned_tolerance=max(1e-4, tolerance * largest),
        canned_pictures=canned_pictures(_CANNED_SEED, rule),
        compression=compression,
        norms=table,
    )


def _check_logits(logits: F32, labels: int) -> float:
    """The largest logit of the canned vectors, [CANNED_COUNT, labels]."""
    if not np.isfinite(logits).all():
        raise ExportError("the network answers the canned vectors with values that are not finite")
    largest = float(np.abs(logits).max())
    if largest > _MAX_LOGIT:
        raise ExportError(
            f"the network answers the canned vectors with logits up to {largest:.1e}; at most {_MAX_LOGIT:.0e} can be "
            "checked on a device (were the running statistics of its norms ever estimated?)"
        )
    if logits.shape != (CANNED_COUNT, labels):
        raise ExportError(f"the network gives logits of shape {logits.shape} but there are {labels} labels")
    return largest
