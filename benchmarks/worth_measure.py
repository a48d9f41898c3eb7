"""Measure the networks that ``benchmarks/worth.py final`` trained: corrupted images, latency, bytes, training step.

    python benchmarks/worth_measure.py corrupted       # 19 corruptions, five severities, per seed
    python benchmarks/worth_measure.py bytes           # bundle with and without the integer grid
    python benchmarks/worth_measure.py latency         # ONNX Runtime, OpenVINO, one image; training step; idle machine

Each writes its part into ``results/worth/measured.json``, by form.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from worth import Run
from worth_candidates import CANDIDATES

from seedcnn.data.sets.cifar10 import load_cifar10
from seedcnn.evaluate import robustness_many, torch_predictor
from seedcnn.evaluate.benchmark import bench_latency, bench_training, conditions, quiet_process
from seedcnn.export import BundleInfo
from seedcnn.files import write_file
from seedcnn.pack import Search, calibration_order, pack, preprocessing_of
from seedcnn.train import load_model

MAX_DROP = 0.2  # points, on training images
CHECKED = 5000
RUNTIMES = ("onnxruntime", "onnxruntime-custom-op", "openvino")
BATCH = 128


def finished(out: Path) -> dict[str, list[Run]]:
    """Return the long runs that finished without failing, by form."""
    found: dict[str, list[Run]] = {}
    for path in sorted((out / "runs").glob("final-*.json")):
        row = json.loads(path.read_text("utf-8"))
        if "failed" not in row:
            found.setdefault(row["form"], []).append(Run("final", row["form"], row["lr"], row["seed"]))
    order = list(CANDIDATES)
    return {form: found[form] for form in sorted(found, key=order.index)}


class Measured:
    """Contents of ``measured.json``: by form, then by part."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.forms: dict[str, dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        self.about: dict[str, Any] = self.forms.pop("about", {})

    def put(self, form: str, part: str, value: Any) -> None:
        """Add a value and write the file at once."""
        self.forms.setdefault(form, {})[part] = value
        write_file(self.path, (json.dumps({"about": self.about, **self.forms}, indent=1) + "\n").encode())


def _network(run: Run, checkpoints: Path) -> nn.Module:
    return load_model(checkpoints / f"{run.name}.ckpt")[0].eval()


def corrupted(arguments: argparse.Namespace, measured: Measured) -> None:
    """Measure accuracy under corruption; each corruption is made once for all networks not measured yet."""
    cifar = load_cifar10()
    todo = {
        f"{form} {run.seed}": (form, run)
        for form, runs in finished(arguments.out).items()
        for run in runs
        if str(run.seed) not in measured.forms.get(form, {}).get("corrupted", {})
    }
    if not todo:
        return
    networks = {name: _network(run, arguments.checkpoints) for name, (_, run) in todo.items()}
    predictors = {name: torch_predictor(network, cifar.mean, cifar.std) for name, network in networks.items()}
    tables = robustness_many(predictors, cifar.test_images, cifar.test_labels, max_images=arguments.pictures)
    for name, (form, run) in todo.items():
        table = tables[name]
        found = measured.forms.get(form, {}).get("corrupted", {})
        found[str(run.seed)] = {
            "mean": round(table.mean_over_corruptions, 2),
            **{group: round(value, 2) for group, value in table.group_means.items()},
        }
        measured.put(form, "corrupted", found)
        print(name, found[str(run.seed)], flush=True)


def bundle_bytes(arguments: argparse.Namespace, measured: Measured) -> None:
    """Measure bytes as float32, and on the grid that ``seedcnn pack --max-accuracy-drop 0.2`` finds on training images.

    One seed of each form; the grid's cost on the test images is measured afterwards.
    """
    cifar = load_cifar10()
    info = BundleInfo("worth", "worth", 1, preprocessing_of(cifar.mean, cifar.std), cifar.classes)
    picked = calibration_order(cifar.train_labels, CHECKED)
    search = Search(cifar.train_images[picked], cifar.train_labels[picked], MAX_DROP)
    for form, runs in finished(arguments.out).items():
        if "bytes" in measured.forms.get(form, {}):
            continue
        network = _network(runs[0], arguments.checkpoints)
        result = pack(network, info, cifar.test_images, cifar.test_labels, search=search)
        row: dict[str, Any] = {"grid": len(result.data), "test_drop": round(result.drop, 2)}
        row["bits_per_weight"] = round(result.bits_per_weight, 2)
        row["float32"] = len(pack(network, info, cifar.test_images[:1], cifar.test_labels[:1], step=None).data)
        measured.put(form, "bytes", row)
        print(form, row, flush=True)


def latency(arguments: argparse.Namespace, measured: Measured) -> None:
    """Measure latencies, all forms interleaved; the first is the vanilla network."""
    process = quiet_process(1)
    runs = finished(arguments.out)
    networks = {form: _network(each[0], arguments.checkpoints) for form, each in runs.items()}
    times = bench_latency(networks, (3, 32, 32), runtimes=RUNTIMES, rounds=arguments.rounds)
    steps = bench_training(networks, (3, 32, 32), batch=BATCH, modes=("eager channels_last",), rounds=7)
    measured.about["latency"] = conditions(threads=1, rounds=arguments.rounds, process=process)
    for form in networks:
        row = {one.runtime: one.to_dict() for one in times if one.form == form}
        row["training"] = next(one for one in steps if one.form == form).to_dict()
        measured.put(form, "latency", row)


PARTS: dict[str, Callable[[argparse.Namespace, Measured], None]] = {
    "corrupted": corrupted,
    "bytes": bundle_bytes,
    "latency": latency,
}


def main() -> None:
    """Measure one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--pictures", type=int, default=3000, help="number of leading test images to corrupt")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("results/worth"))
    parser.add_argument("--checkpoints", type=Path, default=Path("runs/worth"))
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    PARTS[arguments.part](arguments, Measured(arguments.out / "measured.json"))


if __name__ == "__main__":
    main()
