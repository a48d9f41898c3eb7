"""Accuracy over bytes of networks trained on the grid, CIFAR-10: plain ones, narrowed ones, seeds, Ghost, depthwise.

    python benchmarks/frontier.py vanilla --widths 64 128 256 --tune 4 --prices 1 4 --seeds 0 1 2
    python benchmarks/frontier.py --table
    python benchmarks/frontier.py --plot docs/images/frontier.png

Each network (a family of ``rates.py``) is trained on all training images by the fast recipe and then tuned from there
once for each price of a bit. Sizes are of whole bundles, accuracies of what a device expands, on all 10,000 test
images. Runs are kept in ``results/frontier.json`` and not repeated.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib.pyplot as plt
import torch
from rates import FAMILIES, START, fast
from rich.console import Console
from rich.table import Table
from torch import nn

from seedcnn.data.sets.cifar10 import CLASSES, load_cifar10
from seedcnn.evaluate import accuracy, cost, torch_predictor
from seedcnn.export import BundleInfo
from seedcnn.files import write_file
from seedcnn.networks.tuning import tuned_config
from seedcnn.pack import pack
from seedcnn.train import Checkpoint, TrainConfig, TrainData, TrainProgress, train

RUNS = Path("runs/frontier")
Row = dict[str, Any]


class Frontier:
    """Runs and what they yielded, in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cifar = load_cifar10()
        self.data = TrainData(self.cifar.train_images, self.cifar.train_labels, self.cifar.mean, self.cifar.std)

    def rows(self) -> list[Row]:
        """All rows so far, also those of other processes."""
        return list(json.loads(self.path.read_text("utf-8"))) if self.path.is_file() else []

    def known(self, point: Row) -> bool:
        """Whether a point has been measured."""
        return any(all(row.get(key) == value for key, value in point.items()) for row in self.rows())

    def keep(self, row: Row) -> None:
        """Add a row to the file."""
        print(row, flush=True)
        write_file(self.path, (json.dumps([*self.rows(), row], indent=1) + "\n").encode())

    def train(self, config: TrainConfig, path: Path) -> tuple[nn.Module, Checkpoint]:
        """Train a network, or go on where a run stopped."""
        path.parent.mkdir(parents=True, exist_ok=True)
        return train(
            config, self.data, path, resume=True, progress=TrainProgress(path.stem, config.epochs, 1, quiet=True)
        )

    def start(self, point: Row) -> Path:
        """The checkpoint of a network before it is tuned; the first time, its row is kept too."""
        config = config_of(point)
        name = "-".join(
            map(str, (point["family"].replace(", ", "-"), *point["widths"], point["epochs"], point["seed"]))
        )
        path = RUNS / f"{name}.ckpt"
        if not self.known({**point, "tune": 0}) or not path.is_file():
            network, state = self.train(config, path)
            top1 = accuracy(torch_predictor(network, self.data.mean, self.data.std), *self.test()).top1
            size = cost(network, (3, 32, 32))
            seconds = round(sum(each["cpu_seconds"] for each in state.history))
            row = {**point, "tune": 0, "top1": round(top1, 2), "macs": size.macs, "cpu_seconds": seconds}
            if not self.known({**point, "tune": 0}):
                self.keep(row)
        return path

    def test(self) -> tuple[Any, Any]:
        """The test images and their labels."""
        return self.cifar.test_images, self.cifar.test_labels

    def measure(self, point: Row, epochs: int, price: float) -> None:
        """Tune a network for a price and pack it, unless that is known."""
        full = {**point, "tune": epochs, "price": price}
        if self.known(full):
            return
        start = self.start(point)
        config = tuned_config(config_of(point), start, epochs, price)
        network, state = self.train(config, start.with_suffix(f".{epochs}-{price:g}.ckpt"))
        info = BundleInfo(point["family"], "frontier", 1, self.data.preprocessing, list(CLASSES))
        packed = pack(network, info, *self.test(), grid_steps=state.steps)
        seconds = round(sum(each["cpu_seconds"] for each in state.history))
        self.keep({**full, "top1": round(packed.after.top1, 2), "bytes": len(packed.data), "cpu_seconds": seconds})


