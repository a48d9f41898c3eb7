"""Put the tables of results/*.json into README.md and docs/, or check with ``--check`` that they are up to date.

A table is between ``<!-- NAME, written by tools/result_tables.py -->`` and ``<!-- end of NAME -->``.
results/demo.json is demo-out/demo.json of a ``make demo`` run; the other files name their commands.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

ROOT = Path(__file__).parents[1]
CORRUPTED = {"clean": "clean", "mean_over_groups": "mean of groups", "mean_over_corruptions": "mean of 19"}


def _grid(head: list[str], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines)


def demo(record: dict[str, Any]) -> str:
    """Compare the demo's networks side by side, with the verdict."""
    table = _grid(["", *record["networks"]], [[name, *cells] for name, cells in record["rows"].items()])
    notes = [f"- {note}" for note in record["device"]]
    return "\n".join([table, "", f"In brackets: ratio to vanilla. {record['verdict']}", "", *notes])


def _mean(cell: dict[str, float]) -> str:
    return f"{cell['mean']:.2f}" + (f" ± {cell['std']:.2f}" if "std" in cell else "")


def forms(record: dict[str, Any]) -> str:
    """Write a robustness experiment: a row for each form, mean and standard deviation over the training runs."""
    summary = record["summary"]
    keys = [key for key in next(iter(summary.values())) if key != "runs"]
    head = ["form", "runs", "parameters", "MACs", *(CORRUPTED.get(key, key.replace("_", " ")) for key in keys)]
    rows = []
    for form, cells in summary.items():
        cost = record["costs"][form]
        counts = [f"{count:,}" for count in (cells["runs"], cost["params"], cost["macs"])]
        rows.append([form, *counts, *(_mean(cells[key]) for key in keys)])
    protocol = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in record["protocol"].items())
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    corrupted = f"; the first {record['pictures']:,} test pictures corrupted" if record["pictures"] else ""
    about = (
        f"{record['what']}{corrupted}; seeds {', '.join(record['seeds'])}; {protocol}; {record['machine']}; {versions}."
    )
    slower = [
        f"{form} (seed {seed}{'' if style is None else ', ' + style}): {', '.join(map(str, run['diverged_at_lr']))}"
        for seed, found in record["seeds"].items()
        for form, row in found.items()
        for style, run in ([(None, row)] if "lr" in row else [(s, r) for s, r in row.items() if isinstance(r, dict)])
        if "diverged_at_lr" in run
    ]
    failed = f"\n\nDiverged, and trained at a quarter of the learning rate: {'; '.join(slower)}." if slower else ""
    return f"{_grid(head, rows)}\n\n{about} Command: `{record['command']}`.{failed}"


def corruption_cost(record: dict[str, Any]) -> str:
    """Compare the CPU time of corrupting images one by one and in batches."""
    rows = []
    for name, row in record["rows"].items():
        loop, batched = (sum(row[key]) / len(row[key]) for key in ("one_by_one_ms", "batched_ms"))
        rows.append([name, f"{loop:.3f}", f"{batched:.3f}", f"{loop / batched:.1f}"])
    one, all_ours = record["one_by_one_s"], record["batched_s"]
    rows.append(
        ["all 95 conditions of 10,000 pictures", f"{one / 60:.1f} min", f"{all_ours:.1f} s", f"{one / all_ours:.1f}"]
    )
    table = _grid(["ms per picture, mean of 5 severities", "one by one", "batched", "ratio"], rows)
    official = record["official_s"]
    times, peak, before = official / all_ours, record["peak_mb"], record["before_mb"]
    return (
        f"{table}\n\nThe official code took {official / 60:.1f} minutes, measured before on a loaded machine: "
        f"{times:.1f} times as long. A process that streams the conditions in batches of {record['batch']} peaks at "
        f"{peak:.0f} MB; {before:.0f} MB of it were there before the first corruption, PyTorch and the pictures."
    )


