"""The share of an epoch that is spent outside the network: data, log, checkpoint, validation.

Processor time of this process, on the demo's network and CIFAR-10. Training steps are timed as a whole, and within them
what the network takes (loss, gradients, update) and what the batches take; the log is the rest.

Run: python benchmarks/epoch.py [--recipe demo:groupnl] [--steps 40] [--repeats 5] [--validated 3000]
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console

from seedcnn.data.sets.cifar10 import load_cifar10
from seedcnn.data.transforms import normalize
from seedcnn.evaluate import accuracy, torch_predictor
from seedcnn.processes import Processes
from seedcnn.train import TrainData, TrainProgress, find_recipe, save_checkpoint
from seedcnn.train._counts import Counts
from seedcnn.train._run import Run


def processor_seconds(work: Callable[[], object]) -> float:
    """Processor seconds of this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


def median(values: list[float]) -> str:
    """The median and the range, in percent."""
    return f"{100 * statistics.median(values):5.1f} %  ({100 * min(values):.1f} to {100 * max(values):.1f})"


class Clock:
    """Processor seconds, summed over the calls of functions."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def of(self, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, timed."""

        def timed(*arguments: Any) -> Any:
            start = time.process_time()
            try:
                return work(*arguments)
            finally:
                self.seconds += time.process_time() - start

        return timed


def steps_of(run: Run, count: int, name: str) -> dict[str, float]:
    """Processor seconds of ``count`` training steps, of the network in them, and of their batches."""
    run.counts[0] = count
    network, data = Clock(), Clock()
    batches, epoch, step = run.batches, run.batches.epoch, run.update.step

    def timed_epoch(*arguments: int) -> Iterator[Any]:
        draw = data.of(iter(epoch(*arguments)).__next__)
        with contextlib.suppress(StopIteration):
            while True:
                yield draw()

    def whole() -> None:
        with TrainProgress(name, 1, count) as shown:
            for _ in run.epoch(0, 0, Counts(), shown):
                pass

    with (
        patch.object(batches, "epoch", timed_epoch),
        patch.object(run, "loss", network.of(run.loss)),
        patch.object(run, "_backward", network.of(run._backward)),
        patch.object(run.update, "step", network.of(step)),
    ):
        seconds = processor_seconds(whole)
    return {"whole": seconds, "network": network.seconds, "data": data.seconds}


def validation_of(run: Run, cifar: TrainData) -> tuple[float, float]:
    """Processor seconds of a validation on these images, and of the network in it."""
    network = run.model.eval()
    predict = torch_predictor(network, cifar.mean, cifar.std)
    whole = processor_seconds(lambda: accuracy(predict, cifar.images, cifar.labels))
    x = normalize(torch.from_numpy(cifar.images[:500]).permute(0, 3, 1, 2), cifar.mean, cifar.std, torch.float32)

    def forward() -> None:
        with torch.inference_mode():
            for _ in range(0, len(cifar.images), 500):
                network(x)

    return whole, processor_seconds(forward)


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="demo:groupnl")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--validated", type=int, default=3000, help="number of test images")
    given = parser.parse_args()
    config, cifar = find_recipe(given.recipe), load_cifar10()
    data = TrainData(cifar.train_images, cifar.train_labels, cifar.mean, cifar.std)
    test = TrainData(cifar.test_images[: given.validated], cifar.test_labels[: given.validated], cifar.mean, cifar.std)
    run = Run(config, data, Processes(), model=None, teacher=None, workers=0)
    steps_of(run, 3, given.recipe)
    shares: dict[str, list[float]] = {"data": [], "outside": [], "validation": [], "validation outside": [], "save": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(given.repeats):
            found = steps_of(run, given.steps, given.recipe)
            epoch = found["whole"] * run.steps / given.steps
            shares["data"].append(found["data"] / found["whole"])
            shares["outside"].append(1 - found["network"] / found["whole"])
            whole, network = (each * len(cifar.test_images) / given.validated for each in validation_of(run, test))
            shares["validation"].append(whole / (epoch + whole))
            shares["validation outside"].append((whole - network) / (epoch + whole))
            state = run.checkpoint(1, [])
            save = processor_seconds(lambda state=state: save_checkpoint(Path(folder) / "a.ckpt", state))  # type: ignore[misc]
            shares["save"].append(save / epoch)
    out = Console(highlight=False)
    out.print(f"{given.recipe}: batches of {config.batch_size}, {torch.get_num_threads()} threads, n = {given.repeats}")
    out.print(f"batches, of a training step                        {median(shares['data'])}")
    out.print(f"all but the network, of a training step            {median(shares['outside'])}")
    out.print(f"a checkpoint, of an epoch                          {median(shares['save'])}")
    out.print(f"validation, of an epoch with one                   {median(shares['validation'])}")
    out.print(f"validation but the network, of an epoch with one   {median(shares['validation outside'])}")


if __name__ == "__main__":
    main()
