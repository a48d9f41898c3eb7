"""Is a seed network worth choosing? Every form of ``worth_candidates.py`` against the controls, on real CIFAR-10.

    python benchmarks/worth.py tune            # learning rates: each family's representative on a validation split
    python benchmarks/worth.py screen          # every other candidate at its family's rate, same split, short runs
    python benchmarks/worth.py final FORM ...  # long runs on all training images, three seeds; test images
    python benchmarks/worth.py icons FORM ... --icons DIRECTORY  # Icons-50, each of four vendors held out in turn

A run is a JSON file under ``results/worth/runs``, kept whatever its outcome; its checkpoint is under ``--checkpoints``.
Finished runs are not repeated, and an interrupted run resumes. ``--share 0/2`` and ``--share 1/2`` divide the work
between two processes, for two cores.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from worth_candidates import CANDIDATES, FAMILIES, network

from seedcnn.data.sets.cifar10 import Cifar10, load_cifar10
from seedcnn.data.sets.icons50 import HELD_OUT_STYLES, hold_out_style, load_icons50
from seedcnn.errors import TrainingError
from seedcnn.evaluate import accuracy, cost, torch_predictor
from seedcnn.files import write_file
from seedcnn.train import TrainConfig, TrainData, TrainProgress, build_model, load_model, train

RATES = (0.1, 0.2, 0.4)  # extended by halving or doubling while the best rate is at an end
EPOCHS = {"tune": 6, "screen": 6, "final": 20, "icons": 12}
VALIDATION = 5000
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Run:
    """A training run: stage (one of ``EPOCHS``), candidate, learning rate, seed; for "icons" the held-out vendor."""

    stage: str
    form: str
    lr: float
    seed: int
    style: str = ""

    @property
    def name(self) -> str:
        """Name of the run's files."""
        form = re.sub(r"[^a-z0-9]+", "-", self.form.lower())
        return "-".join(filter(None, [self.stage, self.style, form, f"lr{self.lr:g}", str(self.seed)]))

    def config(self) -> TrainConfig:
        """Return the training config of the run."""
        candidate = CANDIDATES[self.form]
        return TrainConfig(
            model="resnet8_cifar",
            model_options=network(candidate) | ({"num_classes": 50} if self.style else {}),
            convert=candidate.convert,
            overrides=candidate.overrides,
            epochs=EPOCHS[self.stage],
            lr=self.lr,
            warmup_epochs=1.0,
            precision="bf16",
            seed=self.seed,
        )


@dataclass(frozen=True)
class Pictures:
    """The images that the runs of a stage train on, and those they are measured on."""

    train: TrainData
    images: np.ndarray[Any, np.dtype[np.uint8]]
    labels: np.ndarray[Any, np.dtype[np.int64]]


def icons(directory: Path) -> dict[str, Pictures]:
    """Return by vendor the images of all others for training, and its own for measuring."""
    parts = {style: hold_out_style(load_icons50(directory), style) for style in HELD_OUT_STYLES}
    return {
        style: Pictures(
            TrainData(part.train_images, part.train_labels, part.mean, part.std), part.test_images, part.test_labels
        )
        for style, part in parts.items()
    }


def pictures(cifar: Cifar10, stage: str) -> Pictures:
    """Return training and test images for "final"; else training images without a validation split, and the split."""
    if stage == "final":
        data = TrainData(cifar.train_images, cifar.train_labels, cifar.mean, cifar.std)
        return Pictures(data, cifar.test_images, cifar.test_labels)
    order = np.random.default_rng(0).permutation(len(cifar.train_images))
    kept, held = np.sort(order[VALIDATION:]), np.sort(order[:VALIDATION])
    data = TrainData(cifar.train_images[kept], cifar.train_labels[kept], cifar.mean, cifar.std)
    return Pictures(data, cifar.train_images[held], cifar.train_labels[held])


