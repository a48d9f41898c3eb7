"""What the benchmarks share: the options, the conditions, the tables and the record."""

from __future__ import annotations

import argparse
import copy
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from seedcnn.cli._tables import best, cost_row, print_bench
from seedcnn.convert import ConversionConfig, convert_
from seedcnn.evaluate import cost
from seedcnn.evaluate.benchmark import Measurement, bench_latency, bench_training, conditions, quiet_process
from seedcnn.evaluate.runners import RUNNERS


def options(description: str | None, *, rounds: int, runtimes: Sequence[str] = ()) -> argparse.Namespace:
    """The command line that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--record", type=Path, help="write the numbers as JSON")
    parser.add_argument("--only", default="", help="run what has this in its name")
    if runtimes:
        parser.add_argument("--runtimes", nargs="+", default=list(runtimes), choices=RUNNERS)
    return parser.parse_args()


def converted(
    model: nn.Module,
    forms: Mapping[str, ConversionConfig],
    filter_fn: Callable[[str, nn.Module], bool] | None = None,
) -> dict[str, nn.Module]:
    """The network as it is, and a converted copy for each form; ``filter_fn`` as in ``convert_``."""
    models = {"vanilla": model}
    for form, config in forms.items():
        models[form] = copy.deepcopy(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # forms that do not pay are what a benchmark is for
            convert_(models[form], config, filter_fn=filter_fn)
    return models


class Bench:
    """One run of a benchmark: measures networks, prints tables, keeps the record."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        process = quiet_process(arguments.threads)
        self.about = conditions(threads=arguments.threads, rounds=arguments.rounds, process=process)
        self.record: dict[str, Any] = dict(self.about)

    def latency(self, title: str, models: Mapping[str, nn.Module], size: tuple[int, int, int]) -> None:
        """Inference of one picture in every runtime asked for."""
        a = self.arguments
        if a.only in title:
            found = bench_latency(models, size, runtimes=a.runtimes, rounds=a.rounds, threads=a.threads)
            self._keep(title, models, size, "latency", found)

    def training(
        self, title: str, models: Mapping[str, nn.Module], size: tuple[int, int, int], batch: int, modes: Sequence[str]
    ) -> None:
        """Training steps."""
        if self.arguments.only in title:
            found = bench_training(models, size, batch=batch, modes=modes, rounds=self.arguments.rounds)
            self._keep(title, models, size, "training", found)

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
        if self.arguments.record is not None:
            self.arguments.record.parent.mkdir(parents=True, exist_ok=True)
            self.arguments.record.write_text(json.dumps(self.record, indent=1) + "\n")
