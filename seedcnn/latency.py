"""Latency for fair comparisons: candidates run interleaved in one process; results are medians and quartiles."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

__all__ = ["Latency", "interleave"]

Key = TypeVar("Key", bound=Hashable)
_FEWEST = 5


@dataclass(frozen=True)
class Latency:
    """Milliseconds per call: the median and the first and third quartile over ``n`` rounds."""

    median_ms: float
    q1_ms: float
    q3_ms: float
    n: int


def interleave(
    calls: Mapping[Key, Callable[[], object]],
    *,
    rounds: int = 300,
    warmup: int = 30,
    settle: int = 0,
    seconds: float = float("inf"),
    seed: int = 0,
) -> dict[Key, Latency]:
    """Time several callables against each other: each round calls every one of them once, in random order.

    Args:
        calls: the callables by name.
        rounds: largest number of measured rounds; at least 1.
        warmup: rounds whose times are discarded.
        settle: untimed calls right before each timed one, so that a call does not pay for what its neighbours left in
            the caches. This is what a device that runs a single model sees.
        seconds: no further round starts after this time, but at least five are made if ``rounds`` allows.
        seed: of the order within the rounds.

    Raises:
        ValueError: if ``rounds`` is below 1, or ``warmup`` or ``settle`` below 0.
    """
    if rounds < 1 or warmup < 0 or settle < 0:
        raise ValueError(
            f"`rounds` (={rounds}) must be positive and `warmup`, `settle` (={warmup}, {settle}) not negative"
        )
    order = list(calls)
    shuffle = random.Random(seed).shuffle
    times: dict[Key, list[float]] = {name: [] for name in order}
    begin = time.perf_counter()
    for index in range(warmup + rounds):
        if index - warmup >= _FEWEST and time.perf_counter() - begin > seconds:
            break
        shuffle(order)
        for name in order:
            for _ in range(settle):
                calls[name]()
            start = time.perf_counter()
            calls[name]()
            elapsed = time.perf_counter() - start
            if index >= warmup:
                times[name].append(elapsed * 1e3)
    result = {}
    for name in calls:
        q1, median, q3 = (float(value) for value in np.percentile(times[name], [25, 50, 75]))
        result[name] = Latency(median, q1, q3, len(times[name]))
    return result
