"""Images a second of each augmentation, beside those of a training step.

Processor time of this process on one thread; the augmentations and the step take turns, so that a busy machine slows
all of them. The step is that of a recipe's network: loss, gradients and update, without its data. The first rows are
what every batch takes: a random crop with mirroring, and the normalisation.

Run: python benchmarks/augmentation.py [--recipe resnet8:vanilla] [--batch 128] [--rounds 30] [--precision fp32]
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from seedcnn.data import normalize, random_crop_flip, random_shift_flip
from seedcnn.data.augmentation import augmix, gaussian_noise, prime, trivial_augment
from seedcnn.train import TrainConfig, build_model, find_recipe
from seedcnn.train.updates import Update

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
SLOW = 5  # rounds of what works image by image


def options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="resnet8:vanilla", help="whose network takes the training step")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--only", default="", help="only augmentations whose name contains this")
    return parser.parse_args()


def augmentations(images: Tensor, generator: torch.Generator) -> dict[str, Callable[[], object]]:
    """The calls by name, for a batch of images, uint8 [N, 3, H, W]."""
    return {
        "crop, flip": lambda: random_crop_flip(images, generator),
        "shift2, flip": lambda: random_shift_flip(images, generator, 2),
        "normalisation": lambda: normalize(images, MEAN, STD).contiguous(memory_format=torch.channels_last),
        "prime": lambda: prime(images, generator),
        "prime, half of the images": lambda: prime(images, generator, share=0.5),
        "noise, half of the images": lambda: gaussian_noise(images, generator),
        "trivial": lambda: trivial_augment(images, generator),
        "augmix": lambda: augmix(images, generator),
    }


def step_of(config: TrainConfig, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """One update of a config's network: images float32 [N, 3, H, W], normalised."""
    model = build_model(config).to(memory_format=torch.channels_last).train()
    update = Update(config, model, model, 1, 1, torch.device("cpu"))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
            loss = F.cross_entropy(model(images), labels, label_smoothing=config.label_smoothing)
        update.backward(loss)
        update.step()

    return step


def microseconds(work: Callable[[], object], count: int) -> float:
    """Processor time of one call, for each of ``count`` images."""
    start = time.process_time()
    work()
    return (time.process_time() - start) / count * 1e6


def measure(calls: dict[str, Callable[[], object]], rounds: int, count: int) -> dict[str, list[float]]:
    """Microseconds an image of each call, in turns; image-by-image ones in the first rounds only."""
    for call in calls.values():
        call()  # what the first call takes longer
    found: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for name, call in calls.items():
            if number < SLOW or name not in ("trivial", "augmix"):
                found[name].append(microseconds(call, count))
    return found


def shown(found: dict[str, list[float]], step: str) -> Table:
    """Medians, quartiles and shares of the training step."""
    table = Table("", "images/s, median", "quartiles", "us an image", "of a training step")
    base = statistics.median(found[step])
    for name, times in found.items():
        low, middle, high = np.quantile(times, [0.25, 0.5, 0.75])
        quartiles = f"{1e6 / high:,.0f} to {1e6 / low:,.0f}"
        table.add_row(name, f"{1e6 / middle:,.0f}", quartiles, f"{middle:.1f}", f"{100 * middle / base:.1f} %")
    return table


def main() -> None:
    """Measure and print."""
    asked = options()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (asked.batch, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (asked.batch,), generator=generator)
    config = dataclasses.replace(find_recipe(asked.recipe), precision=asked.precision)
    chosen = {name: call for name, call in augmentations(pixels, generator).items() if asked.only in name}
    inputs = normalize(pixels, MEAN, STD).contiguous(memory_format=torch.channels_last)
    step = f"training step, {asked.recipe} in {asked.precision}"
    found = measure({step: step_of(config, inputs, labels), **chosen}, asked.rounds, asked.batch)
    Console(width=120).print(shown(found, step))


if __name__ == "__main__":
    main()
