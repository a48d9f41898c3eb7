"""Write docs/benchmarks.md from the records in benchmarks/records/; ``--check`` only compares."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
RECORDS = ROOT / "benchmarks" / "records"
DATE = "2026-11-20"
SHORT = {"onnxruntime": "ONNX Runtime", "onnxruntime-custom-op": "ONNX Runtime + operator", "openvino": "OpenVINO"}

HEAD = """# Benchmarks

Written by `tools/bench_tables.py` from `benchmarks/records/`, which also hold loading times and errors. Every form of a
table was measured in one process with the others, in random order after a warm-up, each checked to be the same function
before it was timed. Weights are random: these are costs, not accuracies. A cell is the median in milliseconds with its
ratio to the vanilla network in the same runtime, and the quartiles. "Fastest" is the form's fastest runtime against the
vanilla network in *its* fastest. `make bench` runs them; `seedcnn bench MODEL` does the same for a network of your own.
"""


def _about(record: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    threads = record["threads"]
    return (
        f"{record['machine']}; {versions}; commit {record['commit']}; {threads} thread{'s' if threads > 1 else ''}; "
        f"{record['process']}. Command: `python benchmarks/{record['command']}`.\n"
    )


def _time(row: dict[str, Any]) -> str:
    low, high = row["quartiles_ms"]
    return f"{row['median_ms']:.3f} (**{row['ratio']:.3f}**)<br>[{low:.3f}, {high:.3f}]"


def _forms(title: str, part: dict[str, Any]) -> str:
    kind = "latency" if "latency" in part else "training"
    rows = part[kind]
    runtimes = list(dict.fromkeys(row["runtime"] for row in rows))
    cells = {(row["form"], row["runtime"]): row for row in rows}
    names = [SHORT.get(name, name) for name in runtimes]
    costs = part["costs"]
    first = next(iter(costs.values()))
    lines = [f"\n### {title}\n", f"Medians of {rows[0]['n']}.\n"]
    lines.append(f"| form | parameters | MACs | saved bytes | {' | '.join(names)} | fastest |")
    lines.append("|---" * (len(runtimes) + 5) + "|")
    for form, cost in costs.items():
        counts = [f"{cost[name]:,}" for name in ("params", "macs")]
        counts.append(f"{cost['saved_bytes'] / first['saved_bytes']:.2f}")
        best = part["fastest"][form]
        times = [_time(cells[form, runtime]) for runtime in runtimes]
        lines.append(f"| {form} | {' | '.join(counts + times)} | {best['ratio']:.3f} |")
    return "\n".join(lines) + "\n"


def _int8(rows: list[dict[str, Any]]) -> str:
    lines = ["\n### CIFAR ResNet-18, float32 and int8\n", f"Medians of {rows[0]['n']}.\n"]
    lines += ["| form | runtime | float32, ms | int8, ms | int8 / float32 |", "|---|---|---|---|---|"]
    for row in rows:
        (fq1, fq3), (iq1, iq3) = row["float32_quartiles_ms"], row["int8_quartiles_ms"]
        lines.append(
            f"| {row['form']} | {SHORT[row['runtime']]} | {row['float32_ms']:.3f} [{fq1:.3f}, {fq3:.3f}] | "
            f"{row['int8_ms']:.3f} [{iq1:.3f}, {iq3:.3f}] | {row['int8_ms'] / row['float32_ms']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def _operators(rows: list[dict[str, Any]]) -> str:
    lines = ["\nEager, forward and backward.\n", "| what | plain, ms | ours, ms | ratio |", "|---|---|---|---|"]
    for row in rows:
        low, high = row["ours_quartiles_ms"]
        ratio = row["ours_ms"] / row["plain_ms"]
        ours = f"{row['ours_ms']:.3f} [{low:.3f}, {high:.3f}]"
        lines.append(f"| {row['what']} | {row['plain_ms']:.3f} | {ours} | {ratio:.2f} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """Compose the page."""
    text = HEAD
    titles = {
        "layers": "One layer: chains of four 3x3 convolutions with norm and ReLU",
        "forms": "Networks, one picture",
        "mobile": "Mobile networks, one picture",
        "training": "Training steps, eager and compiled",
        "int8": "int8",
        "operators": "The training operators against plain operations",
    }
    for name, title in titles.items():
        record = json.loads((RECORDS / f"{DATE}_{name}" / "record.json").read_text())
        text += f"\n## {title}\n\n{_about(record)}"
        for key, part in record.items():
            if isinstance(part, dict) and "costs" in part:
                text += _forms(key, part)
            elif isinstance(part, list):
                text += _operators(part) if name == "operators" else _int8(part)
    return text


def main() -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    if arguments.check:
        same = PAGE.read_text() == page()
        print("docs/benchmarks.md is in step" if same else "docs/benchmarks.md is stale; run tools/bench_tables.py")
        return 0 if same else 1
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