def _made(record: dict[str, Any], seeds: bool = True) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    who = f"seeds {', '.join(record['seeds'])}; " if seeds else ""
    return f"{who}{record['machine']}; {versions}. Command: `{record['command']}`."


def _with(value: float, spread: float | None, sign: str = "") -> str:
    return f"{value:{sign}.2f}" + ("" if spread is None else f" ± {spread:.2f}")


def sampling(record: dict[str, Any]) -> str:
    """Write reduced sampling: predicted and measured time, and the change in accuracy."""
    rows = []
    for setting, row in record["summary"].items():
        measured = [f"{sum(row[name]) / len(row[name]):.3f}" for name in ("measured_cpu", "measured_clock")]
        difference = f"{row['measured_minus_predicted']:+.3f}"
        accuracies = [_with(row["top1"], row["top1_std"]), _with(row["change"], row["change_std"], "+")]
        rows.append([setting, f"{row['predicted']:.3f}", *measured, difference, *accuracies])
    head = ["setting", "predicted time", "CPU time", "clock", "CPU time less predicted", "top-1", "change"]
    return f"{_grid(head, rows)}\n\n{record['what']}; {record['epochs']} epochs; {_made(record)}"


def distillation(record: dict[str, Any]) -> str:
    """Compare training with and without a teacher."""
    rows = [
        [
            run,
            _with(row["top1"], row.get("top1_std")),
            _with(row["change"], row.get("change_std"), "+"),
            f"{row['time_ratio']:.2f}",
        ]
        for run, row in record["summary"].items()
    ]
    head = ["run", "top-1", "change by the teacher", "time of training"]
    return f"{_grid(head, rows)}\n\n{record['what']}; {record['epochs']} epochs; {_made(record)}"


def exchange(record: dict[str, Any]) -> str:
    """Write the gradients that two processes exchange, and the time of a step."""
    rows = [
        [
            form,
            f"{row['learnable']:,}",
            f"{row['gradient_bytes']:,}",
            f"{row['bytes_ratio']:.4f}",
            f"{row['median_ms']:.0f} [{row['quartiles_ms'][0]:.0f}, {row['quartiles_ms'][1]:.0f}]",
            f"{row['time_ratio']:.3f}",
        ]
        for form, row in record["rows"].items()
    ]
    head = ["form", "learnable", "gradient bytes a step", "ratio", "ms a step", "ratio"]
    command = f"python benchmarks/{record['command']}"
    about = _made(record | {"command": command}, seeds=False)
    return f"{_grid(head, rows)}\n\n{record['what']}; medians and quartiles of {record['rounds']} steps; {about}"


def memory(record: dict[str, Any]) -> str:
    """Write the peak memory of training steps."""
    parts = []
    for title, part in record.items():
        if not isinstance(part, dict) or "memory" not in part:
            continue
        rows = [
            [form, *(f"{mb:.0f} MB (**{row['ratio'][mode]:.2f}**)" for mode, mb in row["mb"].items())]
            for form, row in part["memory"].items()
        ]
        modes = next(iter(part["memory"].values()))["mb"]
        parts.append(f"{title}:\n\n{_grid(['form', *modes], rows)}")
    command = f"python benchmarks/{record['command']}"
    return "\n\n".join([*parts, _made(record | {"command": command}, seeds=False)])


def reproduced(record: dict[str, Any]) -> str:
    """Write a paper's table beside our measurements, from the output of ``seedcnn reproduce --json``."""
    rows = []
    for row in record["rows"]:
        figures = row["figures"]
        for key in ("top1", "params_M"):
            printed, found = figures[key]["printed"], figures[key]
            ours = _with(found["mean"], found["std"]) if key == "top1" else f"{found['mean']:.3f}"
            rows.append([f"`{row['recipe'].partition(':')[2]}`", key, f"{printed:g}", ours, str(len(found["values"]))])
    return _grid(["row", "", "printed", f"ours, scale {record['scale']}", "n"], rows)


_WORTH_AXES = {
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "best": "fastest runtime",
    "bytes": "bundle bytes",
}


