"""Is a seed network worth choosing? Every form of ``worth_candidates.py`` against the controls, on real CIFAR-10.

    python benchmarks/worth.py tune            # learning rates: each family's representative on a validation part
    python benchmarks/worth.py screen          # every candidate, a short run, on the validation part
    python benchmarks/worth.py final FORM ...  # long runs on all training pictures, three seeds; test pictures

A run is a JSON file under ``results/worth/runs``, kept whatever came of it; its checkpoint is under ``--checkpoints``.
What is there is not run again, and an interrupted run goes on. ``--share 0/2`` and ``--share 1/2`` divide the work
between two processes, for two cores.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from worth_candidates import CANDIDATES, FAMILIES, network

from seedcnn.data import load_cifar10
from seedcnn.data.cifar10 import Cifar10
from seedcnn.errors import TrainingError
from seedcnn.evaluate import accuracy, cost, torch_predictor
from seedcnn.files import write_file
from seedcnn.train import TrainConfig, TrainData, TrainProgress, build_model, load_model, train

RATES = (0.1, 0.2, 0.4)  # and on by halves or doubles while the best one is the last
SHORT, LONG = 6, 20
VALIDATION = 5000
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Run:
    """A training run: stage ("tune", "screen" or "final"), candidate, learning rate, seed."""

    stage: str
    form: str
    lr: float
    seed: int

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.stage}-{re.sub(r'[^a-z0-9]+', '-', self.form.lower())}-lr{self.lr:g}-{self.seed}"

    def config(self) -> TrainConfig:
        """Its training."""
        candidate = CANDIDATES[self.form]
        return TrainConfig(
            model="resnet8_cifar",
            model_options=network(candidate),
            convert=candidate.convert,
            epochs=LONG if self.stage == "final" else SHORT,
            lr=self.lr,
            warmup_epochs=1.0,
            precision="bf16",
            seed=self.seed,
        )


@dataclass(frozen=True)
class Pictures:
    """What the runs of a stage train on, and what they are measured on."""

    train: TrainData
    images: np.ndarray[Any, np.dtype[np.uint8]]
    labels: np.ndarray[Any, np.dtype[np.int64]]


def pictures(cifar: Cifar10, stage: str) -> Pictures:
    """All training pictures and the test part for "final"; else the training pictures less a fixed part, and that."""
    if stage == "final":
        data = TrainData(cifar.train_images, cifar.train_labels, cifar.mean, cifar.std)
        return Pictures(data, cifar.test_images, cifar.test_labels)
    order = np.random.default_rng(0).permutation(len(cifar.train_images))
    kept, held = np.sort(order[VALIDATION:]), np.sort(order[:VALIDATION])
    data = TrainData(cifar.train_images[kept], cifar.train_labels[kept], cifar.mean, cifar.std)
    return Pictures(data, cifar.train_images[held], cifar.train_labels[held])


def run(wanted: Run, data: Pictures, out: Path, checkpoints: Path) -> dict[str, Any]:
    """Train and measure one run; what came of it, also where the loss was not finite."""
    path = out / "runs" / f"{wanted.name}.json"
    if path.is_file():
        return dict(json.loads(path.read_text("utf-8")))
    config = wanted.config()
    counted = cost(build_model(config))
    found: dict[str, Any] = {"stage": wanted.stage, "form": wanted.form, "family": CANDIDATES[wanted.form].family}
    found |= {"control": CANDIDATES[wanted.form].control, "lr": wanted.lr, "seed": wanted.seed, "epochs": config.epochs}
    found |= {"params": counted.params, "macs": counted.macs, "nlf_evals": counted.nlf_evals}
    checkpoint = checkpoints / f"{wanted.name}.ckpt"
    try:
        quiet = TrainProgress(wanted.name, config.epochs, 1, quiet=True)
        _, state = train(config, data.train, checkpoint, progress=quiet, resume=True)
    except TrainingError as error:
        found["failed"] = str(error).partition(";")[0]
    else:
        model = load_model(checkpoint)[0]
        predict = torch_predictor(model, data.train.mean, data.train.std)
        top1 = accuracy(predict, data.images, data.labels).top1
        found |= {"top1": round(top1, 2), "train_accuracy": round(state.history[-1]["accuracy"], 2)}
        found["cpu_seconds"] = round(sum(row["cpu_seconds"] for row in state.history), 1)
        if wanted.stage != "final":
            checkpoint.unlink()
    write_file(path, (json.dumps(found, indent=1) + "\n").encode())
    told = found.get("failed", f"{found.get('top1')} %")
    print(f"{wanted.name}: {told}", flush=True)
    return found


def best_rates(out: Path) -> dict[str, float]:
    """The learning rate of each family that did best on the validation part."""
    found: dict[str, list[tuple[float, float]]] = {}
    for path in sorted((out / "runs").glob("tune-*.json")):
        row = json.loads(path.read_text("utf-8"))
        found.setdefault(row["family"], []).append((row.get("top1", 0.0), row["lr"]))
    if missing := set(FAMILIES) - set(found):
        raise SystemExit(f"no learning rate is tuned for {', '.join(sorted(missing))}; run tune first")
    return {family: max(rows)[1] for family, rows in found.items()}


def tune(form: str, data: Pictures, out: Path, checkpoints: Path) -> None:
    """Runs at ``RATES``, then beyond them as long as the best rate is at an end."""
    found: dict[float, float] = {}
    wanted = list(RATES)
    while wanted:
        lr = wanted.pop(0)
        found[lr] = run(Run("tune", form, lr, 0), data, out, checkpoints).get("top1", 0.0)
        if not wanted:
            best = max(found, key=lambda rate: found[rate])
            wanted = [lr for lr in (best / 2, best * 2) if lr not in found]


def runs_of(arguments: argparse.Namespace) -> Iterator[Run]:
    """The runs of "screen" or "final", in order."""
    rates = best_rates(arguments.out)
    if arguments.stage == "screen":
        forms = arguments.forms or list(CANDIDATES)
        yield from (Run("screen", form, rates[CANDIDATES[form].family], 0) for form in forms)
        return
    for seed in arguments.seeds:
        yield from (Run("final", form, rates[CANDIDATES[form].family], seed) for form in arguments.forms)


def main() -> None:
    """Run a stage, or this process's share of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("tune", "screen", "final"))
    parser.add_argument("forms", nargs="*", metavar="FORM", help=f"of: {'; '.join(CANDIDATES)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--share", default="0/1", help="which part of how many this process runs")
    parser.add_argument("--out", type=Path, default=Path("results/worth"))
    parser.add_argument("--checkpoints", type=Path, default=Path("runs/worth"))
    arguments = parser.parse_args()
    if unknown := [form for form in arguments.forms if form not in CANDIDATES]:
        parser.error(f"no candidate is called {', '.join(unknown)}")
    if arguments.stage == "final" and not arguments.forms:
        parser.error("final needs the names of the candidates")
    (arguments.out / "runs").mkdir(parents=True, exist_ok=True)
    arguments.checkpoints.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    part, parts = map(int, arguments.share.split("/"))
    data = pictures(load_cifar10(), arguments.stage)
    if arguments.stage == "tune":
        for form in list(FAMILIES.values())[part::parts]:
            tune(form, data, arguments.out, arguments.checkpoints)
        return
    for index, wanted in enumerate(runs_of(arguments)):
        if index % parts == part:
            run(wanted, data, arguments.out, arguments.checkpoints)


if __name__ == "__main__":
    main()
