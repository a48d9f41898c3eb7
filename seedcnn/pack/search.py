"""Which grid is coarse enough: steps by sensitivity, rounding to the layers' inputs, and bisection on real pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor, inf, log2

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from seedcnn.bundle import Preprocessing, grid_of_step
from seedcnn.errors import DataError, ExportError
from seedcnn.evaluate import accuracy_of_logits, predict_logits
from seedcnn.export import OnnxModel
from seedcnn.export.bundles import F32, LARGEST, OnGrid, divisor_step, encode_learned, is_weight, vector_grids
from seedcnn.pack.measuring import Runtime
from seedcnn.pack.rounding import Rounder, relative_steps
from seedcnn.runtime.session import preprocess

__all__ = ["Candidate", "Search", "search_grids"]

_INFORMED = 256  # pictures for the Fisher information, a backward pass each
_ROUNDED = 512  # pictures for the statistics of the layers' inputs
_COARSEST, _FINEST, _PER_OCTAVE = 2, -10, 4  # powers of two of the weights' typical size
_FINER = 16  # the steps of what remains per channel: it is little, and rounded to the nearest


@dataclass(frozen=True, eq=False)
class Search:
    """What choosing a grid needs.

    Args:
        images, labels: uint8 [N, H, W, 3] and int64 [N]: calibration pictures, which are no test pictures.
        max_drop: largest accepted accuracy drop in percentage points. The drop on the calibration pictures must stay
            below it by a standard error, so that few pictures lead to a finer grid, not to a bad one.

    Raises:
        ValueError: if there is no picture, or not as many labels.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    max_drop: float = 0.2

    def __post_init__(self) -> None:
        if not len(self.images) or len(self.images) != len(self.labels):
            raise ValueError(
                f"`images` holds {len(self.images)} calibration pictures and `labels` {len(self.labels)}; "
                "a search needs at least one picture, and a label for each"
            )


@dataclass(frozen=True)
class Candidate:
    """One grid that was tried.

    Attributes:
        accepted: whether the drop is; the coarsest accepted one is taken.
        step: geometric mean of the steps, before those of what remains per channel are made finer.
        weight_bytes: coded bytes of the weights.
        bits_per_weight: of them.
        drop: accuracy lost on the calibration pictures, in percentage points; all of it where an answer is NaN.
        error: its standard error, over the pictures.
        agreement: share of these pictures that keep their first class, in percent.
    """

    accepted: bool
    step: float
    weight_bytes: int
    bits_per_weight: float
    drop: float
    error: float
    agreement: float


def search_grids(
    folded: fx.GraphModule,
    exported: OnnxModel,
    rule: Preprocessing,
    search: Search,
    runtime: Runtime,
    compression: str = "zstd",
) -> tuple[dict[str, OnGrid], tuple[Candidate, ...]]:
    """The coarsest grids whose accuracy drop on the calibration pictures, and its standard error, are accepted.

    The steps of all weights keep their proportion, see :func:`seedcnn.pack.rounding.relative_steps`; what remains per
    channel follows with steps a sixteenth as large, rounded to a power of two. A quarter of an octave lies between two
    candidates, and accuracy is measured on the exported graph in ``runtime``. The drop is taken to grow with the step,
    so few are tried.

    Returns:
        The grids by tensor, with the weights' integers, and what was tried, the finest first.

    Raises:
        ExportError: if even the finest grid loses more, or the network has no weight.
    """
    limits = {name: divisor_step(exported.tensors[name]) for name in exported.divisors}
    weights = {
        name: values
        for name, values in exported.tensors.items()
        if is_weight(values.shape) and (name not in limits or np.abs(values).max() <= LARGEST * limits[name])
    }
    if not weights:
        raise ExportError("the network has no weights to put on a grid")
    pictures = torch.from_numpy(preprocess(search.images[:_ROUNDED], rule))
    vectors = vector_grids(exported.tensors, exported.divisors)
    shares = relative_steps(folded, pictures[:_INFORMED], [*weights, *vectors])
    rounder = Rounder(folded, pictures, weights)
    total = sum(values.size for values in weights.values())
    squares = sum(float(np.square(values, dtype=np.float64).sum()) for values in weights.values())
    typical = (squares / total) ** 0.5
    least = {name: float(np.abs(values).max()) / LARGEST for name, values in weights.items()}  # fits 16 bits
    predict = runtime.graph_predictor(exported, rule)
    before = predict_logits(predict(_expanded(exported, vectors)), search.images)
    right = accuracy_of_logits(before, search.labels).correct
    tried: dict[int, tuple[Candidate, dict[str, OnGrid]]] = {}

    def accepted(place: int) -> bool:
        step = typical * 2.0 ** (place / _PER_OCTAVE)
        grids = {}
        for name, finest in vectors.items():
            coarse = min(2.0 ** round(log2(step * shares[name] / _FINER)), limits.get(name, inf))
            grids[name] = OnGrid(grid_of_step(max(finest.grid.step, 2.0 ** floor(log2(coarse)))))
        for name in weights:
            grid = grid_of_step(min(max(step * shares[name], least[name]), limits.get(name, inf)))
            grids[name] = OnGrid(grid, rounder.integers(name, grid.step))
        coded = encode_learned(weights, grids, compression)
        size = sum(len(each.payload.data) for each in coded if each.payload is not None)
        try:
            logits = predict_logits(predict(_expanded(exported, grids)), search.images)
        except DataError:  # NaN
            tried[place] = Candidate(False, step, size, 8 * size / total, 100 * float(right.mean()), 0.0, 0.0), grids
            return False
        lost = 100.0 * right - 100.0 * accuracy_of_logits(logits, search.labels).correct
        drop, error = float(lost.mean()), float(lost.std() / len(lost) ** 0.5)
        agreement = 100 * float((logits.argmax(1) == before.argmax(1)).mean())
        fits = drop + error <= search.max_drop
        tried[place] = Candidate(fits, step, size, 8 * size / total, drop, error, agreement), grids
        return fits

    low, high = _FINEST * _PER_OCTAVE, _COARSEST * _PER_OCTAVE
    if not accepted(low):
        found = tried[low][0]
        raise ExportError(
            f"even a grid step of {found.step:g} costs {found.drop:.2f} points (standard error {found.error:.2f}) on "
            f"{len(search.images)} calibration pictures; at most {search.max_drop} is accepted: use more pictures, or "
            "float32"
        )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if accepted(middle) else (low, middle)
    return tried[low][1], tuple(tried[place][0] for place in sorted(tried))


def _expanded(exported: OnnxModel, grids: Mapping[str, OnGrid]) -> dict[str, F32]:
    """The tensors of the graph as a device would expand them; nothing is compressed."""
    found = {}
    for name, values in exported.tensors.items():
        place = grids.get(name)
        if place is None:
            found[name] = values
        else:
            whole = np.rint(values / place.grid.step) if place.integers is None else place.integers
            found[name] = whole.astype(np.float32) * np.float32(place.grid.step)
    return found
