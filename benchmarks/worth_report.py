"""Table and plots of the runs of ``benchmarks/worth.py`` and the measurements of ``worth_measure.py``.

    python benchmarks/worth_report.py

Writes results/worth/table.json (every long run's network with means and standard deviations, every comparison of a seed
form with its controls at equal cost, the short runs) and the Pareto plots next to it.
"""

from __future__ import annotations

import argparse
import base64
import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from scipy.stats import t as student
from worth_candidates import CANDIDATES, CONTROLS

from seedcnn.data.sets.icons50 import HELD_OUT_STYLES

AXES = {
    "onnxruntime": "latency in ONNX Runtime, ms",
    "openvino": "latency in OpenVINO, ms",
    "best": "latency in the form's fastest runtime, ms",
    "bytes": "bundle, bytes",
}
PLOTS = (("onnxruntime", "clean"), ("openvino", "clean"), ("best", "clean"), ("bytes", "clean"), ("best", "corrupted"))
QUALITIES = {
    "clean": "accuracy on CIFAR-10, %",
    "corrupted": "accuracy, mean of 19 corruptions, %",
    "icons": "accuracy on icons of an unseen vendor, mean of 4, %",
}
TOLERANCE = 1.02  # a control that costs at most this much more counts as equally cheap

Row = dict[str, Any]


@dataclass(frozen=True)
class Difference:
    """Difference in points between two networks trained with the same seeds and tested on the same images.

    For icons, each pair of held-out vendor and seed is one training.

    Attributes:
        mean: mean over the seeds.
        error: standard error, from the spread over the seeds and, if the answers are kept, over the images.
        p: two-sided p-value of Student's t with one degree of freedom less than seeds.
        n: number of seeds.
    """

    mean: float
    error: float
    p: float
    n: int


def paired(first: dict[Any, float], second: dict[Any, float], pictures: float = 0.0) -> Difference | None:
    """Compute the paired difference over the seeds that both have; None with fewer than two.

    ``pictures`` is the variance of the mean that other test images would add.
    """
    differences = [first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())]
    if len(differences) < 2:
        return None
    error = (stdev(differences) ** 2 / len(differences) + pictures) ** 0.5
    statistic = abs(mean(differences)) / error if error else float("inf")
    return Difference(
        mean(differences), error, float(2 * student.sf(statistic, len(differences) - 1)), len(differences)
    )


def answers(row: Row, pictures: int = 10_000) -> dict[int, np.ndarray[Any, np.dtype[np.bool_]]]:
    """Decode by seed which test images a network classified correctly."""
    packed = {seed: np.frombuffer(base64.b64decode(text), np.uint8) for seed, text in row["correct"].items()}
    return {seed: np.unpackbits(bits, count=pictures).astype(bool) for seed, bits in packed.items()}


def compare(first: Row, second: Row, quality: str) -> Difference | None:
    """Compare two networks by one quality; for clean images, the answers to each image count too."""
    if quality not in first or quality not in second:
        return None
    pictures = 0.0
    if quality == "clean":
        one, other = answers(first), answers(second)
        shared = sorted(one.keys() & other.keys())
        if shared:
            apart = np.mean([100.0 * one[seed] - 100.0 * other[seed] for seed in shared], axis=0)
            pictures = float(apart.var(ddof=1) / len(apart))
    return paired(first[quality], second[quality], pictures)


def long_runs(out: Path) -> dict[str, Row]:
    """Return the networks of the long runs, by form, with their measurements."""
    found: dict[str, Row] = {}
    for path in sorted((out / "runs").glob("final-*.json")):
        run = json.loads(path.read_text("utf-8"))
        row = found.setdefault(run["form"], {name: run[name] for name in ("family", "control", "params", "macs", "lr")})
        row.setdefault("clean", {})
        row.setdefault("correct", {})
        if "failed" in run:
            row.setdefault("failed", {})[run["seed"]] = run["failed"]
        else:
            row["clean"][run["seed"]], row["correct"][run["seed"]] = run["top1"], run["correct"]
    path = out / "measured.json"
    measured = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    for form, row in found.items():
        parts = measured.get(form, {})
        if "corrupted" in parts:
            row["corrupted"] = {int(seed): each["mean"] for seed, each in parts["corrupted"].items()}
            row["groups"] = {
                name: round(mean(each[name] for each in parts["corrupted"].values()), 2)
                for name in next(iter(parts["corrupted"].values()))
                if name != "mean"
            }
        if "bytes" in parts:
            row["bytes_float32"] = parts["bytes"]["float32"]
            row |= {"bytes": parts["bytes"]["grid"], "lost_on_grid": parts["bytes"]["test_drop"]}
        if "latency" in parts:
            times = {name: each["median_ms"] for name, each in parts["latency"].items()}
            row |= {"step_ms": times.pop("training")} | times | {"best": min(times.values())}
    for form, by_vendor in _unseen_vendors(out).items():
        if form in found:
            found[form]["icons"] = by_vendor
    order = list(CANDIDATES)
    return {form: found[form] for form in sorted(found, key=order.index)}


