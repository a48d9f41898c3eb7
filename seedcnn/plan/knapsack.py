"""Multiple-choice knapsack: one option per layer, with the least total loss whose total cost meets a budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from seedcnn.arrays import F64

__all__ = ["choose"]

_STATES = 50_000


def _pareto(cost: F64, loss: F64) -> npt.NDArray[np.int64]:
    """Return the indices of the states that no other beats, by growing cost; of equal ones, the first."""
    order = np.lexsort((loss, cost))
    best = np.minimum.accumulate(loss[order])
    better = np.ones(len(order), bool)
    better[1:] = loss[order][1:] < best[:-1]
    return order[better]


def _thinned(cost: F64, capacity: float, states: int) -> npt.NDArray[np.int64]:
    """Return at most ``states`` + 1 indices of a front: the least loss within each step of the budget."""
    step = np.minimum((cost / capacity * states).astype(np.int64), states)
    # Loss falls along a front, so the last state of a step is its best.
    return np.flatnonzero(np.append(step[1:] != step[:-1], True))


def choose(
    costs: Sequence[Sequence[float]], losses: Sequence[Sequence[float]], capacity: float, *, states: int = _STATES
) -> list[int] | None:
    """Solve the multiple-choice knapsack by dynamic programming over the states that no other state beats.

    The answer is exact as long as at most ``states`` such states remain after each layer. Above that, only the least
    loss within each ``capacity / states`` is kept: the answer still meets the budget, and is at least as good as the
    best one within ``capacity * (1 - layers / states)``.

    Args:
        costs, losses: for each layer's options; costs are not negative.
        capacity: the budget.
        states: number of states to keep.

    Returns:
        The index of one option for each layer, or None if even the cheapest options exceed the budget. Of answers with
        equal loss it is the cheapest; of options equal in cost and loss, the earlier.

    Raises:
        ValueError: if a layer has no option, the two differ in length, a cost is negative, or a number is not finite.
    """
    if len(costs) != len(losses) or any(len(c) != len(v) or not len(c) for c, v in zip(costs, losses, strict=False)):
        raise ValueError("`costs` and `losses` must name the same options, at least one for each layer")
    front_cost, front_loss = np.zeros(1), np.zeros(1)
    history: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
    for layer_costs, layer_losses in zip(costs, losses, strict=True):
        c, v = np.asarray(layer_costs, np.float64), np.asarray(layer_losses, np.float64)
        if not (np.isfinite(c).all() and np.isfinite(v).all()) or (c < 0).any():
            raise ValueError(f"costs must be finite and not negative, losses finite: {c.tolist()}, {v.tolist()}")
        cost, loss = (c[:, None] + front_cost).ravel(), (v[:, None] + front_loss).ravel()
        inside = np.flatnonzero(cost <= capacity)
        if not len(inside):
            return None
        kept = inside[_pareto(cost[inside], loss[inside])]
        if len(kept) > states:
            kept = kept[_thinned(cost[kept], capacity, states)]
        history.append((kept // len(front_cost), kept % len(front_cost)))
        front_cost, front_loss = cost[kept], loss[kept]
    state = int(np.argmin(front_loss))
    chosen = []
    for option, before in reversed(history):
        chosen.append(int(option[state]))
        state = int(before[state])
    return chosen[::-1]
