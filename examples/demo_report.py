"""The tables of the demo and its report: the networks side by side, and which of them to take."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn

from seedcnn.bundle import read_bundle
from seedcnn.data.corruptions import corrupt
from seedcnn.data.sets.cifar10 import Cifar10
from seedcnn.evaluate.costs import Cost
from seedcnn.evaluate.predictors import bundle_predictor
from seedcnn.evaluate.report import Measured, ModelRow, Sample, write_report
from seedcnn.evaluate.robustness_runs import RobustnessTable
from seedcnn.latency import Latency
from seedcnn.pack import PackResult
from seedcnn.train import TrainConfig, find_recipe

SHOWN = ("gaussian_noise", "gaussian_blur", "contrast", "pixelate")  # of the 19 corruptions
TRAINING = 0.7  # points; standard deviation between trainings of resnet8:recommended and resnet8:narrow, by seed
console = Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else 80)


@dataclass
class Network:
    """A trained network and its measurements."""

    name: str
    model: nn.Module
    cost: Cost
    packed: PackResult | None = None
    latency: Latency | None = None


def packed(network: Network) -> PackResult:
    """Return the network's bundle, which must exist."""
    assert network.packed is not None
    return network.packed


def median(network: Network) -> float:
    """Return the median latency in ms, which must have been measured."""
    assert network.latency is not None
    return network.latency.median_ms


def table_rows(networks: dict[str, Network], tables: dict[str, RobustnessTable]) -> dict[str, list[str]]:
    """Compose the demo's table: row name -> a cell for each network, costs with their ratio to the vanilla network."""
    nets = list(networks.values())
    corrupted = [tables[network.name] for network in nets]

    def with_ratio(values: list[float], form: str) -> list[str]:
        return [f"{value:{form}} ({value / values[0]:.2f})" for value in values]

    after, n = [packed(network).after for network in nets], corrupted[0].n
    rows = {f"accuracy, % (n = {after[0].n})": [f"{a.top1:.2f} ± {a.standard_error:.2f}" for a in after]}
    for name in corrupted[0].corruption_means:
        rows[f"{name}, % (n = {n} x 5)"] = [f"{t.corruption_means[name]:.2f}" for t in corrupted]
    rows["corrupted accuracy, mean of 4, %"] = [f"{t.mean_over_corruptions:.2f}" for t in corrupted]
    rows["learnable parameters"] = with_ratio([network.cost.params for network in nets], ",.0f")
    rows["MACs"] = with_ratio([network.cost.macs for network in nets], ",.0f")
    rows["NLF evaluations"] = [f"{network.cost.nlf_evals:,}" for network in nets]
    rows["bundle bytes"] = with_ratio([len(packed(network).data) for network in nets], ",.0f")
    rows["latency, ms, median of 1000"] = with_ratio([median(network) for network in nets], ".3f")
    return rows


def verdict(networks: dict[str, Network], tables: dict[str, RobustnessTable]) -> str:
    """Compare GroupNL and the recommended form with the narrowed network, in a sentence of numbers each."""
    control, sentences = networks["narrow"], []
    for network in (networks["groupnl"], networks["recommended"]):
        a, b = packed(network).after, packed(control).after
        error = (a.standard_error**2 + b.standard_error**2) ** 0.5
        robust = tables[network.name].mean_over_corruptions - tables[control.name].mean_over_corruptions
        sentences.append(
            f"{network.name} against the narrowed network: accuracy {a.top1 - b.top1:+.2f} points (standard error "
            f"{error:.2f}), corrupted {robust:+.2f} points, bundle bytes x "
            f"{len(packed(network).data) / len(packed(control).data):.2f}, latency x "
            f"{median(network) / median(control):.2f}."
        )
    return " ".join([*sentences, "One training run each: one or two points are noise."])


def print_tables(networks: dict[str, Network], tables: dict[str, RobustnessTable]) -> None:
    """Print the networks below each other: accuracy, and costs with their ratio to the vanilla network."""
    nets = list(networks.values())
    first, n = packed(nets[0]).after.n, tables[nets[0].name].n
    names = [name.removeprefix("gaussian_") for name in SHOWN]
    accuracy = Table(title=f"accuracy in %: {first:,} images, and {n:,} x 5 severities", box=box.SIMPLE_HEAD)
    costs = Table(title="costs, and their ratio to vanilla; ms is the median of 1000", box=box.SIMPLE_HEAD)
    for table, heads in (
        (accuracy, ["clean", *names, "mean of 4"]),
        (costs, ["parameters", "MACs", "bundle bytes", "ms"]),
    ):
        table.add_column("")
        for name in heads:
            table.add_column(name, justify="right")
    priced = []
    for net in nets:
        size = len(packed(net).data)
        row = [(net.cost.params / 1e3, ".1f", "k"), (net.cost.macs / 1e6, ".2f", "M")]
        priced.append([*row, (size, ",", ""), (median(net), ".3f", "")])
    for net, row in zip(nets, priced, strict=True):
        after, robust = packed(net).after, tables[net.name]
        means = [f"{value:.2f}" for value in (*robust.corruption_means.values(), robust.mean_over_corruptions)]
        accuracy.add_row(net.name, f"{after.top1:.2f} ± {after.standard_error:.2f}", *means)
        cells = [
            f"{value:{form}}{f' {unit}' if unit else ''} ({value / base[0]:.2f})"
            for (value, form, unit), base in zip(row, priced[0], strict=True)
        ]
        costs.add_row(net.name, *cells)
    console.print(accuracy)
    console.print(costs)


