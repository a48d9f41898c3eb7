"""Reduced sampling on CIFAR-10: measured against predicted time, and its cost in accuracy.

ResNet-8 (32/64/128 channels, 16 x 16 maps) is trained on all images, under each published setting, and, as the plain
alternative, on all images for fewer epochs. The runs of a seed take turns, an epoch each, in one process, so that other
load on the machine affects all of them; the time is that of the training steps.

    python benchmarks/sampling.py --seeds 0 1 --record results/sampling-cifar10.json

Checkpoints are kept under ``--out``, and an interrupted run resumes. Two hours for two seeds on one core.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from harness import about_runs
from rich.console import Console
from rich.table import Table

from seedcnn.data.sets.cifar10 import load_cifar10
from seedcnn.evaluate import accuracy, torch_predictor
from seedcnn.sampling import SETTINGS, predicted_time_ratio
from seedcnn.train import TrainConfig, TrainData, TrainProgress, find_recipe, load_model, train

FEWER = {"four fifths of the epochs": 0.8, "five eighths of the epochs": 0.625}
RUNS = {"full": None, **SETTINGS, **dict.fromkeys(FEWER)}


def config(setting: str, epochs: int, seed: int) -> TrainConfig:
    """Return the config of one setting; the last batch of an epoch is kept, as in the source (391 batches)."""
    return replace(
        find_recipe("resnet8:vanilla"),
        epochs=round(epochs * FEWER.get(setting, 1.0)),
        lr=0.2,
        precision="bf16",
        drop_last=False,
        sampling=RUNS[setting],
        seed=seed,
    )


def run_seed(arguments: argparse.Namespace, seed: int) -> dict[str, dict[str, Any]]:
    """Run all settings of a seed in turns: steps, seconds, training and test accuracy."""
    found = load_cifar10()
    data = TrainData(found.train_images, found.train_labels, found.mean, found.std)
    paths = {setting: arguments.out / f"{setting}-{seed}.ckpt" for setting in RUNS}
    for epoch in range(arguments.epochs):
        names = list(RUNS)[epoch % len(RUNS) :] + list(RUNS)[: epoch % len(RUNS)]
        for setting in names:
            wanted = config(setting, arguments.epochs, seed)
            if epoch < wanted.epochs:
                quiet = TrainProgress(setting, wanted.epochs, 1, quiet=True)
                train(wanted, data, paths[setting], progress=quiet, resume=True, until=epoch + 1)
        print(f"seed {seed}: epoch {epoch + 1} of {arguments.epochs}", flush=True)
    rows = {}
    for setting, path in paths.items():
        model, state = load_model(path)
        test = accuracy(torch_predictor(model, found.mean, found.std), found.test_images, found.test_labels)
        rows[setting] = {
            "steps": int(sum(row["batches"] for row in state.history)),
            "cpu_seconds": round(sum(row["cpu_seconds"] for row in state.history), 1),
            "seconds": round(sum(row["seconds"] for row in state.history), 1),
            "train_accuracy": round(state.history[-1]["accuracy"], 2),
            "top1": round(test.top1, 2),
        }
    return rows


def summary(epochs: int, seeds: dict[str, dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Compare each setting with full sampling of the same seed."""
    result: dict[str, Any] = {}
    for setting in RUNS:
        rows = [(found[setting], found["full"]) for found in seeds.values()]
        top1 = [row["top1"] for row, _ in rows]
        change = [row["top1"] - full["top1"] for row, full in rows]
        ratios = {
            clock: [row[clock] / full[clock] for row, full in rows] for clock in ("steps", "cpu_seconds", "seconds")
        }
        share = FEWER.get(setting)
        sampled = RUNS[setting]
        by_formula = predicted_time_ratio(sampled.ratios(epochs)) if sampled else round(epochs * (share or 1)) / epochs
        result[setting] = {
            "predicted": round(by_formula, 4),
            "predicted_by_batches": round(statistics.mean(ratios["steps"]), 4),
            "measured_cpu": [round(ratio, 4) for ratio in ratios["cpu_seconds"]],
            "measured_clock": [round(ratio, 4) for ratio in ratios["seconds"]],
            "measured_minus_predicted": round(statistics.mean(ratios["cpu_seconds"]) - by_formula, 4),
            "top1": round(statistics.mean(top1), 2),
            "top1_std": round(statistics.stdev(top1), 2) if len(top1) > 1 else None,
            "change": round(statistics.mean(change), 2),
            "change_std": round(statistics.stdev(change), 2) if len(change) > 1 else None,
        }
    return result


def show(found: dict[str, Any]) -> None:
    """Print the summary as a table."""
    table = Table("setting", "predicted", "CPU time", "clock", "difference", "top-1", "change", "std of change")
    for setting, row in found.items():
        means = [f"{statistics.mean(row[name]):.3f}" for name in ("measured_cpu", "measured_clock")]
        spread = "-" if row["change_std"] is None else f"{row['change_std']:.2f}"
        table.add_row(
            setting,
            f"{row['predicted']:.3f}",
            *means,
            f"{row['measured_minus_predicted']:+.3f}",
            f"{row['top1']:.2f}",
            f"{row['change']:+.2f}",
            spread,
        )
    Console(width=120).print(table)


def main() -> None:
    """Train, compare, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--epochs", type=int, default=30, help="a multiple of 30 divides evenly into all stages")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/sampling"), help="directory of the checkpoints")
    parser.add_argument("--record", type=Path, help="write the numbers as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    seeds = {str(seed): run_seed(arguments, seed) for seed in arguments.seeds}
    what = "training of ResNet-8 on CIFAR-10; time and top-1 (percent) beside full sampling of the same seed"
    record = about_runs("sampling.py", what, arguments.threads) | {
        "epochs": arguments.epochs,
        "summary": summary(arguments.epochs, seeds),
        "seeds": seeds,
    }
    show(record["summary"])
    if arguments.record:
        arguments.record.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