def worth_networks(record: dict[str, Any]) -> str:
    """Write the long runs: accuracies with their standard deviations over the seeds, and each network's costs."""
    rows = []
    titles = {"clean": "CIFAR-10, %", "corrupted": "19 corruptions, %", "icons": "unseen vendors, %"}
    shown = [quality for quality in titles if any(quality in row for row in record["networks"].values())]
    for form, row in record["networks"].items():
        name = form if row["control"] else f"**{form}**"
        qualities = [_spread(row.get(quality)) for quality in shown]
        times = [
            f"{row[key]:.4f}" if key in row else "" for key in ("onnxruntime", "onnxruntime-custom-op", "openvino")
        ]
        step = f"{row['step_ms']:.0f}" if "step_ms" in row else ""
        sizes = [f"{row[key]:,}" if key in row else "" for key in ("bytes", "bytes_float32")]
        sizes.append(f"{row['lost_on_grid']:+.2f}" if "lost_on_grid" in row else "")
        rows.append([name, f"{row['macs'] / 1e6:.1f}", f"{row['params']:,}", *qualities, *times, step, *sizes])
    head = ["network", "MMACs", "parameters", *(titles[quality] for quality in shown)]
    head += [
        "ms, ONNX Runtime",
        "ms, fused operator",
        "ms, OpenVINO",
        "ms a training step",
        "bundle",
        "bundle, float32",
        "lost on the grid, points",
    ]
    return _grid(head, rows)


def _spread(cell: dict[str, float] | None) -> str:
    return "" if cell is None else f"{_mean(cell)} ({cell['n']})"


def worth_controls(record: dict[str, Any]) -> str:
    """Compare each seed form with the best control of each kind that costs no more."""
    rows = []
    for axis, name in _WORTH_AXES.items():
        clean = {(one["form"], one["kind"]): one for one in record["comparisons"][f"clean / {axis}"]}
        corrupted = {(one["form"], one["kind"]): one for one in record["comparisons"][f"corrupted / {axis}"]}
        for key, one in clean.items():
            other = corrupted.get(key)
            same = other is not None and other["control"] == one["control"]
            told = [_difference(one), _difference(other) if same else _difference(other, named=True)]
            rows.append([name, key[0], one["control"], f"{one['cost_ratio']:.2f}", *told])
    head = ["at equal", "seed form", "control", "its cost", "CIFAR-10, points", "19 corruptions, points"]
    return _grid(head, rows)


def _difference(one: dict[str, Any] | None, *, named: bool = False) -> str:
    if one is None or "difference" not in one:
        return ""
    who = f" ({one['control']})" if named else ""
    return f"{one['difference']:+.2f} ± {one['error']:.2f}, p = {one['p']:g}{who}"


def worth_short(record: dict[str, Any]) -> str:
    """Write the short runs by multiply-accumulates: each candidate at its best learning rate."""
    best: dict[str, dict[str, Any]] = {}
    for run in record["short"]:
        if run["form"] not in best or (run["top1"] or 0) > (best[run["form"]]["top1"] or 0):
            best[run["form"]] = run
    rows = [
        [
            form,
            f"{run['macs'] / 1e6:.1f}",
            f"{run['params']:,}",
            f"{run['lr']:g}",
            f"{run['top1']:.1f}" if run["top1"] else str(run["failed"]),
        ]
        for form, run in sorted(best.items(), key=lambda item: item[1]["macs"])
    ]
    return _grid(["network", "MMACs", "parameters", "learning rate", "validation, %"], rows)


