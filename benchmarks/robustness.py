"""Do seed filters make a small network more robust? The papers' two questions at the demo's size.

Every form of the demo's ResNet-8 (32/64/128 channels) is trained with equal epochs, images and learning rate, then
measured (a) on CIFAR-10 under the 19 corruptions, trained on the clean images, and (b) on the images of one vendor of
Icons-50, trained on those of all others, for apple, facebook, google and samsung in turn.

    python benchmarks/robustness.py cifar --record results/robustness-cifar10.json
    python benchmarks/robustness.py icons --data DIRECTORY --record results/robustness-icons50.json

DIRECTORY holds Icons-50 in the authors' layout. Checkpoints are kept under ``--out``, and finished runs are not
repeated. A run whose loss is not finite restarts at a quarter of the learning rate, and the record says so. One to two
hours each on one core.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from harness import about_runs

from seedcnn.convert import DepthwiseSeparableConfig, GhostConfig, GroupNLConfig, MonoConfig, SineFMConfig
from seedcnn.data.sets.cifar10 import load_cifar10
from seedcnn.data.sets.icons50 import HELD_OUT_STYLES, hold_out_style, load_icons50
from seedcnn.errors import TrainingError
from seedcnn.evaluate import accuracy, cost, robustness_many, torch_predictor
from seedcnn.evaluate.accuracies import Predict
from seedcnn.evaluate.robustness_runs import RobustnessTable
from seedcnn.train import TrainConfig, TrainData, build_model, find_recipe, load_model, train

FORMS = {
    "vanilla": None,
    "narrowed": None,
    "groupnl": GroupNLConfig.paper(),
    "groupnl batch": GroupNLConfig.paper(normalize="batch"),
    "groupnl sparse": GroupNLConfig.paper(sparse=True),
    "groupnl sparse batch": GroupNLConfig.paper(sparse=True, normalize="batch"),
    "mono": MonoConfig(seed_filters=16),
    "ghost": GhostConfig(),
    "sinefm": SineFMConfig(),
    "copied seeds": GroupNLConfig.paper(nlf="identity", normalize="batch"),
    "depthwise-separable": DepthwiseSeparableConfig(),
}
ONCE = ("groupnl sparse batch", "copied seeds", "depthwise-separable")
"""Forms that are trained with the first seed only, to save time."""
PROTOCOLS: dict[str, dict[str, Any]] = {
    "cifar": {"epochs": 8, "lr": 0.2, "weight_decay": 5e-4},
    "icons": {"epochs": 12, "lr": 0.1, "weight_decay": 1e-4},  # the authors' rates; they train 50 epochs
}


def config(form: str, task: str, seed: int, classes: int) -> TrainConfig:
    """Return the config of one form."""
    base = find_recipe("resnet8:narrow" if form == "narrowed" else "resnet8:vanilla")
    shape = {**base.model_options, "num_classes": classes}
    return replace(base, model_options=shape, convert=FORMS[form], seed=seed, **PROTOCOLS[task])


def trained(name: str, wanted: TrainConfig, data: TrainData, out: Path) -> tuple[Predict, dict[str, Any]]:
    """Return the network of one run, trained now or earlier, and its row; retry a diverged run at a lower rate."""
    rates: list[float] = []
    for lr in (wanted.lr, wanted.lr / 4):
        rates.append(lr)
        path = out / f"{name.replace(' ', '-')}-{lr:g}.ckpt"
        failed = path.with_suffix(".diverged")
        if failed.is_file():
            continue
        try:
            _, state = train(replace(wanted, lr=lr), data, path, name=name, resume=True)
        except TrainingError as error:
            failed.write_text(f"{error}\n")
            print(f"{name}: {error}", flush=True)
            continue
        row: dict[str, Any] = {"lr": lr, "train_accuracy": round(state.history[-1]["accuracy"], 2)}
        if len(rates) > 1:
            row["diverged_at_lr"] = rates[:-1]
        return torch_predictor(load_model(path)[0], data.mean, data.std), row
    raise SystemExit(f"{name} diverged at the learning rates {rates}")


def told(table: RobustnessTable) -> dict[str, Any]:
    """Return one table, rounded to meaningful digits."""
    rounded = {name: round(value, 2) for name, value in table.corruption_means.items()}
    groups = {name: round(value, 2) for name, value in table.group_means.items()}
    figures = {name: None if value is None else round(value, 2) for name, value in table.figures.items()}
    error = table.standard_error
    return {
        "clean_same_pictures": table.clean and round(table.clean, 2),
        "standard_error": error and round(error, 2),
        "groups": groups,
        **figures,
        "corruptions": rounded,
    }


def wanted_forms(arguments: argparse.Namespace, seed: int) -> list[str]:
    """Return the forms to train with a seed."""
    return [form for form in arguments.forms if form not in ONCE or seed == arguments.seeds[0]]


def cifar(arguments: argparse.Namespace) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Train all forms, then corrupt the test images once for all of them."""
    found = load_cifar10()
    data = TrainData(found.train_images, found.train_labels, found.mean, found.std)
    for seed in arguments.seeds:
        predictors, rows = {}, {}
        for form in wanted_forms(arguments, seed):
            wanted = config(form, "cifar", seed, 10)
            predictors[form], rows[form] = trained(f"cifar {form} {seed}", wanted, data, arguments.out)
            clean = accuracy(predictors[form], found.test_images, found.test_labels)
            rows[form]["clean"] = round(clean.top1, 2)
            print(form, seed, rows[form], flush=True)
        tables = robustness_many(
            predictors,
            found.test_images,
            found.test_labels,
            max_images=arguments.pictures,
            record=arguments.out / f"cifar-{seed}.json",
            digests={form: str(json.dumps(rows[form])) for form in predictors},
        )
        for form, table in tables.items():
            yield form, seed, rows[form] | told(table)


