"""Training the demo's networks side by side, each in a process of its own with few threads.

Two threads in one small network wait for each other after every layer: beside other work they took three times as long
as one thread alone. Networks that share nothing do not wait.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from seedcnn.train import TrainConfig, TrainData, TrainProgress, train

_PATIENCE = 0.2  # seconds between two looks at the processes


@dataclass(frozen=True)
class Told:
    """A message of a training: batches done of all, its epoch and accuracy, and in the end its loss and seconds."""

    name: str
    done: int = 0
    total: int = 0
    epoch: int = 0
    accuracy: float = 0.0
    seconds: float = 0.0
    loss: float = 0.0
    finished: bool = False


class _Telling(TrainProgress):
    """Progress that another process shows."""

    def __init__(self, name: str, epochs: int, tell: Callable[[Told], None]) -> None:
        super().__init__(name, epochs, 0, quiet=True)
        self._tell, self._begun, self._counts, self._row = tell, time.monotonic(), (0, 0), {}

    def begin(self, total: int, done: int) -> None:
        """Note the number of batches."""
        self._counts = (done, total)

    def step(self, epoch: int, loss: float, accuracy: float) -> None:  # noqa: ARG002
        """Tell of a finished batch."""
        done, total = self._counts
        self._counts = (done + 1, total)
        self._tell(Told(self.name, done + 1, total, epoch + 1, accuracy))

    def epoch(self, number: int, row: dict[str, float]) -> None:
        """Keep the latest epoch."""
        super().epoch(number, row)
        self._row: dict[str, float] = row

    def __exit__(self, *error: object) -> None:
        """Tell how the training ended."""
        if self._row:
            done, total = self._counts
            taken = time.monotonic() - self._begun
            last = (self.epochs, self._row["accuracy"], taken, self._row["loss"])
            self._tell(Told(self.name, done, total, *last, finished=True))


_of_process: dict[str, Any] = {}


def _begin(data: TrainData, told: Any, threads: int) -> None:
    torch.set_num_threads(threads)
    _of_process.update(data=data, told=told)


def _train(name: str, config: TrainConfig, path: Path) -> float:
    """Train one network in this process, and return the processor seconds that it took."""
    begun = time.process_time()
    progress = _Telling(name, config.epochs, _of_process["told"].put)
    train(config, _of_process["data"], path, progress=progress, device="cpu")
    return time.process_time() - begun


def train_side_by_side(
    runs: Mapping[str, tuple[TrainConfig, Path]], data: TrainData, show: Callable[[Told], None]
) -> dict[str, float]:
    """Train networks at the same time, on all cores.

    Args:
        runs: name -> config and checkpoint; the first ones begin first.
        data: the training images.
        show: called for each batch of each network.

    Returns:
        Processor seconds by name.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(len(runs), cores)
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    options = {"mp_context": context, "initializer": _begin, "initargs": (data, told, max(1, cores // workers))}
    with ProcessPoolExecutor(workers, **options) as pool:
        futures: dict[str, Future[float]] = {name: pool.submit(_train, name, *run) for name, run in runs.items()}
        while not all(future.done() for future in futures.values()):
            _drain(told, show)
            for future in futures.values():
                if future.done():
                    future.result()  # raises what went wrong, without waiting for the others
        _drain(told, show)
        return {name: future.result() for name, future in futures.items()}


def _drain(told: Any, show: Callable[[Told], None]) -> None:
    """Show what has been told, and wait for a moment for more."""
    try:
        while True:
            show(told.get(timeout=_PATIENCE))
    except queue.Empty:
        pass
