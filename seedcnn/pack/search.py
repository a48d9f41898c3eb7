"""Searching the coarsest grid: steps by sensitivity, rounding to the layers' inputs, and bisection on real images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor, inf, log2

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from seedcnn.arrays import F32
from seedcnn.bundle import Preprocessing, grid_of_step
from seedcnn.errors import DataError, ExportError
from seedcnn.evaluate import accuracy_of_logits, predict_logits
from seedcnn.export import OnnxModel
from seedcnn.export.bundles import LARGEST, OnGrid, divisor_step, encode_learned, is_weight, vector_grids
from seedcnn.pack.measuring import Runtime
from seedcnn.pack.rounding import Rounder, relative_steps
from seedcnn.runtime.session import preprocess

__all__ = ["Candidate", "Search", "search_grids"]

_INFORMED = 64  # images for the Fisher information, one backward pass each
_ROUNDED = 512  # images for the statistics of the layers' inputs
_COARSEST, _FINEST, _PER_OCTAVE = 2, -10, 4  # powers of two of the weights' typical size
_FINER = 16  # per-channel tensors get finer steps: they are small, and rounded to the nearest


@dataclass(frozen=True, eq=False)
class Search:
    """Options of a search for the grid.

    Args:
        images, labels: uint8 [N, H, W, 3] and int64 [N], calibration images; do not use test images.
        max_drop: largest accepted accuracy drop in percentage points. The drop on the calibration images plus its
            standard error must stay within it, so that too few images lead to a finer grid rather than to a bad one.
        distinct: number of images that are no copies of others, which come first; None for all.

    Raises:
        ValueError: if there is no image, or not one label for each.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    max_drop: float = 0.2
    distinct: int | None = None

    def __post_init__(self) -> None:
        if not len(self.images) or len(self.images) != len(self.labels):
            raise ValueError(
                f"`images` holds {len(self.images)} calibration images and `labels` {len(self.labels)}; "
                "a search needs at least one image, and a label for each"
            )


@dataclass(frozen=True)
class Candidate:
    """One grid that was tried.

    Attributes:
        accepted: whether its drop is accepted; a search takes the coarsest accepted candidate.
        step: geometric mean of the steps, before those of per-channel tensors are made finer.
        weight_bytes: coded bytes of the weights.
        bits_per_weight: the same in bits for each weight.
        drop: accuracy lost on the calibration images, in percentage points; all accuracy if a logit is NaN.
        error: standard error of ``drop`` over the images; at least that of a single image that is lost, since no loss
            among few images says little.
        agreement: share of the images that keep their top class, in percent.
        n: number of calibration images.
        distinct: number of those that are no copies of others.
    """

    accepted: bool
    step: float
    weight_bytes: int
    bits_per_weight: float
    drop: float
    error: float
    agreement: float
    n: int
    distinct: int


