"""The grids of a network that was trained on them: integers of its own, and a scale for each output channel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from torch import nn

from seedcnn.arrays import F32
from seedcnn.bundle import Bundle, Grid, grid_of_step
from seedcnn.errors import BundleError, ExportError
from seedcnn.export import OnnxModel
from seedcnn.export.bundles import SCALE_ENDING, OnGrid, is_weight, vector_grids

__all__ = ["trained_grids"]

_F64 = npt.NDArray[np.float64]
_OFF = 1e-5  # of the largest number of a tensor: what float32 arithmetic of the fold leaves
_LARGEST = 32767
_OTHER_LEVELS = 127  # of the weights that the fold mixes
_LEAST_SCALE = 2.0**-40
_BETWEEN = 1e-3  # steps


def _layouts(q: npt.NDArray[np.int16], shape: tuple[int, ...]) -> Iterator[npt.NDArray[np.int16]]:
    """The orders in which a fold may keep the filters of a layer, as arrays of the folded shape."""
    if q.shape == shape:
        yield q
    elif q.ndim == len(shape) == 4 and q.size == np.prod(shape) and q.shape[2:] == shape[2:]:
        yield q.reshape(shape)
        yield np.swapaxes(q, 0, 1).reshape(shape)


def _scales(values: F32, q: npt.NDArray[np.int16]) -> _F64 | None:
    """The scale of each output channel by which integers become these values; None if there is none."""
    rows, integers = values.reshape(len(values), -1).astype(np.float64), q.reshape(len(q), -1).astype(np.float64)
    norms = np.square(integers).sum(1)
    scales = np.divide((rows * integers).sum(1), norms, out=np.zeros(len(rows)), where=norms > 0)
    if np.abs(rows - scales[:, None] * integers).max(initial=0) > _OFF * np.abs(rows).max(initial=0):
        return None
    return np.where(norms > 0, scales, scales[norms > 0].mean() if norms.any() else 1.0)


def _nearness(name: str, other: str) -> int:
    """Length of the common beginning of two names."""
    return next((i for i, (a, b) in enumerate(zip(name, other, strict=False)) if a != b), min(len(name), len(other)))


def _on_grid(
    name: str, values: F32, sources: Mapping[str, npt.NDArray[np.int16]], steps: Mapping[str, float]
) -> OnGrid | None:
    """The grid of a folded weight, found among the integers of the network's own weights by what fits exactly."""
    for source in sorted(sources, key=lambda each: -_nearness(name, each)):
        for q in _layouts(sources[source], values.shape):
            if (scales := _scales(values, q)) is None:
                continue
            grid = grid_of_step(steps[source])
            relative = scales / grid.step
            relative[np.abs(relative) < _LEAST_SCALE] = 0
            if np.abs(relative - 1).max() < _OFF:
                return OnGrid(grid, np.ascontiguousarray(q))
            return OnGrid(grid, np.ascontiguousarray(q), relative.astype(np.float32))
    return None


def _integers(model: nn.Module, steps: Mapping[str, float]) -> dict[str, npt.NDArray[np.int16]]:
    parameters, found = dict(model.named_parameters()), {}
    for name, step in steps.items():
        if name not in parameters:
            raise ExportError(f"there is a step for {name}, but the network has no such weight")
        values = parameters[name].detach().cpu().double().numpy() / step
        q = np.rint(values)
        if (largest := np.abs(q).max(initial=0)) > _LARGEST:
            raise ExportError(f"{name} reaches {largest:.0f} steps of {step:g}; at most {_LARGEST} fit")
        if np.abs(values - q).max(initial=0) > _BETWEEN:
            worst = values.flat[np.abs(values - q).argmax()]
            raise ExportError(
                f"{name} is not on the grid it was trained on: one of its weights is {worst:.3f} steps of {step:g}; "
                "was it changed since?"
            )
        found[name] = q.astype(np.int16)
    return found


def trained_grids(
    model: nn.Module, steps: Mapping[str, float], exported: OnnxModel, parent: Bundle | None = None
) -> tuple[dict[str, OnGrid], tuple[str, ...]]:
    """The grids on which a network was trained, by the tensors of its folded form.

    A fold multiplies each output channel of a weight by a number of its own: that is the channel's scale, and the
    integers stay. What a fold mixes in another way gets a grid of 255 levels.

    Args:
        model: the network, whose weights are integers times their steps.
        steps: name of the weight -> its step.
        exported: its folded form.
        parent: take the grids of the scales and of the other tensors from this bundle, where they fit.

    Returns:
        The grids, and the names of the weights that have none of their own.

    Raises:
        ExportError: if a weight is not on its grid.
        BundleError: if the parent's steps are others.
    """
    sources, others = _integers(model, steps), []
    grids = vector_grids(exported.tensors, exported.divisors)
    for name, values in exported.tensors.items():
        if not is_weight(values.shape):
            continue
        if (found := _on_grid(name, values, sources, steps)) is None:
            others.append(name)
            if (largest := float(np.abs(values).max(initial=0))) > 0 and name not in exported.divisors:
                grids[name] = OnGrid(grid_of_step(largest / _OTHER_LEVELS))
        else:
            grids[name] = found
    if parent is not None:
        grids = {name: _following(name, place, exported, parent) for name, place in grids.items()}
    return grids, tuple(others)


def _following(name: str, place: OnGrid, exported: OnnxModel, parent: Bundle) -> OnGrid:
    """The grid with the steps of the parent, if it can have them."""
    known = {entry.name: entry for entry in parent.manifest.tensors}
    before = known.get(name)
    if before is None or before.grid is None:
        return place
    if place.integers is not None:
        if before.grid != place.grid:
            raise BundleError(
                f"the parent has {name} on a grid of {before.grid.step:g}, and the network was trained on one of "
                f"{place.grid.step:g}: train it with the parent's steps (rate.steps=start)"
            )
        own = known.get(name + SCALE_ENDING)
        if place.scale is None or own is None or own.grid is None or not _fits(place.scale, own.grid):
            return place
        return replace(place, scale_grid=own.grid)
    return replace(place, grid=before.grid) if _fits(exported.tensors[name], before.grid) else place


def _fits(values: F32, grid: Grid) -> bool:
    return float(np.abs(values).max(initial=0)) / grid.step <= _LARGEST
