"""The share of an epoch that is spent outside the network: data, log, checkpoint, validation.

Processor time of this process, on the demo's network and CIFAR-10. Training steps are timed as a whole, and within them
what the network takes (loss, gradients, update) and what the batches take; the log is the rest.

Run: python benchmarks/epoch.py [--recipe resnet8:groupnl] [--steps 40] [--repeats 5] [--validated 3000]
"""

from __future__ import annotations

import argparse
import contextlib
import pkgutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from torch import nn

from seedcnn.data.sets.cifar10 import load_cifar10
from seedcnn.data.transforms import normalize
from seedcnn.evaluate import accuracy, torch_predictor
from seedcnn.train import Checkpoint, TrainConfig, TrainData, find_recipe, save_checkpoint, train
from seedcnn.train.data import open_batches


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

    def each(self, values: Iterator[Any]) -> Iterator[Any]:
        """The same values, each of which is drawn with the clock running."""
        draw = self.of(values.__next__)
        with contextlib.suppress(StopIteration):
            while True:
                yield draw()


def timed(name: str, clock: Clock) -> Any:
    """A context in which a function of the engine, "module:qualified name", is timed where it is."""
    return patch(name.replace(":", "."), clock.of(pkgutil.resolve_name(name)))


def steps_of(config: TrainConfig, data: TrainData, folder: Path) -> tuple[dict[str, float], nn.Module, Checkpoint]:
    """Processor seconds of the training steps of an epoch, of the network in them, and of their batches."""
    network, batches = Clock(), Clock()

    def batches_of(*arguments: Any) -> Any:
        found = open_batches(*arguments)
        return SimpleNamespace(steps=found.steps, epoch=lambda *where: batches.each(found.epoch(*where)))

    with (
        patch("seedcnn.train._run.open_batches", batches_of),
        timed("seedcnn.train._run:Run.loss", network),
        timed("seedcnn.train._run:Run._backward", network),
        timed("seedcnn.train.updates:Update.step", network),
    ):
        model, state = train(config, data, folder / "a.ckpt", name="steps", until=1, device="cpu")
    seconds = {"whole": state.history[0]["cpu_seconds"], "network": network.seconds, "data": batches.seconds}
    return seconds, model, state


def validation_of(network: nn.Module, cifar: TrainData) -> tuple[float, float]:
    """Processor seconds of a validation on these images, and of the network in it."""
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
    parser.add_argument("--recipe", default="resnet8:groupnl")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--validated", type=int, default=3000, help="number of test images")
    given = parser.parse_args()
    config, cifar = find_recipe(given.recipe), load_cifar10()
    some = given.steps * config.batch_size
    data = TrainData(cifar.train_images[:some], cifar.train_labels[:some], cifar.mean, cifar.std)
    test = TrainData(cifar.test_images[: given.validated], cifar.test_labels[: given.validated], cifar.mean, cifar.std)
    shares: dict[str, list[float]] = {"data": [], "outside": [], "validation": [], "validation outside": [], "save": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(given.repeats):
            found, network, state = steps_of(config, data, Path(folder))
            epoch = found["whole"] * len(cifar.train_images) / some
            shares["data"].append(found["data"] / found["whole"])
            shares["outside"].append(1 - found["network"] / found["whole"])
            whole, inner = (each * len(cifar.test_images) / given.validated for each in validation_of(network, test))
            shares["validation"].append(whole / (epoch + whole))
            shares["validation outside"].append((whole - inner) / (epoch + whole))
            save = processor_seconds(partial(save_checkpoint, Path(folder) / "b.ckpt", state))
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
