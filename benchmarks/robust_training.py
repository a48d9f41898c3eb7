"""Noise and a low-pass filter in training: gains and losses on CIFAR-10.

    python benchmarks/robust_training.py [OPTION ...] [--epochs 7] [--record results/robust-training.json]

The network of ``demo:vanilla`` at a rate of 0.05, trained on the first 45,000 images: one run of each option. Clean
accuracy on the other 5,000 training images, corrupted accuracy on the first 1,000 test images in 95 conditions. Rows
that are in the record and not measured again stay.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from harness import about_runs

from seedcnn.data.sets.cifar10 import load_cifar10
from seedcnn.evaluate import accuracy, robustness_many, torch_predictor
from seedcnn.files import write_file
from seedcnn.train import TrainData, TrainProgress, find_recipe, train

HELD, CORRUPTED = 5000, 1000
OPTIONS: dict[str, dict[str, object]] = {
    "plain": {},
    "noise=0.1": {"noise": 0.1},
    "noise=0.1, lowpass=stem": {"noise": 0.1, "lowpass": "stem"},
    "prime, noise=0.1, lowpass=stem": {"augment": "shift2+prime", "noise": 0.1, "lowpass": "stem"},
}


def main() -> None:
    """Train, measure, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("options", nargs="*", metavar="OPTION", help=f"of: {'; '.join(OPTIONS)}")
    parser.add_argument("--epochs", type=int, default=7)
    parser.add_argument("--record", type=Path)
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.options if name not in OPTIONS]:
        parser.error(f"no option is called {', '.join(unknown)}; they are {'; '.join(OPTIONS)}")
    torch.set_num_threads(1)
    cifar = load_cifar10()
    data = TrainData(cifar.train_images[:-HELD], cifar.train_labels[:-HELD], cifar.mean, cifar.std)
    held = cifar.train_images[-HELD:], cifar.train_labels[-HELD:]
    rows, predictors = {}, {}
    for name in arguments.options or OPTIONS:
        options = OPTIONS[name]
        config = replace(find_recipe("demo:vanilla"), epochs=arguments.epochs, lr=0.05, **options)
        quiet = TrainProgress(name, config.epochs, 1, quiet=True)
        network, state = train(
            config, data, Path("runs/robust-training") / f"{list(OPTIONS).index(name)}.ckpt", progress=quiet
        )
        predictors[name] = torch_predictor(network, cifar.mean, cifar.std)
        seconds = sum(row["cpu_seconds"] for row in state.history)
        rows[name] = {"clean": round(accuracy(predictors[name], *held).top1, 2), "cpu_seconds": round(seconds, 1)}
    tables = robustness_many(predictors, cifar.test_images, cifar.test_labels, max_images=CORRUPTED)
    for name, table in tables.items():
        groups = {group: round(mean, 2) for group, mean in table.group_means.items()}
        rows[name] |= {"mean_over_corruptions": round(table.mean_over_corruptions, 2), "groups": groups}
        print(name, rows[name], flush=True)
    if arguments.record is not None:
        about = about_runs("robust_training.py", " ".join((__doc__ or "").split("\n\n")[-1].split()), 1)
        known = json.loads(arguments.record.read_text("utf-8"))["rows"] if arguments.record.is_file() else {}
        about["command"] = "python benchmarks/robust_training.py --record results/robust-training.json"
        write_file(arguments.record, (json.dumps({**about, "rows": known | rows}, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
