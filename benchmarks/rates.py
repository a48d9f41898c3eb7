"""Learning rates of Muon and SGD for each family of networks, sought by halves on validation images of CIFAR-10.

    python benchmarks/rates.py [FAMILY ...] [--epochs 3] [--share 0/2]
    python benchmarks/rates.py --table

The network is air_cifar 16/64/128, or 12/48/96 for the narrowed one, trained on 45,000 images and measured on the other
5,000; one run a point, standard error half a point. From (muon_lr, lr) = (0.08, 0.1), Muon's rate is doubled or halved
until the best is not at an end, and then that of SGD. Runs are kept in ``results/rates.json`` and not repeated.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from seedcnn.convert import ConversionConfig, DepthwiseSeparableConfig, GhostConfig, GroupNLConfig, MonoConfig
from seedcnn.data.sets.cifar10 import load_cifar10
from seedcnn.errors import TrainingError
from seedcnn.evaluate import accuracy, torch_predictor
from seedcnn.files import write_file
from seedcnn.machine import computes_in_bf16
from seedcnn.train import TrainConfig, TrainData, TrainProgress, train

START = {"muon_lr": 0.08, "lr": 0.1}
VALIDATION = 5000


@dataclass(frozen=True)
class Family:
    """A form and the widths of the network that has it."""

    convert: ConversionConfig | None
    widths: tuple[int, int, int] = (16, 64, 128)


FAMILIES = {
    "vanilla": Family(None),
    "narrowed": Family(None, (16, 48, 80)),
    "seeds, abs": Family(GroupNLConfig.paper(nlf="abs", phi_range=(-0.5, 0.5), normalize="batch")),
    "seeds, sine": Family(GroupNLConfig.paper(normalize="batch")),
    "mono": Family(MonoConfig(seed_filters=16)),
    "ghost": Family(GhostConfig()),
    "depthwise-separable": Family(DepthwiseSeparableConfig(), (32, 96, 160)),
}


def fast(epochs: int) -> TrainConfig:
    """The recipe apart from its rates."""
    return TrainConfig(
        "air_cifar",
        epochs=epochs,
        batch_size=256,
        optimizer="muon+sgd",
        schedule="linear",
        warmup_epochs=0.15 * epochs,
        label_smoothing=0.1,
        augment="shift2",
        flip="alternating",
        precision="bf16" if computes_in_bf16() else "fp32",
    )


class Runs:
    """Runs and their accuracies, in a file."""

    def __init__(self, path: Path, epochs: int) -> None:
        cifar = load_cifar10()
        order = np.random.default_rng(0).permutation(len(cifar.train_images))
        kept, held = np.sort(order[VALIDATION:]), np.sort(order[:VALIDATION])
        self.data = TrainData(cifar.train_images[kept], cifar.train_labels[kept], cifar.mean, cifar.std)
        self.held = cifar.train_images[held], cifar.train_labels[held]
        self.path, self.epochs = path, epochs

    def rows(self) -> list[dict[str, Any]]:
        """All runs so far, also of other processes."""
        return list(json.loads(self.path.read_text("utf-8"))) if self.path.is_file() else []

    def accuracy(self, name: str, rates: dict[str, float], seed: int = 0, **changes: Any) -> float:
        """Accuracy in percent of a run, trained unless it is known; 0 if its loss was not finite."""
        point = {"family": name, **rates, "epochs": self.epochs, "seed": seed, **changes}
        for row in self.rows():
            if all(row.get(key) == value for key, value in point.items()):
                return float(row["top1"])
        family = FAMILIES[name]
        config = replace(
            fast(self.epochs), model_options={"widths": family.widths}, convert=family.convert, seed=seed, **rates
        )
        config = replace(config, **changes)
        quiet = TrainProgress(name, self.epochs, 1, quiet=True)
        row = {**point, "top1": 0.0}
        try:
            model, state = train(config, self.data, Path("runs/rates") / f"{name}.ckpt", progress=quiet)
        except TrainingError as error:
            row["failed"] = str(error).partition(";")[0]
        else:
            measured = accuracy(torch_predictor(model, self.data.mean, self.data.std), *self.held)
            row["top1"] = round(measured.top1, 2)
            row["cpu_seconds"] = round(sum(each["cpu_seconds"] for each in state.history), 1)
        print(row, flush=True)
        write_file(self.path, (json.dumps([*self.rows(), row], indent=1) + "\n").encode())
        return float(row["top1"])


def best_of(measure: Callable[[float], float], start: float) -> float:
    """The rate of the highest accuracy among the start, its halves and its doubles, none of which is at an end."""
    found = {rate: measure(rate) for rate in (start, start / 2, start * 2)}
    while True:
        best = max(found, key=lambda rate: found[rate])
        if more := [rate for rate in (best / 2, best * 2) if rate not in found]:
            found |= {rate: measure(rate) for rate in more}
        else:
            return best


def seek(runs: Runs, name: str) -> dict[str, float]:
    """The best rates of a family: Muon's at the start's rate of SGD, then SGD's."""
    rates = dict(START)
    for key in ("muon_lr", "lr"):
        rates[key] = best_of(lambda rate, key=key: runs.accuracy(name, {**rates, key: rate}), rates[key])
    return rates


def show(rows: list[dict[str, Any]]) -> None:
    """Print the table: accuracy by family and rates."""
    table = Table("family", "epochs", "muon_lr", "lr", "top-1, %", "processor s")
    rows = [row for row in rows if row.get("seed") == 0]
    tops: dict[tuple[str, int], float] = {}
    for row in rows:
        key = row["family"], row["epochs"]
        tops[key] = max(tops.get(key, 0.0), row["top1"])
    for row in sorted(rows, key=lambda row: (list(FAMILIES).index(row["family"]), row["muon_lr"], row["lr"])):
        mark = " *" if row["top1"] == tops[row["family"], row["epochs"]] else ""
        values = (row["epochs"], row["muon_lr"], row["lr"], f"{row['top1']:.2f}{mark}", row.get("cpu_seconds", "-"))
        table.add_row(row["family"], *map(str, values))
    Console().print(table)


def main() -> None:
    """Seek the rates of families, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"of: {'; '.join(FAMILIES)}")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--share", default="0/1", help="part and number of parts, for this process")
    parser.add_argument("--record", type=Path, default=Path("results/rates.json"))
    parser.add_argument("--table", action="store_true", help="print what is there, and train nothing")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.families if name not in FAMILIES]:
        parser.error(f"no family is called {', '.join(unknown)}; they are {'; '.join(FAMILIES)}")
    if not arguments.table:
        torch.set_num_threads(1)
        Path("runs/rates").mkdir(parents=True, exist_ok=True)
        part, parts = map(int, arguments.share.split("/"))
        runs = Runs(arguments.record, arguments.epochs)
        for name in (arguments.families or list(FAMILIES))[part::parts]:
            print(f"{name}: {seek(runs, name)}", flush=True)
    show(json.loads(arguments.record.read_text("utf-8")))


if __name__ == "__main__":
    main()
