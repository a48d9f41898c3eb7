"""Does it help to start a GroupNL network from the trained dense one? A small experiment on CIFAR-10.

The teacher is ``resnet8:vanilla`` (five epochs, learning rate 0.2). The same network with normalised sine layers is
then trained for two epochs at a quarter of that rate from fresh weights (scratch); from the teacher's filters
(from_dense); from these with every generated channel switched off for good (pruned: plain channel pruning, to show
whether the generated channels contribute); and with ``--long`` from fresh weights for as many epochs as teacher and
fine-tuning together, at the full learning rate (scratch_long). Two seeds, all 50,000 training and 10,000 test images.

    python benchmarks/from_dense.py --long --record results/from_dense.json
    python benchmarks/from_dense.py --protocol distilled --record results/worth/from-dense.json

The second command repeats the question with a longer training of the teacher (12 epochs), the better function (abs),
six epochs and the teacher's soft labels for every student. A few minutes on two cores, and a quarter of an hour on one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from dataclasses import replace
from pathlib import Path

import torch
from harness import about_runs
from torch import nn

from seedcnn.convert import GroupNLConfig
from seedcnn.convert.from_dense import reestimate_batchnorm_, seed_from_dense_
from seedcnn.data.sets.cifar10 import Cifar10, load_cifar10
from seedcnn.data.transforms import normalize
from seedcnn.evaluate.accuracies import accuracy, torch_predictor
from seedcnn.layers import GroupNLConv2d
from seedcnn.train import DistillConfig, TrainConfig, TrainData, build_model, find_recipe, train

RECALIBRATION = 5000
TEACHER_LR = 0.4
ARMS = ("from_dense", "pruned", "scratch")


def configs(protocol: str, seed: int, teacher: Path) -> dict[str, TrainConfig]:
    """Return the runs of one seed by name; ``teacher`` is the path of the teacher's checkpoint."""
    dense = replace(find_recipe("resnet8:vanilla"), seed=seed, lr=0.2)
    student = replace(dense, convert=GroupNLConfig.paper(normalize="batch"))
    if protocol == "short":
        tune = replace(student, epochs=2, lr=student.lr / 4, warmup_epochs=0.2)
        long = replace(student, epochs=dense.epochs + tune.epochs)
    else:
        dense = replace(dense, epochs=12, lr=TEACHER_LR, precision="bf16")
        convert = GroupNLConfig()
        student = replace(student, convert=convert, precision="bf16", distill=DistillConfig(str(teacher)))
        tune = replace(student, epochs=6, lr=student.lr / 2, warmup_epochs=0.2)
        long = replace(student, epochs=dense.epochs, lr=TEACHER_LR)
    return {"teacher": dense, "scratch": tune, "from_dense": tune, "pruned": tune, "scratch_long": long}


def schedule(runs: dict[str, TrainConfig]) -> dict[str, str]:
    """Describe epochs and learning rates for the record."""
    return {
        name: f"{run.epochs} epochs, lr {run.lr:g}, {run.precision}{', soft labels' if run.distill else ''}"
        for name, run in runs.items()
    }


def norms_after(model: nn.Module) -> list[tuple[nn.BatchNorm2d, int]]:
    """Return the norm after each GroupNL layer, and the layer's seed channels."""
    leaves = [m for m in model.modules() if isinstance(m, GroupNLConv2d) or not list(m.children())]
    inner = {m.norm for m in leaves if isinstance(m, GroupNLConv2d)}
    leaves = [m for m in leaves if m not in inner]
    found = []
    for layer, norm in itertools.pairwise(leaves):
        if isinstance(layer, GroupNLConv2d):
            assert isinstance(norm, nn.BatchNorm2d)
            found.append((norm, layer.seed_channels))
    return found


def switch_off_generated(model: nn.Module) -> None:
    """Zero the scale and shift of the generated channels, and keep them at zero."""
    for norm, seeds in norms_after(model):
        mask = (torch.arange(norm.num_features) < seeds).float()
        for parameter in (norm.weight, norm.bias):
            parameter.data *= mask
            parameter.register_hook(lambda gradient, mask=mask: gradient * mask)


def top1(model: nn.Module, cifar: Cifar10) -> float:
    """Measure the test accuracy in percent."""
    return accuracy(torch_predictor(model.eval(), cifar.mean, cifar.std), cifar.test_images, cifar.test_labels).top1