class _Trials:
    """The common part of all candidates: statistics of the layers' inputs, and the logits without rounding."""

    def __init__(
        self,
        folded: fx.GraphModule,
        exported: OnnxModel,
        rule: Preprocessing,
        search: Search,
        runtime: Runtime,
        compression: str,
    ) -> None:
        self._exported, self._search, self._compression = exported, search, compression
        self._limits = {name: divisor_step(exported.tensors[name]) for name in exported.divisors}
        self._weights = {
            name: values
            for name, values in exported.tensors.items()
            if is_weight(values.shape) and np.abs(values).max() <= LARGEST * self._limits.get(name, inf)
        }
        if not self._weights:
            raise ExportError("the network has no weights to put on a grid")
        images = torch.from_numpy(preprocess(search.images[:_ROUNDED], rule))
        self._vectors = vector_grids(exported.tensors, exported.divisors)
        self._shares = relative_steps(folded, images[:_INFORMED], [*self._weights, *self._vectors])
        self._rounder = Rounder(folded, images, self._weights)
        self._count = sum(values.size for values in self._weights.values())
        self._predict = runtime.graph_predictor(exported, rule)
        self._before = predict_logits(self._predict(_expanded(exported, self._vectors)), search.images)
        self._right = accuracy_of_logits(self._before, search.labels).correct

    @property
    def typical(self) -> float:
        """Root mean square of the weights: the unit of the steps."""
        squares = sum(float(np.square(values, dtype=np.float64).sum()) for values in self._weights.values())
        return (squares / self._count) ** 0.5

    def grids(self, step: float) -> dict[str, OnGrid]:
        """Grids whose steps have the geometric mean ``step`` over the weights, with the weights' integers."""
        found = {}
        for name, finest in self._vectors.items():
            coarse = min(2.0 ** round(log2(step * self._shares[name] / _FINER)), self._limits.get(name, inf))
            found[name] = OnGrid(grid_of_step(max(finest.grid.step, 2.0 ** floor(log2(coarse)))))
        for name, values in self._weights.items():
            least = float(np.abs(values).max()) / LARGEST  # so that the integers fit 16 bits
            grid = grid_of_step(min(max(step * self._shares[name], least), self._limits.get(name, inf)))
            found[name] = OnGrid(grid, self._rounder.integers(name, grid.step))
        return found

    def measure(self, step: float, grids: Mapping[str, OnGrid]) -> Candidate:
        """Code the weights on these grids and measure the graph with them."""
        coded = encode_learned(self._weights, grids, self._compression)
        size = sum(len(each.payload.data) for each in coded if each.payload is not None)
        bits, n = 8 * size / self._count, len(self._right)
        distinct = n if self._search.distinct is None else self._search.distinct
        try:
            logits = predict_logits(self._predict(_expanded(self._exported, grids)), self._search.images)
        except DataError:  # a logit is NaN
            return Candidate(False, step, size, bits, 100 * float(self._right.mean()), 0.0, 0.0, n, distinct)
        lost = 100.0 * self._right - 100.0 * accuracy_of_logits(logits, self._search.labels).correct
        drop, error = float(lost.mean()), float(max(lost.std(), 100.0 / n**0.5) / n**0.5)
        agreement = 100 * float((logits.argmax(1) == self._before.argmax(1)).mean())
        return Candidate(drop + error <= self._search.max_drop, step, size, bits, drop, error, agreement, n, distinct)


def search_grids(
    folded: fx.GraphModule,
    exported: OnnxModel,
    rule: Preprocessing,
    search: Search,
    runtime: Runtime,
    compression: str = "zstd",
) -> tuple[dict[str, OnGrid], tuple[Candidate, ...]]:
    """The coarsest grids whose accuracy drop on the calibration images, plus its standard error, is accepted.

    The steps of the weights keep the proportion of :func:`seedcnn.pack.rounding.relative_steps`; those of per-channel
    tensors are a sixteenth as large, rounded to a power of two. Candidates lie a quarter of an octave apart, and their
    accuracy is that of the exported graph in ``runtime``. The search is a bisection: it assumes that a coarser grid
    loses more.

    Returns:
        The grids by tensor, with the weights' integers, and the candidates tried, finest first.

    Raises:
        ExportError: if even the finest grid loses more than ``max_drop``, or the network has no weight.
    """
    trials = _Trials(folded, exported, rule, search, runtime, compression)
    unit = trials.typical
    tried: dict[int, tuple[Candidate, dict[str, OnGrid]]] = {}

    def accepted(place: int) -> bool:
        step = unit * 2.0 ** (place / _PER_OCTAVE)
        grids = trials.grids(step)
        tried[place] = trials.measure(step, grids), grids
        return tried[place][0].accepted

    low, high = _FINEST * _PER_OCTAVE, _COARSEST * _PER_OCTAVE
    if not accepted(low):
        found = tried[low][0]
        raise ExportError(
            f"even a grid step of {found.step:g} costs {found.drop:.2f} points (standard error {found.error:.2f}) on "
            f"{found.n} calibration images; at most {search.max_drop} is accepted: use more images, a step, or float32"
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if accepted(middle) else (low, middle)
    return tried[low][1], tuple(tried[place][0] for place in sorted(tried))


def _expanded(exported: OnnxModel, grids: Mapping[str, OnGrid]) -> dict[str, F32]:
    """The tensors of the graph as a device would expand them."""
    found = {}
    for name, values in exported.tensors.items():
        place = grids.get(name)
        if place is None:
            found[name] = values
        else:
            whole = np.rint(values / place.grid.step) if place.integers is None else place.integers
            found[name] = whole.astype(np.float32) * np.float32(place.grid.step)
    return found
