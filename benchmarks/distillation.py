"""Gain from a teacher for MonoCNN and GroupNL at the demo's size: ResNet-8 on CIFAR-10, equal epochs and images.

The teacher is the vanilla network of the same seed. MonoCNN's stagewise training runs with both presets of
``seedcnn.train.distill_config.WEIGHTS``, and plain soft labels are compared with it. A vanilla student of the vanilla
teacher is the control, since soft labels may help any network.

    python benchmarks/distillation.py --record results/distillation-cifar10.json

Checkpoints are kept under ``--out``, and finished runs are not repeated. About 40 minutes for two seeds on one core.
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

from seedcnn.convert import ConversionConfig, GroupNLConfig, MonoConfig
from seedcnn.data.sets.cifar10 import load_cifar10
from seedcnn.evaluate import accuracy, torch_predictor
from seedcnn.train import DistillConfig, TrainConfig, TrainData, find_recipe, load_model, train

MONO, GROUPNL = MonoConfig(seed_filters=16), GroupNLConfig.paper(normalize="batch")
LOGITS = DistillConfig(kind="logits")
RUNS: dict[str, tuple[ConversionConfig | None, DistillConfig | None]] = {
    "vanilla": (None, None),  # the teacher comes first
    "vanilla, soft labels": (None, LOGITS),
    "Mono": (MONO, None),
    "Mono, stagewise (paper)": (MONO, DistillConfig(kind="stagewise", weights="paper")),
    "Mono, stagewise (public code)": (MONO, DistillConfig(kind="stagewise", weights="public")),
    "Mono, soft labels": (MONO, LOGITS),
    "GroupNL": (GROUPNL, None),
    "GroupNL, soft labels": (GROUPNL, LOGITS),
}


def config(run: str, arguments: argparse.Namespace, seed: int) -> TrainConfig:
    """Return the config of one run; all of them clip gradients at 5, as MonoCNN's code does."""
    convert, distill = RUNS[run]
    base = find_recipe("resnet8:vanilla")
    teacher = distill and replace(distill, teacher=str(path_of("vanilla", arguments, seed)))
    training = {"epochs": arguments.epochs, "lr": 0.2, "precision": "bf16", "clip_grad": 5.0}
    return replace(base, convert=convert, distill=teacher, seed=seed, **training)


def path_of(run: str, arguments: argparse.Namespace, seed: int) -> Path:
    """Return the path of a run's checkpoint."""
    name = "".join(letter if letter.isalnum() else "-" for letter in run)
    return Path(arguments.out) / f"{name}-{seed}.ckpt"


def summary(seeds: dict[str, dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Compute means over the seeds, and the teacher's effect within a seed."""
    result: dict[str, Any] = {}
    for run, (convert, _) in RUNS.items():
        plain = next(name for name, (other, teacher) in RUNS.items() if other == convert and teacher is None)
        top1 = [rows[run]["top1"] for rows in seeds.values()]
        change = [rows[run]["top1"] - rows[plain]["top1"] for rows in seeds.values()]
        time = [rows[run]["cpu_seconds"] / rows[plain]["cpu_seconds"] for rows in seeds.values()]
        result[run] = {"top1": round(statistics.mean(top1), 2), "change": round(statistics.mean(change), 2)}
        result[run] |= {"time_ratio": round(statistics.mean(time), 3)}
        if len(top1) > 1:
            result[run] |= {"top1_std": round(statistics.stdev(top1), 2)}
            result[run] |= {"change_std": round(statistics.stdev(change), 2)}
    return result


def show(found: dict[str, Any]) -> None:
    """Print the summary as a table."""
    table = Table("run", "top-1", "std", "change by the teacher", "std", "time of training")
    for run, row in found.items():
        spreads = [f"{row[name]:.2f}" if name in row else "-" for name in ("top1_std", "change_std")]
        table.add_row(
            run, f"{row['top1']:.2f}", spreads[0], f"{row['change']:+.2f}", spreads[1], f"{row['time_ratio']:.2f}"
        )
    Console(width=120).print(table)


def main() -> None:
    """Train, compare, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/distillation"), help="directory of the checkpoints")
    parser.add_argument("--record", type=Path, help="write the numbers as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    found = load_cifar10()
    data = TrainData(found.train_images, found.train_labels, found.mean, found.std)
    seeds: dict[str, dict[str, dict[str, float]]] = {}
    for seed in arguments.seeds:
        for run in RUNS:
            path = path_of(run, arguments, seed)
            _, state = train(config(run, arguments, seed), data, path, name=f"{run} {seed}", resume=True)
            test = accuracy(
                torch_predictor(load_model(path)[0], found.mean, found.std), found.test_images, found.test_labels
            )
            seconds = sum(row["cpu_seconds"] for row in state.history)
            row = {"top1": round(test.top1, 2), "cpu_seconds": round(seconds, 1)}
            seeds.setdefault(str(seed), {})[run] = row
            print(run, seed, row, flush=True)
    what = "ResNet-8 on CIFAR-10, top-1 in percent; CPU time of training beside that without a teacher"
    record = about_runs("distillation.py", what, arguments.threads) | {
        "epochs": arguments.epochs,
        "summary": summary(seeds),
        "seeds": seeds,
    }
    show(record["summary"])
    if arguments.record:
        arguments.record.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