def packing(record: dict[str, Any]) -> str:
    """Write the bytes of CIFAR ResNet-18, vanilla and converted."""
    rows = []
    for form, row in record["forms"].items():
        for coding, size in row["plain"].items():
            rows.append([form, coding, f"{size:,}", "", "", "", ""])
        for name in ("one step", "searched"):
            one = row[name]
            what = f"bundle, step {one['step']:g}" if "step" in one else f"**bundle, {name}**"
            change = f"{one['bundle_top1'] - one['float32_top1']:+.2f}"
            accuracies = [f"{one['float32_top1']:.2f}", change]
            opened = f"{row['open_cpu_ms'][name]:.0f}"
            rows.append([form, what, f"{one['bytes']:,}", f"{one['bits_per_weight']:.2f}", *accuracies, opened])
    head = ["form", "", "bytes", "bits a weight", "float32, %", "change, points", "open + expand, ms"]
    packed = "; ".join(
        f"{form}: {row['params']:,} parameters, {row['epochs']} epochs, packed in {row['pack_cpu_seconds']:.1f} s "
        f"(searched: {row['searched']['cpu_seconds'] / 60:.0f} min), searched on {row['pictures']['searched']:,} test "
        f"pictures, the rest on {row['pictures']['rest']:,} (`{row['command']}`)"
        for form, row in record["forms"].items()
    )
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"{_grid(head, rows)}\n\n{packed}. Seconds of one core. {record['machine']}; {versions}."


def packing_deltas(record: dict[str, Any]) -> str:
    """Write the deltas of CIFAR ResNet-18."""
    rows = []
    for form, row in record["forms"].items():
        for name in ("60 steps", "head alone"):
            for one in row[name]:
                change = one["bundle_top1"] - one["float32_top1"]
                share = f"{100 * one['of_the_bundle']:.2f} %"
                parent = f"{one['parent_top1']:.2f}" if "parent_top1" in one else ""
                accuracies = [parent, f"{one['float32_top1']:.2f}", f"{change:+.2f}"]
                price = f"`--delta-price {one['price']:g}`"
                rows.append([form, name, price, f"{one['delta_bytes']:,}", share, *accuracies])
            for coding, size in row[f"{name}, in general"].items():
                share = f"{100 * size / row['searched']['bytes']:.2f} %"
                rows.append([form, name, coding, f"{size:,}", share, "", "", ""])
    head = ["form", "fine-tuned", "", "delta, bytes", "of the bundle", "parent, %", "float32, %", "change, points"]
    return _grid(head, rows)


def prefix(record: dict[str, Any]) -> str:
    """Write the two capacities in one file."""
    seeds = list(record["seeds"].values())
    numbers = seeds[0]["learnable"]
    rows = []
    for capacity in ("r = 4", "r = 2"):
        alone = [seed[f"alone, {capacity}"][capacity]["top1"] for seed in seeds]
        for name in (f"alone, {capacity}", "nested, 1:1", "nested, 1:3", "cut"):
            if capacity not in seeds[0][name]:
                continue
            found = [seed[name][capacity] for seed in seeds]
            top1 = [one["top1"] for one in found]
            changes = [one - other for one, other in zip(top1, alone, strict=True)]
            spread = [stdev(values) if len(values) > 1 else None for values in (top1, changes)]
            change = "" if name.startswith("alone") else _with(fmean(changes), spread[1], "+")
            nested = f"{numbers['nested file']:,} for both"
            own = f"{numbers['small' if capacity == 'r = 4' else 'large']:,}"
            number = {"cut": "those of r = 2", f"alone, {capacity}": own}.get(name, nested)
            cells = [_with(fmean(top1), spread[0]), change, f"{found[0]['macs'] / 1e6:.1f}", number]
            rows.append([capacity, "alone" if name.startswith("alone") else name, *cells])
    head = ["capacity", "trained", "top-1, %", "change, points", "MMACs", "learnable numbers"]
    return f"{_grid(head, rows)}\n\n{record['what']}; {record['epochs']} epochs; {_made(record)}"


def own_pictures(record: Any) -> str:
    """Other tools on the same folder: accuracy, processor time, lines of Python."""
    rows = []
    for row in record["rows"]:
        accuracies, seconds = (", ".join(f"{value:g}" for value in row[key]) for key in ("top1", "processor_seconds"))
        rows.append([row["tool"], row["network"], str(row["epochs"]), accuracies, seconds, str(row["lines"])])
    return _grid(["", "network", "epochs", "top-1, %", "processor seconds", "lines of Python"], rows)