def config_of(point: Row) -> TrainConfig:
    """The recipe of a point's network."""
    return replace(
        fast(point["epochs"]),
        model_options={"widths": tuple(point["widths"])},
        convert=FAMILIES[point["family"]].convert,
        seed=point["seed"],
        **START,
    )


def grouped(rows: list[Row]) -> dict[tuple[Any, ...], list[Row]]:
    """Rows that differ in their seed only, tuned ones from small to large."""
    found = defaultdict(list)
    for row in rows:
        found[row["family"], tuple(row["widths"]), row["epochs"], row["tune"], row.get("price", 0.0)].append(row)
    return dict(sorted(found.items(), key=lambda item: (*item[0][:4], -item[0][4])))


def of(rows: list[Row], key: str) -> tuple[float, float]:
    """Mean and standard deviation of a value over seeds; the deviation of one run is 0."""
    values = [row[key] for row in rows]
    return mean(values), stdev(values) if len(values) > 1 else 0.0


def show(rows: list[Row]) -> None:
    """Print the table."""
    table = Table("family", "widths", "epochs", "tuned", "price", "bytes", "top-1, %", "n")
    for (family, widths, epochs, tuned, price), same in grouped(rows).items():
        top1, spread = of(same, "top1")
        size = f"{of(same, 'bytes')[0]:,.0f}" if tuned else "-"
        shown = f"{price:g}" if tuned else "-"
        deviation = f" ± {spread:.2f}" if len(same) > 1 else ""
        table.add_row(
            family,
            "/".join(map(str, widths)),
            str(epochs),
            str(tuned),
            shown,
            size,
            f"{top1:.2f}{deviation}",
            str(len(same)),
        )
    Console(width=120).print(table)


def draw(rows: list[Row], path: Path) -> None:
    """Draw accuracy over bytes, a curve for each network."""
    curves = defaultdict(list)
    for (family, widths, epochs, tuned, _), same in grouped(rows).items():
        if tuned:
            curves[family, widths, epochs, tuned].append((of(same, "bytes")[0] / 1000, *of(same, "top1"), len(same)))
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for (family, widths, _, _), points in sorted(curves.items(), key=lambda item: (item[0][1], item[0][0])):
        x, y, spread, n = zip(*sorted(points), strict=True)
        label = f"{family}, {'/'.join(map(str, widths))} (n = {min(n)})"
        axes.errorbar(x, y, yerr=spread, marker="o", markersize=4, capsize=2, label=label)
    axes.set(xscale="log", xlabel="whole bundle, kB", ylabel="top-1 of 10,000 test images, %")
    axes.set_xticks([8, 16, 32, 64, 128], ["8", "16", "32", "64", "128"], minor=False)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure points, or show what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"of: {'; '.join(FAMILIES)}")
    parser.add_argument("--widths", type=int, nargs=3, help="of the network; those of rates.py unless given")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--tune", type=int, default=4, help="epochs on the grid")
    parser.add_argument("--prices", type=float, nargs="+", default=[0.6, 2.4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--record", type=Path, default=Path("results/frontier.json"))
    parser.add_argument("--table", action="store_true", help="print what is there, and train nothing")
    parser.add_argument("--plot", type=Path, help="draw what is there, and train nothing")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.families if name not in FAMILIES]:
        parser.error(f"no family is called {', '.join(unknown)}; they are {'; '.join(FAMILIES)}")
    torch.set_num_threads(1)
    if arguments.plot is not None:
        draw(json.loads(arguments.record.read_text("utf-8")), arguments.plot)
    elif not arguments.table:
        frontier = Frontier(arguments.record)
        for seed in arguments.seeds:
            for family in arguments.families or list(FAMILIES):
                widths = list(arguments.widths or FAMILIES[family].widths)
                point = {"family": family, "widths": widths, "epochs": arguments.epochs, "seed": seed}
                for price in arguments.prices:
                    frontier.measure(point, arguments.tune, price)
    if arguments.plot is None:
        show(json.loads(arguments.record.read_text("utf-8")))


if __name__ == "__main__":
    main()
