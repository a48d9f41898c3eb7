"""One file for devices of two capacities: can r = 4 be a prefix of r = 2? A small experiment on CIFAR-10.

ResNet-8 with GroupNL layers (normalised abs). In each layer the first quarter of the channels are the seeds for r = 4,
and the first half are the seeds for r = 2: a device with little room would take the first half of the file. Both
networks are trained at once, the shared seeds with the mean of both losses (nested, 1:1) or with a mean that counts the
large network three times (nested, 1:3); each has its own norms, as in slimmable networks (Yu et al., 2019). Controls:
each network trained alone for as many epochs (alone), and the small network taken from the large one without training,
except for its norms' statistics (cut).

    python benchmarks/prefix.py --record results/prefix-cifar10.json

Forty minutes per seed on one core; an interrupted run resumes with the parts that its record lacks.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from harness import about_runs
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from seedcnn.convert import GroupNLConfig, reestimate_batchnorm_
from seedcnn.data.sets.cifar10 import Cifar10, load_cifar10
from seedcnn.evaluate import cost
from seedcnn.evaluate.accuracies import accuracy, torch_predictor
from seedcnn.export import BundleInfo
from seedcnn.pack import pack, preprocessing_of
from seedcnn.processes import open_processes
from seedcnn.train import TrainConfig, TrainData, build_model
from seedcnn.train.data import open_batches
from seedcnn.train.randomness import seed_everything
from seedcnn.train.updates import Update

RATIOS = (4, 2)
SHARES = {"1:1": 0.5, "1:3": 0.25}  # weight of the small network's loss


def config(ratio: int, epochs: int, seed: int, precision: str = "bf16") -> TrainConfig:
    """Return the config of one capacity."""
    return TrainConfig(
        model="resnet8_cifar",
        model_options={"widths": (32, 64, 128), "patch": 2},
        convert=GroupNLConfig(scope="spatial", reduction_ratio=ratio),
        epochs=epochs,
        lr=0.8,
        precision=precision,
        seed=seed,
    )


def shared(small: nn.Module, large: nn.Module) -> dict[str, Tensor]:
    """Return the small network's parameters that are slices of the large one's, by name: all except those of norms.

    The slices are views, so that gradients flow into the large network's parameters.
    """
    norms = {name for name, module in small.named_modules() if isinstance(module, nn.BatchNorm2d)}
    theirs = dict(large.named_parameters())
    return {
        name: theirs[name][: len(parameter)]
        for name, parameter in small.named_parameters()
        if name.rpartition(".")[0] not in norms
    }


class Nested(nn.Module):
    """Both networks as one, with the mean of their losses, in which the small one's has weight ``share``."""

    def __init__(self, small: nn.Module, large: nn.Module, share: float) -> None:
        super().__init__()
        self.small, self.large, self.share = small, large, share
        for name in shared(small, large):
            small.get_parameter(name).requires_grad_(False)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the weighted mean of both cross-entropies."""
        answers = functional_call(self.small, shared(self.small, self.large), (images,))
        small, large = (F.cross_entropy(each.float(), labels) for each in (answers, self.large(images)))
        return self.share * small + (1 - self.share) * large

    def finish(self) -> dict[int, nn.Module]:
        """Return the two networks, each with its weights."""
        with torch.no_grad():
            for name, value in shared(self.small, self.large).items():
                self.small.get_parameter(name).copy_(value)
        return {4: self.small.eval(), 2: self.large.eval()}


def cut(small: nn.Module, large: nn.Module, run: TrainConfig, data: TrainData, steps: int = 100) -> nn.Module:
    """Cut the small network out of the large one, norms included, then estimate its norms' statistics on the data."""
    theirs = dict(large.named_parameters())
    with torch.no_grad():
        for name, parameter in small.named_parameters():
            parameter.copy_(theirs[name][: len(parameter)])
    with open_processes("cpu") as processes:
        batches = open_batches(run, data, processes, 0).epoch(0, 0, steps)
        reestimate_batchnorm_(small, (images for images, _, _ in batches))
    return small.eval()


