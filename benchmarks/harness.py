"""Shared parts of the benchmarks: options, conditions, tables and the record."""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import shlex
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

from memory import peak_training_memory
from rich.console import Console
from rich.table import Table
from torch import nn

from seedcnn.convert import ConversionConfig, convert_
from seedcnn.evaluate import cost
from seedcnn.evaluate.benchmark import Measurement, bench_latency, bench_training, conditions, quiet_process
from seedcnn.evaluate.runners import RUNNERS
from seedcnn.evaluate.tables import best, cost_row, print_bench


def options(
    description: str | None, *, rounds: int, runtimes: Sequence[str] = (), memory: bool = False
) -> argparse.Namespace:
    """Parse the options common to the benchmarks, with ``memory`` also ``--memory``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--record", type=Path, help="write the numbers as JSON")
    parser.add_argument("--only", default="", help="run only the parts whose name contains this")
    if memory:
        parser.add_argument("--memory", action="store_true", help="measure memory instead of time")
    if runtimes:
        parser.add_argument("--runtimes", nargs="+", default=list(runtimes), choices=RUNNERS)
    return parser.parse_args()


def about_runs(script: str, what: str, threads: int) -> dict[str, Any]:
    """Describe for the record how training runs were made.

    The command is this process's, with the allocator's environment variables and without the data's location.
    """
    given = ["DIRECTORY" if before == "--data" else part for before, part in pairwise(["", *sys.argv[1:]])]
    memory = [f"{name}={value}" for name, value in os.environ.items() if name.startswith("MALLOC_")]
    return {
        "command": " ".join([*memory, "python", f"benchmarks/{script}", shlex.join(given)]),
        "what": what,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {threads} threads",
        "versions": {name: version(name) for name in ("seedcnn", "torch", "timm")},
    }


def converted(
    model: nn.Module,
    forms: Mapping[str, ConversionConfig],
    filter_fn: Callable[[str, nn.Module], bool] | None = None,
) -> dict[str, nn.Module]:
    """Return the unchanged network and a converted copy for each form; ``filter_fn`` as in ``convert_``."""
    models = {"vanilla": model}
    for form, config in forms.items():
        models[form] = copy.deepcopy(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a benchmark also measures forms that do not pay
            convert_(models[form], config, filter_fn=filter_fn)
    return models


class Bench:
    """One run of a benchmark, which measures networks, prints tables and keeps the record."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        process = quiet_process(arguments.threads)
        self.about = conditions(threads=arguments.threads, rounds=arguments.rounds, process=process)
        self.record: dict[str, Any] = dict(self.about)

    def latency(self, title: str, models: Mapping[str, nn.Module], size: tuple[int, int, int]) -> None:
        """Measure inference of one image in every requested runtime."""
        a = self.arguments
        if a.only in title:
            found = bench_latency(models, size, runtimes=a.runtimes, rounds=a.rounds, threads=a.threads)
            self._keep(title, models, size, "latency", found)

    def training(
        self, title: str, models: Mapping[str, nn.Module], size: tuple[int, int, int], batch: int, modes: Sequence[str]
    ) -> None:
        """Measure training steps."""
        if self.arguments.only in title:
            found = bench_training(models, size, batch=batch, modes=modes, rounds=self.arguments.rounds)
            self._keep(title, models, size, "training", found)

    def memory(
        self, title: str, models: Mapping[str, nn.Module], size: tuple[int, int, int], batch: int, modes: Sequence[str]
    ) -> None:
        """Measure the peak memory of training steps, in MB."""
        if self.arguments.only not in title:
            return
        table = Table("form", *modes, title=title)
        rows: dict[str, dict[str, Any]] = {}
        for form, model in models.items():
            found = {mode: peak_training_memory(model, size, batch=batch, mode=mode) / 1e6 for mode in modes}
            first = rows.get("vanilla", {"mb": found})["mb"]
            ratios = {mode: round(found[mode] / first[mode], 4) for mode in modes}
            rows[form] = {"mb": {mode: round(value, 1) for mode, value in found.items()}, "ratio": ratios}
            table.add_row(form, *(f"{found[mode]:.0f} MB ({ratios[mode]:.3f})" for mode in modes))
        Console(width=120).print(table)
        self.record[title] = {"memory": rows}
        self._write()

    def _keep(
        self,
        title: str,
        models: Mapping[str, nn.Module],
        size: tuple[int, int, int],
        part: str,
        found: list[Measurement],
    ) -> None:
        costs = {form: cost_row(cost(model, size)) for form, model in models.items()}
        print_bench(title, costs, {part: found}, self.about)
        fastest = {one.form: {"runtime": one.runtime, "ratio": round(ratio, 4)} for one, ratio in best(found)}
        self.record[title] = {"costs": costs, part: [one.to_dict() for one in found], "fastest": fastest}
        self._write()

    def _write(self) -> None:
        if self.arguments.record is not None:
            self.arguments.record.parent.mkdir(parents=True, exist_ok=True)
            self.arguments.record.write_text(json.dumps(self.record, indent=1) + "\n")