def _unseen_vendors(out: Path) -> dict[str, dict[str, float]]:
    """Return accuracies by form, then by held-out vendor and seed, for the seeds with runs of all vendors."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for path in sorted((out / "runs").glob("icons-*.json")):
        run = json.loads(path.read_text("utf-8"))
        if "top1" in run:
            found.setdefault(run["form"], {}).setdefault(run["seed"], {})[run["style"]] = run["top1"]
    whole: dict[str, dict[str, float]] = {}
    for form, by_seed in found.items():
        for seed, each in by_seed.items():
            if len(each) == len(HELD_OUT_STYLES):
                whole.setdefault(form, {}).update({f"{style} {seed}": top1 for style, top1 in sorted(each.items())})
    return whole


def front(rows: Iterable[tuple[str, Row]], axis: str, quality: str) -> list[str]:
    """Return the forms that no other beats in both cost and quality, cheapest first."""
    costed = [(row[axis], -mean(row[quality].values()), form) for form, row in rows if axis in row and row.get(quality)]
    kept: list[tuple[float, float, str]] = []
    for point in sorted(costed):
        if not kept or point[1] < kept[-1][1]:
            kept.append(point)
    return [form for *_, form in kept]


def against_controls(rows: dict[str, Row], axis: str, quality: str) -> list[Row]:
    """Compare each seed form with the best network of each kind of control that costs no more."""
    found = []
    for form, row in rows.items():
        if row["control"] or axis not in row or not row.get(quality):
            continue
        for kind, families in CONTROLS.items():
            rivals = [
                name
                for name, each in rows.items()
                if each["control"]
                and each["family"] in families
                and each.get(quality)
                and axis in each
                and each[axis] <= TOLERANCE * row[axis]
            ]
            if not rivals:
                continue
            rival = max(rivals, key=lambda name: mean(rows[name][quality].values()))
            one: Row = {"form": form, "kind": kind, "control": rival}
            one["cost_ratio"] = round(rows[rival][axis] / row[axis], 3)
            difference = compare(row, rows[rival], quality)
            if difference is not None:
                one |= {"difference": round(difference.mean, 2), "error": round(difference.error, 2)}
                one |= {"p": float(f"{difference.p:.2g}"), "n": difference.n}
            found.append(one)
    return found


def gains(rows: dict[str, Row], axis: str, quality: str) -> dict[str, float]:
    """Compute each network's gain in points over the vanilla network narrowed to the same cost.

    The vanilla curve is linear between its networks over the logarithm of the cost and is extended linearly beyond its
    ends; with fewer than two vanilla networks there are no gains.
    """
    shown = {form: row for form, row in rows.items() if axis in row and row.get(quality)}
    curve = sorted(
        (math.log(row[axis]), mean(row[quality].values())) for row in shown.values() if row["family"] == "vanilla"
    )
    if len(curve) < 2:
        return {}

    def narrowed(cost: float) -> float:
        after = next((i for i, (place, _) in enumerate(curve) if place >= cost), len(curve) - 1)
        (x0, y0), (x1, y1) = curve[max(after, 1) - 1], curve[max(after, 1)]
        return y0 + (y1 - y0) * (cost - x0) / (x1 - x0)

    return {
        form: round(mean(row[quality].values()) - narrowed(math.log(row[axis])), 2)
        for form, row in shown.items()
        if row["family"] != "vanilla"
    }


def leader(gained: dict[str, float]) -> str | None:
    """Return the form, without widths, with the largest mean gain over at least two networks."""
    by_form: dict[str, list[float]] = {}
    for form, gain in gained.items():
        by_form.setdefault(form.rpartition(" ")[0], []).append(gain)
    means = {form: mean(each) for form, each in by_form.items() if len(each) > 1}
    return max(means, key=lambda form: means[form], default=None)


def _summary(values: dict[Any, float], *, vendors: bool = False) -> Row:
    """Return the mean over the trainings, and their standard deviation unless they differ in vendor."""
    spread = {"std": round(stdev(values.values()), 2)} if len(values) > 1 and not vendors else {}
    return {"mean": round(mean(values.values()), 2), **spread, "n": len(values)}


def plot(rows: dict[str, Row], axis: str, quality: str, path: Path) -> None:
    """Plot seed forms as labelled dots, each kind of control as a curve, and the front of all."""
    with mpl.rc_context({"svg.hashsalt": "worth", "font.size": 9}):
        figure = Figure(figsize=(10, 6.5), layout="constrained")
        axes = figure.subplots()
        shown = {form: row for form, row in rows.items() if axis in row and row.get(quality)}
        for kind, families in CONTROLS.items():
            curve = sorted(
                (row[axis], mean(row[quality].values()))
                for row in shown.values()
                if row["control"] and row["family"] in families
            )
            if curve:
                axes.plot(*zip(*curve, strict=True), marker="o", markersize=4, linewidth=1, label=kind)
        grown = [form for form, row in shown.items() if not row["control"]]
        places = [(shown[form][axis], mean(shown[form][quality].values())) for form in grown]
        if places:
            axes.plot(*zip(*places, strict=True), "k^", markersize=6, linestyle="none", label="seed forms")
        for form, row in shown.items():
            place = (row[axis], mean(row[quality].values()))
            weight = "normal" if row["control"] else "bold"
            axes.annotate(
                form, place, (4, -9 if row["control"] else 4), textcoords="offset points", fontsize=6.5, weight=weight
            )
        edge = front(shown.items(), axis, quality)
        axes.plot(
            [shown[form][axis] for form in edge],
            [mean(shown[form][quality].values()) for form in edge],
            color="0.75",
            linewidth=5,
            zorder=0,
            label="best of all",
        )
        axes.set_xscale("log")
        axes.margins(x=0.12)
        for formatted in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
            formatted(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"))
        axes.set_xlabel(AXES[axis])
        axes.set_ylabel(QUALITIES[quality])
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Write the table and the plots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/worth"))
    out: Path = parser.parse_args().out
    rows = long_runs(out)
    runs = [json.loads(path.read_text("utf-8")) for path in sorted((out / "runs").glob("*.json"))]
    measured = out / "measured.json"
    table: Row = {
        "about": json.loads(measured.read_text("utf-8")).get("about", {}) if measured.is_file() else {},
        "runs": dict(Counter(run["stage"] for run in runs)),
        "failed": sum("failed" in run for run in runs),
        "cpu_hours": round(sum(run.get("cpu_seconds", 0.0) for run in runs) / 3600, 1),
        "networks": {
            form: {name: value for name, value in row.items() if name not in ("correct", *QUALITIES)}
            | {name: _summary(row[name], vendors=name == "icons") for name in QUALITIES if row.get(name)}
            for form, row in rows.items()
        },
        "fronts": {f"{quality} / {axis}": front(rows.items(), axis, quality) for axis in AXES for quality in QUALITIES},
        "gains": {f"{quality} / {axis}": gains(rows, axis, quality) for axis in AXES for quality in QUALITIES},
        "comparisons": {
            f"{quality} / {axis}": against_controls(rows, axis, quality) for axis in AXES for quality in QUALITIES
        },
        "short": [
            {name: run.get(name) for name in ("stage", "form", "lr", "seed", "macs", "params", "top1", "failed")}
            for run in runs
            if run["stage"] in ("tune", "screen")
        ],
    }
    (out / "table.json").write_text(json.dumps(table, indent=1) + "\n", "utf-8")
    for axis, quality in PLOTS:
        plot(rows, axis, quality, out / f"{quality}-{axis}.svg")


if __name__ == "__main__":
    main()
