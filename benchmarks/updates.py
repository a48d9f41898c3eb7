"""Labelled updates of a network on a noisy camera: accuracy over the bytes of the delta, by the part that is trained.

    python benchmarks/updates.py runs/net.tuned.ckpt [--epochs 2] [--images 10000] [--record results/updates.json]
    python benchmarks/updates.py --plot docs/images/updates.png

The checkpoint is of CIFAR-10 and was trained on a grid (``seedcnn pack --tune``). Each update starts from it, trains on
images under Gaussian noise of severity 3, and is packed with its parent; ``all`` also with a price on the bits that
change. Accuracy is that of the new bundle on all 10,000 test images under the same noise, one run each.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from harness import about_runs

from seedcnn.bundle import read_bundle
from seedcnn.data.corruptions import corrupt
from seedcnn.data.sets.cifar10 import CLASSES, Cifar10, load_cifar10
from seedcnn.evaluate import accuracy, torch_predictor
from seedcnn.export import BundleInfo
from seedcnn.files import write_file
from seedcnn.networks import open_checkpoint
from seedcnn.networks.tuning import tuned_config
from seedcnn.pack import pack
from seedcnn.pack.parent import Parent
from seedcnn.train import TrainConfig, TrainData, TrainProgress, load_checkpoint, train
from seedcnn.train.rate_config import RateConfig

NOISE = ("gaussian_noise", 3)
FEW = 256  # images that a bundle is compared with its network on


def variants(start: Path, epochs: int) -> dict[str, TrainConfig]:
    """The config of each update."""
    found = {}
    for part in ("norms", "head", "norms+head", "all"):
        for weight in (0.0, 2.0, 20.0) if part == "all" else (0.0,):
            rate = None if part == "norms" else RateConfig(weight, steps="start", lr=0.05)
            config = tuned_config(load_checkpoint(start).config, start.absolute(), epochs, weight)
            name = part if weight == 0 else f"{part}, price {weight:g}"
            found[name] = replace(config, rate=rate, update=part)
    return found


def run(start: Path, epochs: int, count: int) -> list[dict[str, Any]]:
    """Train, pack and measure each update."""
    cifar = load_cifar10()
    which = np.random.default_rng(0).permutation(len(cifar.train_images))[:count]
    images = corrupt(cifar.train_images[which], *NOISE)
    data = TrainData(images, cifar.train_labels[which], cifar.mean, cifar.std)
    test, labels = corrupt(cifar.test_images, *NOISE), cifar.test_labels
    base = open_checkpoint(start)
    info = BundleInfo("net", "updates", 1, data.preprocessing, list(CLASSES))
    parent = pack(base.module, info, test[:FEW], labels[:FEW], grid_steps=base.grid_steps).data
    before = accuracy(torch_predictor(base.module, cifar.mean, cifar.std), test, labels).top1
    rows: list[dict[str, Any]] = [{"update": "none", "bytes": 0, "top1": round(before, 2), "parent": len(parent)}]
    print(rows[0], flush=True)
    for name, config in variants(start, epochs).items():
        path = start.with_name(f"{start.stem}.update-{len(rows)}.ckpt")
        network, state = train(config, data, path, progress=TrainProgress(name, epochs, 1, quiet=True))
        following = Parent(read_bundle(parent))
        packed = pack(
            network, replace(info, release=2), test, labels, grid_steps=state.steps or base.grid_steps, parent=following
        )
        assert packed.delta is not None
        row = {"update": name, "bytes": len(packed.delta), "top1": round(packed.after.top1, 2)}
        rows.append({**row, "clean": round(clean_top1(network, cifar), 2)})
        print(rows[-1], flush=True)
    return rows


def clean_top1(network: torch.nn.Module, cifar: Cifar10) -> float:
    """Accuracy without noise, in percent."""
    return accuracy(torch_predictor(network, cifar.mean, cifar.std), cifar.test_images, cifar.test_labels).top1


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw accuracy over the bytes of the delta."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    axes.axhline(rows[0]["top1"], color="grey", linestyle=":", label="no update")
    for row, marker in zip(rows[1:], "os^vDPX*", strict=False):
        axes.plot(row["bytes"] / 1000, row["top1"], marker, markersize=8, alpha=0.8, label=row["update"])
    axes.set(xscale="log", xlabel="delta, kB", ylabel="top-1 under noise, %")
    axes.set_xticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure the updates, or draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--record", type=Path, default=Path("results/updates.json"))
    parser.add_argument("--plot", type=Path, help="draw what is in the record, and train nothing")
    arguments = parser.parse_args()
    if arguments.plot is not None:
        draw(json.loads(arguments.record.read_text("utf-8"))["rows"], arguments.plot)
        return
    if arguments.checkpoint is None:
        parser.error("give a checkpoint")
    torch.set_num_threads(1)
    rows = run(arguments.checkpoint, arguments.epochs, arguments.images)
    about = about_runs("updates.py", "CIFAR-10, Gaussian noise of severity 3, one run each, 10,000 test images", 1)
    write_file(arguments.record, (json.dumps({**about, "rows": rows}, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