def run(wanted: Run, data: Pictures, out: Path, checkpoints: Path) -> dict[str, Any]:
    """Train and measure one run; return its result, even if the loss was not finite.

    A "final" run also records which test images it classified correctly, one bit each, for paired tests.
    """
    path = out / "runs" / f"{wanted.name}.json"
    if path.is_file():
        return dict(json.loads(path.read_text("utf-8")))
    config = wanted.config()
    counted = cost(build_model(config))
    found: dict[str, Any] = {"stage": wanted.stage, "form": wanted.form, "family": CANDIDATES[wanted.form].family}
    found |= {"control": CANDIDATES[wanted.form].control, "lr": wanted.lr, "seed": wanted.seed, "epochs": config.epochs}
    found |= {"style": wanted.style} if wanted.style else {}
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
        measured = accuracy(predict, data.images, data.labels)
        found |= {"top1": round(measured.top1, 2), "train_accuracy": round(state.history[-1]["accuracy"], 2)}
        found["cpu_seconds"] = round(sum(row["cpu_seconds"] for row in state.history), 1)
        if wanted.stage == "final":
            found["correct"] = base64.b64encode(np.packbits(measured.correct)).decode()
        else:
            checkpoint.unlink()
    write_file(path, (json.dumps(found, indent=1) + "\n").encode())
    told = found.get("failed", f"{found.get('top1')} %")
    print(f"{wanted.name}: {told}", flush=True)
    return found


def best_rates(out: Path) -> dict[str, float]:
    """Return each family's best learning rate on the validation split."""
    found: dict[str, list[tuple[float, float]]] = {}
    for path in sorted((out / "runs").glob("tune-*.json")):
        row = json.loads(path.read_text("utf-8"))
        found.setdefault(row["family"], []).append((row.get("top1", 0.0), row["lr"]))
    if missing := set(FAMILIES) - set(found):
        raise SystemExit(f"no learning rate is tuned for {', '.join(sorted(missing))}; run tune first")
    return {family: max(rows)[1] for family, rows in found.items()}


def tune(accuracy_at: Callable[[float], float]) -> dict[float, float]:
    """Measure accuracies at ``RATES``, then beyond them as long as the best rate is at an end."""
    found: dict[float, float] = {}
    wanted = list(RATES)
    while wanted:
        lr = wanted.pop(0)
        found[lr] = accuracy_at(lr)
        if not wanted:
            best = max(found, key=lambda rate: found[rate])
            wanted = [lr for lr in (best / 2, best * 2) if lr not in found]
    return found


def runs_of(arguments: argparse.Namespace) -> Iterator[Run]:
    """Yield the runs of every stage except "tune", in order."""
    rates = best_rates(arguments.out)
    if arguments.stage == "screen":
        forms = arguments.forms or [form for form in CANDIDATES if form not in FAMILIES.values()]
        yield from (Run("screen", form, rates[CANDIDATES[form].family], 0) for form in forms)
        return
    styles = HELD_OUT_STYLES if arguments.stage == "icons" else ("",)
    for seed, form, style in product(arguments.seeds, arguments.forms, styles):
        yield Run(arguments.stage, form, rates[CANDIDATES[form].family], seed, style)


def main() -> None:
    """Run a stage, or this process's share of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=EPOCHS)
    parser.add_argument("forms", nargs="*", metavar="FORM", help=f"of: {'; '.join(CANDIDATES)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--icons", type=Path, help="directory of Icons-50")
    parser.add_argument("--share", default="0/1", help="part and number of parts, for this process")
    parser.add_argument("--out", type=Path, default=Path("results/worth"))
    parser.add_argument("--checkpoints", type=Path, default=Path("runs/worth"))
    arguments = parser.parse_args()
    if unknown := [form for form in arguments.forms if form not in CANDIDATES]:
        parser.error(f"no candidate is called {', '.join(unknown)}")
    if arguments.stage in ("final", "icons") and not arguments.forms:
        parser.error(f"{arguments.stage} needs the names of the candidates")
    if arguments.stage == "icons" and arguments.icons is None:
        parser.error("icons needs --icons, the directory of Icons-50 in the authors' layout")
    (arguments.out / "runs").mkdir(parents=True, exist_ok=True)
    arguments.checkpoints.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    part, parts = map(int, arguments.share.split("/"))
    data = icons(arguments.icons) if arguments.stage == "icons" else {"": pictures(load_cifar10(), arguments.stage)}
    if arguments.stage == "tune":
        for form in list(FAMILIES.values())[part::parts]:
            place = (data[""], arguments.out, arguments.checkpoints)
            tune(lambda lr, form=form, place=place: run(Run("tune", form, lr, 0), *place).get("top1", 0.0))
        return
    for index, wanted in enumerate(runs_of(arguments)):
        if index % parts == part:
            run(wanted, data[wanted.style], arguments.out, arguments.checkpoints)


if __name__ == "__main__":
    main()
