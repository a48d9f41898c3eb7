"""Latency of exported models, measured so that the comparison can be believed: same process, interleaved, medians."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

__all__ = ["Latency", "interleave"]

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one call: median, first and third quartile over ``n`` rounds."""

    median_ms: float
    q1_ms: float
    q3_ms: float
    n: int


def interleave(
    calls: Mapping[Key, Callable[[], object]], *, rounds: int = 300, warmup: int = 30, seed: int = 0
) -> dict[Key, Latency]:
    """Time several callables against each other: each round calls each of them once, in random order.

    Args:
        calls: what to time, by name.
        rounds: measured rounds; must be positive.
        warmup: rounds whose times are thrown away.
        seed: of the order within the rounds.
    """
    if rounds < 1 or warmup < 0:
        raise ValueError(f"`rounds` (={rounds}) must be positive and `warmup` (={warmup}) not negative")
    order = list(calls)
    shuffle = random.Random(seed).shuffle
    times: dict[Key, list[float]] = {name: [] for name in order}
    for index in range(warmup + rounds):
        shuffle(order)
        for name in order:
            start = time.perf_counter()
            calls[name]()
            elapsed = time.perf_counter() - start
            if index >= warmup:
                times[name].append(elapsed * 1e3)
    result = {}
    for name in calls:
        q1, median, q3 = np.percentile(times[name], [25, 50, 75])
        result[name] = Latency(float(median), float(q1), float(q3), rounds)
    return result