def run_one(
    arm: str, config: TrainConfig, dense: nn.Module, cifar: Cifar10, data: TrainData, checkpoint: Path
) -> dict[str, float]:
    """Run one arm and return the accuracy before and after training."""
    pictures = torch.from_numpy(cifar.train_images[:RECALIBRATION].transpose(0, 3, 1, 2).copy())
    pictures = normalize(pictures, cifar.mean, cifar.std)
    torch.manual_seed(config.seed)
    model = build_model(config)
    row: dict[str, float] = {}
    if arm in ("from_dense", "pruned"):
        report = seed_from_dense_(model, dense, images=pictures)
        if report.in_order:
            raise SystemExit(f"not reordered: {report.in_order}")
        row["explained"] = round(statistics.mean(report.explained.values()), 4)
    if arm == "pruned":
        switch_off_generated(model)
        reestimate_batchnorm_(model, pictures)
    row["before"] = round(top1(model, cifar), 2)
    train(config, data, checkpoint, model=model, name=arm)
    if arm == "pruned":
        left = max(float(norm.weight[seeds:].detach().abs().max()) for norm, seeds in norms_after(model))
        if left:
            raise SystemExit(f"a generated channel of the pruned network came back: scale {left}")
    return row | {"after": round(top1(model, cifar), 2)}


def run_all(
    protocol: str, seeds: list[int], out: Path, arms: tuple[str, ...]
) -> dict[str, dict[str, dict[str, float]]]:
    """Return every run by seed and name; runs that ``out`` already holds are not repeated."""
    cifar = load_cifar10()
    data = TrainData(cifar.train_images, cifar.train_labels, cifar.mean, cifar.std)
    done = out / "rows.json"
    rows = json.loads(done.read_text()) if done.is_file() else {}
    for seed in map(str, seeds):
        for arm in arms:
            mine = rows.setdefault(seed, {})
            if arm in mine:
                continue
            teacher = out / f"vanilla-{seed}.ckpt"
            runs = configs(protocol, int(seed), teacher)
            dense, _ = train(runs["teacher"], data, teacher, name="teacher", resume=True)
            if arm == "teacher":
                mine[arm] = {"after": round(top1(dense, cifar), 2)}
            else:
                mine[arm] = run_one(arm, runs[arm], dense, cifar, data, out / f"{arm}-{seed}.ckpt")
            done.write_text(json.dumps(rows, indent=2))
            print(seed, arm, mine[arm], flush=True)
    return rows


def main() -> None:
    """Run the experiment."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocol", choices=("short", "distilled"), default="short")
    parser.add_argument(
        "--out", type=Path, help="directory of teachers and finished runs (default: runs/from_dense/PROTOCOL)"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--long", action="store_true", help="also train from fresh weights for many epochs")
    parser.add_argument("--record", type=Path, help="write the numbers as JSON")
    arguments = parser.parse_args()
    protocol: str = arguments.protocol
    out = arguments.out or Path("runs/from_dense") / protocol
    out.mkdir(parents=True, exist_ok=True)
    arms = ("teacher", *ARMS, *(["scratch_long"] if arguments.long else []))
    rows = run_all(protocol, arguments.seeds, out, arms)
    seeds = {str(seed): {arm: rows[str(seed)][arm] for arm in arms} for seed in arguments.seeds}
    runs = configs(protocol, 0, out / "vanilla-0.ckpt")
    record = about_runs(
        "from_dense.py",
        "CIFAR-10 top-1 in percent, all 10,000 test pictures; standard error of one about 0.45 points",
        torch.get_num_threads(),
    ) | {
        "network": f"resnet8_cifar, widths 32/64/128, patch 2; {runs['scratch'].convert}",
        "schedule": schedule({arm: runs[arm] for arm in arms}),
        "n_seeds": len(seeds),
        "mean_after": {arm: round(statistics.mean(rows[arm]["after"] for rows in seeds.values()), 2) for arm in arms},
        "seeds": seeds,
    }
    print(json.dumps(record["mean_after"], indent=2))
    if arguments.record:
        arguments.record.parent.mkdir(parents=True, exist_ok=True)
        arguments.record.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