def fleet(record: Any) -> str:
    """Write the ways back of the fleet demo, and what became of the devices with a fault."""
    stop, back = record["figures"]["stop of release 3"], record["figures"]["revert of release 4"]
    each = back["seconds of each device"]
    rows = [
        [
            "`advance` stops release 3",
            f"{stop['devices that ran it']}; {stop['that took it back by themselves']} took it back alone",
            f"{stop['seconds from stop to 95 % on release 2']:.1f}",
            str(stop["bundles fetched by the way back"]),
        ],
        [
            "`revert` of release 4",
            f"{back['devices that had committed it']}",
            f"{back['seconds from revert to 95 % on release 2']:.1f} ({each[0]:.1f} to {each[-1]:.1f})",
            str(back["bundles fetched by the way back"]),
        ],
    ]
    head = ["", "devices that ran it", "seconds until 95 % answer with release 2", "bundles fetched for it"]
    faults = [[kind, ran, now, failures] for _, kind, ran, now, failures in record["table"] if kind != "ordinary"]
    devices = _grid(["device", "releases that it ran", "in the end", "failures"], faults)
    figures = record["figures"]
    about = (
        f"{record['devices']} live devices, an update every {record['seconds between updates']:g} s, in brackets the "
        f"first and the last device. {figures['processes']} processes, {figures['megabytes']:,} MB, "
        f"{figures['seconds']} s, load average {record['load average of 5 minutes']:g}."
    )
    return f"{_grid(head, rows)}\n\n{devices}\n\n{about} One run; {_made(record, seeds=False)}"


TABLES: tuple[tuple[str, str, str, Callable[[Any], str]], ...] = (
    ("README.md", "demo table", "demo", demo),
    ("docs/robustness.md", "CIFAR-10 table", "robustness-cifar10", forms),
    ("docs/robustness.md", "Icons-50 table", "robustness-icons50", forms),
    ("docs/corruptions.md", "cost table", "corruptions", corruption_cost),
    ("docs/training-results.md", "sampling table", "sampling-cifar10", sampling),
    ("docs/training-results.md", "strategies table", "reproduce-crnet-cb", reproduced),
    ("docs/training-results.md", "distillation table", "distillation-cifar10", distillation),
    ("docs/training-results.md", "exchange table", "ddp", exchange),
    ("docs/training-results.md", "memory table", "training-memory", memory),
    ("docs/packing.md", "ResNet-18 table", "packing-resnet18", packing),
    ("docs/packing.md", "ResNet-18 deltas table", "packing-resnet18", packing_deltas),
    ("docs/packing.md", "prefix table", "prefix-cifar10", prefix),
    ("docs/worth.md", "networks table", "worth/table", worth_networks),
    ("docs/worth.md", "controls table", "worth/table", worth_controls),
    ("docs/worth.md", "short runs table", "worth/table", worth_short),
    ("docs/rollouts.md", "fleet table", "fleet-demo", fleet),
    ("docs/own-pictures.md", "table of other tools", "own-pictures", own_pictures),
)


def main() -> int:
    """Write or check the pages; return 1 if the check finds one out of date, else 0."""
    stale = []
    for page, name, result, write in TABLES:
        path = ROOT / page
        text = path.read_text()
        begin, end = f"<!-- {name}, written by tools/result_tables.py -->", f"<!-- end of {name} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise SystemExit(f"{page} has no place for the {name}: {begin} ... {end}")
        record = json.loads((ROOT / "results" / f"{result}.json").read_text())
        new = f"{before}{begin}\n\n{write(record)}\n\n{end}{after}"
        if new != text:
            stale.append(f"{page} does not show results/{result}.json")
            if "--check" not in sys.argv:
                path.write_text(new)
    if stale and "--check" in sys.argv:
        print(*stale, "run: make docs", sep="; ", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