class Alone(nn.Module):
    """One network."""

    def __init__(self, model: nn.Module, ratio: int) -> None:
        super().__init__()
        self.model, self.ratio = model, ratio

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy."""
        return F.cross_entropy(self.model(images).float(), labels)

    def finish(self) -> dict[int, nn.Module]:
        """Return the network."""
        return {self.ratio: self.model.eval()}


def trained(task: Nested | Alone, run: TrainConfig, data: TrainData) -> dict[int, nn.Module]:
    """Train with the engine's own batches, optimizer and schedule."""
    with open_processes("cpu") as processes:
        batches = open_batches(run, data, processes, 0)
        task = task.to(memory_format=torch.channels_last)
        update = Update(run, task, task, batches.steps, 1, processes.device)
        for epoch in range(run.epochs):
            task.train()
            for step, (images, labels, _) in enumerate(batches.epoch(epoch, 0, batches.steps)):
                update.schedule(epoch, step)
                with torch.autocast("cpu", torch.bfloat16, enabled=run.precision == "bf16"):
                    loss = task.loss(images, labels)
                update.backward(loss)
                update.step()
            print(f"epoch {epoch + 1}/{run.epochs}: loss {float(loss.detach()):.3f}", flush=True)
    return task.finish()


def seed_bytes(small: nn.Module, large: nn.Module) -> dict[str, int]:
    """Count the learnable numbers of each network, and of a file that holds their common ones once."""
    common = sum(value.numel() for value in shared(small, large).values())
    counts = [sum(p.numel() for p in network.parameters()) for network in (small, large)]
    return {"small": counts[0], "large": counts[1], "nested file": counts[1] + counts[0] - common}


def measured(model: nn.Module, cifar: Cifar10) -> dict[str, Any]:
    """Measure accuracy in percent, MACs, and bytes of the float32 bundle."""
    info = BundleInfo("prefix", "prefix", 1, preprocessing_of(cifar.mean, cifar.std), cifar.classes)
    found = accuracy(torch_predictor(model, cifar.mean, cifar.std), cifar.test_images, cifar.test_labels)
    packed = pack(model, info, cifar.test_images[:500], cifar.test_labels[:500], step=None)
    return {"top1": round(found.top1, 2), "macs": cost(model).macs, "float32_bytes": len(packed.data)}


def run_seed(seed: int, run: TrainConfig, cifar: Cifar10, row: dict[str, Any]) -> Iterator[None]:
    """Add the runs that the row lacks, yielding after each: nested, alone, and the small one cut from the large."""
    data = TrainData(cifar.train_images, cifar.train_labels, cifar.mean, cifar.std)

    def fresh(ratio: int) -> nn.Module:
        seed_everything(seed)
        return build_model(config(ratio, run.epochs, seed))

    row["learnable"] = seed_bytes(fresh(4), fresh(2))
    tasks: dict[str, Callable[[], Nested | Alone]] = {
        f"nested, {name}": partial(lambda share: Nested(fresh(4), fresh(2), share), share)
        for name, share in SHARES.items()
    }
    tasks |= {f"alone, r = {ratio}": partial(lambda ratio: Alone(fresh(ratio), ratio), ratio) for ratio in RATIOS}
    for name, task in tasks.items():
        if name in row:
            continue
        networks = trained(task(), run, data)
        row[name] = {f"r = {ratio}": measured(model, cifar) for ratio, model in networks.items()}
        if name == "alone, r = 2":
            row["cut"] = {"r = 4": measured(cut(fresh(4), networks[2], run, data), cifar)}
        print(f"seed {seed}, {name}: {row[name]}", flush=True)
        yield


def main() -> None:
    """Run every seed and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--precision", default="bf16", help="training precision; fp32 if the processor has no bfloat16")
    parser.add_argument("--record", type=Path, default=Path("results/prefix-cifar10.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cifar = load_cifar10()
    known = json.loads(arguments.record.read_text("utf-8")) if arguments.record.is_file() else {}
    rows = known.get("seeds", {}) if known.get("epochs") == arguments.epochs else {}
    for seed in arguments.seeds:
        row = rows.setdefault(str(seed), {})
        for _ in run_seed(seed, config(2, arguments.epochs, seed, arguments.precision), cifar, row):
            record = about_runs(
                "prefix.py", "ResNet-8 on CIFAR-10, r = 4 and r = 2 nested in one file, or each alone", 1
            )
            record |= {"epochs": arguments.epochs, "seeds": rows}
            arguments.record.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