def icons(arguments: argparse.Namespace) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Train each form once for each held-out vendor."""
    if arguments.data is None:
        raise SystemExit("icons needs --data: the directory of Icons-50 in the authors' layout")
    whole = load_icons50(arguments.data)
    divided = {style: hold_out_style(whole, style) for style in HELD_OUT_STYLES}
    for seed in arguments.seeds:
        for form in wanted_forms(arguments, seed):
            row: dict[str, Any] = {}
            for style, parts in divided.items():
                data = TrainData(parts.train_images, parts.train_labels, parts.mean, parts.std)
                wanted = config(form, "icons", seed, len(parts.classes))
                name = f"icons {form} {style} {seed}"
                predict, row[style] = trained(name, wanted, data, arguments.out)
                top1 = accuracy(predict, parts.test_images, parts.test_labels)
                row[style] |= {"top1": round(top1.top1, 2), "n": top1.n}
            row["mean_over_styles"] = round(statistics.mean(row[style]["top1"] for style in divided), 2)
            print(form, seed, row, flush=True)
            yield form, seed, row


def spread(values: list[float]) -> dict[str, float]:
    """Return the mean over the seeds, and their standard deviation if there are at least two."""
    row = {"mean": round(statistics.mean(values), 2)}
    return row | ({"std": round(statistics.stdev(values), 2)} if len(values) > 1 else {})


def summary(task: str, rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Summarise each form's mean over the seeds."""
    wanted = ("clean", "mean_over_groups", "mean_over_corruptions") if task == "cifar" else ("mean_over_styles",)
    result: dict[str, Any] = {}
    for form in FORMS:
        runs = [row[form] for row in rows.values() if form in row]
        if runs:
            result[form] = {"runs": len(runs)} | {name: spread([run[name] for run in runs]) for name in wanted}
            inner = runs[0]["groups"] if task == "cifar" else HELD_OUT_STYLES
            for name in inner:
                values = [run["groups"][name] if task == "cifar" else run[name]["top1"] for run in runs]
                result[form][name] = spread(values)
    return result


def costs(task: str) -> dict[str, dict[str, int]]:
    """Count the learnable parameters and MACs of each form."""
    found = {}
    for form in FORMS:
        counted = cost(build_model(config(form, task, 0, 10 if task == "cifar" else 50)))
        found[form] = {"params": counted.params, "macs": counted.macs, "nlf_evals": counted.nlf_evals}
    return found


def main() -> None:
    """Run one of the two tasks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=PROTOCOLS)
    parser.add_argument("--data", type=Path, help="directory of Icons-50")
    parser.add_argument("--out", type=Path, default=Path("runs/robustness"), help="directory of the checkpoints")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=FORMS)
    parser.add_argument("--pictures", type=int, default=10_000, help="number of leading test images to corrupt")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--record", type=Path, help="write the numbers as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: dict[str, dict[str, Any]] = {}
    for form, seed, row in (cifar if arguments.task == "cifar" else icons)(arguments):
        rows.setdefault(str(seed), {})[form] = row
    record = about_runs("robustness.py", "top-1 in percent; one training run a form and seed", arguments.threads) | {
        "network": "resnet8_cifar, widths 32/64/128 (narrowed: 16/64/80), patch 2",
        "protocol": PROTOCOLS[arguments.task],
        "pictures": arguments.pictures if arguments.task == "cifar" else None,
        "costs": costs(arguments.task),
        "summary": summary(arguments.task, rows),
        "seeds": rows,
    }
    print(json.dumps(record["summary"], indent=1))
    if arguments.record:
        arguments.record.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