def print_advice(sentences: list[str]) -> None:
    """Print which network to take, and why."""
    first, *others, errors = sentences
    console.print(first, style="bold")
    for sentence in others:
        console.print(f"- {sentence}")
    console.print(errors, style="dim")


def machine() -> str:
    """Describe the machine."""
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def versions() -> dict[str, str]:
    """Return the versions of the packages that the numbers depend on."""
    return {name: version(name) for name in ("seedcnn", "torch", "timm", "onnxruntime", "numpy")}


def corrupted_samples(networks: dict[str, Network], cifar: Cifar10) -> list[Sample]:
    """Take three test images, clean and under the four corruptions at severity 3, with every bundle's answer."""
    picked = np.array([0, 1, 7])
    predictors = {network.name: bundle_predictor(read_bundle(packed(network).data)) for network in networks.values()}
    versions = {"clean": cifar.test_images[picked]}
    versions |= {f"{name}, severity 3": corrupt(cifar.test_images[picked], name, 3, indices=picked) for name in SHOWN}
    answers = {
        caption: {name: predict(images).argmax(1) for name, predict in predictors.items()}
        for caption, images in versions.items()
    }
    return [
        Sample(
            images[index],
            cifar.classes[cifar.test_labels[image]],
            caption,
            {name: cifar.classes[found[index]] for name, found in answers[caption].items()},
        )
        for index, image in enumerate(picked)
        for caption, images in versions.items()
    ]


def model_rows(networks: dict[str, Network], tables: dict[str, RobustnessTable]) -> list[ModelRow]:
    """Compose the figures of each network for the report."""
    rows = []
    for network in networks.values():
        after, table, latency = packed(network).after, tables[network.name], network.latency
        assert latency is not None
        spread = (latency.q3_ms - latency.q1_ms) / 2
        rows.append(
            ModelRow(
                name=network.name,
                accuracy=Measured(after.top1, after.n, after.standard_error, "standard error, one run"),
                corrupted=Measured(
                    table.mean_over_corruptions, table.n, table.standard_error, "4 x 5 conditions, one run"
                ),
                parameters=network.cost.params,
                macs=network.cost.macs,
                nlf_evaluations=network.cost.nlf_evals,
                bundle_bytes=len(packed(network).data),
                latency_ms=Measured(latency.median_ms, latency.n, spread, "median, half the quartile range"),
                seeded=network.cost.fixed > 0,
            )
        )
    return rows


def in_words(config: TrainConfig) -> str:
    """Name the settings of a training that are not the defaults."""
    defaults = TrainConfig(config.model).to_dict()
    changed = {name: value for name, value in config.to_dict().items() if value != defaults.get(name)}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in changed.items() if name != "convert")


def report(
    networks: dict[str, Network], tables: dict[str, RobustnessTable], cifar: Cifar10, out: Path, notes: list[str]
) -> Path:
    """Write the HTML report and return its path."""
    settings = {
        "data": f"CIFAR-10, {len(cifar.train_images):,} training and {len(cifar.test_images):,} test images",
        "training": in_words(find_recipe("demo:vanilla")),
        "narrowed": f"widths {', '.join(map(str, find_recipe('demo:narrow').model_options['widths']))}",
        "GroupNL r=2": str(find_recipe("demo:groupnl").convert),
        "recommended": str(find_recipe("demo:recommended").convert),
        "latency": "ONNX Runtime, 1 thread, batch 1, the bundles interleaved in one process",
        "machine": machine(),
        "versions": ", ".join(f"{name} {number}" for name, number in versions().items()),
    }
    return write_report(
        out / "report.html",
        title="seedcnn demo",
        rows=model_rows(networks, tables),
        robustness=tables,
        training=TRAINING,
        samples=corrupted_samples(networks, cifar),
        settings=settings,
        notes=notes,
    )
