"""``seedcnn bench``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seedcnn.cli._arguments import (
    AsJson,
    InputSize,
    Model,
    Plugins,
    check_outputs,
    default,
    input_size,
    load_plugins,
    refuse_without_effect,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from seedcnn.evaluate.benchmark import Measurement

__all__ = ["bench"]

_SHORT = {"ort": "onnxruntime", "ort-op": "onnxruntime-custom-op", "compile": "torch-compile"}
_PARTS = ("latency", "training")
_CONTROLS = ("ghost", "dws")


def _names(option: str, text: str, known: tuple[str, ...], short: Mapping[str, str]) -> list[str]:
    from seedcnn.errors import ConfigError

    names = [short.get(name, name) for name in text.split(",") if name]
    shown = {long: brief for brief, long in short.items()}
    choices = ", ".join(shown.get(name, name) for name in known)
    for name in names:
        if name not in known:
            raise ConfigError(f"{option} {name}: it must be one of {choices}")
    if not names:
        raise ConfigError(f"{option} is empty; it must name one or more of {choices}, separated by commas")
    return list(dict.fromkeys(names))


def _forms(model: str, size: tuple[int, int, int], methods: list[str]) -> dict[str, nn.Module]:
    """Vanilla, every method, the controls, and for a network of ours the one narrowed to the first method's MACs."""
    import warnings

    from seedcnn.convert import config_of_text, convert_
    from seedcnn.convert.copies import copy_model
    from seedcnn.errors import ConfigError
    from seedcnn.evaluate.costs import cost
    from seedcnn.models import create_model, list_models
    from seedcnn.networks import open_architecture
    from seedcnn.plan import narrowed_widths, widths_in_words

    configs = {method: config_of_text(method) for method in methods}
    configs |= {control: config_of_text(control) for control in _CONTROLS if control not in configs}
    vanilla, _ = open_architecture(model, size)
    forms: dict[str, nn.Module] = {"vanilla": vanilla}
    for name, config in configs.items():
        converted = copy_model(vanilla)
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                convert_(converted, config)
        except ConfigError as error:
            if name in methods:
                raise
            typer.echo(f"no {name} to compare with: {error}", err=True)
            continue
        for warning in caught:
            typer.echo(f"{name}: {warning.message}", err=True)
        forms[name] = converted
    if model in list_models():
        macs = cost(forms[methods[0]], size).macs
        if macs >= cost(vanilla, size).macs:
            typer.echo(f"{methods[0]} saves no MACs, so there is no narrowed network to compare it with", err=True)
            return forms
        try:
            widths = narrowed_widths(model, macs, size)
            forms[f"narrowed: {widths_in_words(widths)}"] = create_model(model, widths=widths)
        except ConfigError as error:
            typer.echo(f"no narrowed network to compare with: {error}", err=True)
    return forms


@dataclass(frozen=True)
class _Latency:
    """How latency is measured."""

    runtimes: list[str]
    rounds: int
    batch: int


@dataclass(frozen=True)
class _Training:
    """How training steps are measured."""

    modes: list[str]
    steps: int
    batch: int


@dataclass(frozen=True)
class _Request:
    """One run of ``seedcnn bench``; a part that is None is not measured."""

    model: str
    size: tuple[int, int, int] | None
    methods: list[str]
    latency: _Latency | None
    training: _Training | None
    threads: int

    def run(self) -> tuple[dict[str, Any], dict[str, list[Measurement]]]:
        """The numbers with their conditions as plain data, and the measurements by part."""
        from seedcnn.evaluate.benchmark import bench_latency, bench_training, conditions, quiet_process
        from seedcnn.evaluate.costs import cost
        from seedcnn.evaluate.tables import cost_row
        from seedcnn.networks import open_architecture

        _, size = open_architecture(self.model, self.size, weights=False)
        forms = _forms(self.model, size, self.methods)
        process = quiet_process(self.threads)
        found: dict[str, list[Measurement]] = {}
        rounds = 0
        if (how := self.latency) is not None:
            rounds = how.rounds
            found["latency"] = bench_latency(
                forms, size, runtimes=how.runtimes, rounds=rounds, threads=self.threads, batch=how.batch
            )
        if (train := self.training) is not None:
            rounds = rounds or train.steps
            found["training"] = bench_training(forms, size, batch=train.batch, modes=train.modes, rounds=train.steps)
        data: dict[str, Any] = {"model": self.model, "input": "x".join(map(str, size))}
        data |= conditions(threads=self.threads, rounds=rounds, process=process)
        data["costs"] = {name: cost_row(cost(form, size)) for name, form in forms.items()}
        return data | {part: [one.to_dict() for one in rows] for part, rows in found.items()}, found


def _latency(runtimes: str | None, rounds: int | None, batch: int | None) -> _Latency:
    """The options of latency, or their defaults."""
    from seedcnn.evaluate.runners import RUNNERS

    places = _names("--runtimes", default(runtimes, "ort"), RUNNERS, _SHORT)
    return _Latency(places, default(rounds, 100), default(batch, 1))


def _training(modes: str | None, steps: int | None, batch: int | None) -> _Training:
    """The options of training, or their defaults."""
    from seedcnn.evaluate.benchmark import TRAINING_MODES

    kinds = _names("--modes", default(modes, "eager"), TRAINING_MODES, {})
    return _Training(kinds, default(steps, 7), default(batch, 32))


def bench(
    model: Model,
    methods: Annotated[
        str, typer.Option(help="Comma-separated methods, each with options after colons: groupnl:reduction_ratio=4.")
    ] = "groupnl,groupnl:sparse=true",
    runtimes: Annotated[
        str | None,
        typer.Option(help="For latency, comma-separated: torch, compile, ort (the default), ort-op, openvino."),
    ] = None,
    parts: Annotated[str, typer.Option("--what", help="Comma-separated: latency, training.")] = "latency",
    modes: Annotated[
        str | None,
        typer.Option(
            help="For training, comma-separated: eager (the default), compile, or either and ' channels_last'."
        ),
    ] = None,
    input_: InputSize = None,
    rounds: Annotated[int | None, typer.Option(help="Measured calls of each form; 100 by default.", min=1)] = None,
    steps: Annotated[int | None, typer.Option(help="Measured training steps; 7 by default.", min=1)] = None,
    batch: Annotated[int | None, typer.Option(help="Images in a call; 1 by default.", min=1)] = None,
    training_batch: Annotated[int | None, typer.Option(help="Images in a training step; 32 by default.", min=1)] = None,
    threads: Annotated[int, typer.Option(help="Threads of every runtime.", min=1)] = 1,
    record: Annotated[Path | None, typer.Option(help="Write the numbers and their conditions as JSON.")] = None,
    as_json: AsJson = False,
    plugin: Plugins = None,
) -> None:
    """Time a network beside its converted forms and its plain alternatives, on this machine.

    Every run also measures Ghost, depthwise-separable and, for networks of seedcnn, the vanilla network narrowed to
    the first method's MACs. Weights are random: these are costs, not accuracies.

    Example: seedcnn bench resnet18_cifar --methods groupnl,groupnl:sparse=true --runtimes ort,openvino
    """
    load_plugins(plugin)
    check_outputs({"--record": record})
    from seedcnn.errors import ConfigError
    from seedcnn.evaluate.tables import print_bench
    from seedcnn.files import write_file
    from seedcnn.literals import split

    wanted = _names("--what", parts, _PARTS, {})
    if "latency" not in wanted:
        given = {"--runtimes": runtimes, "--rounds": rounds, "--batch": batch}
        refuse_without_effect(given, "without latency in --what")
    if "training" not in wanted:
        given = {"--modes": modes, "--steps": steps, "--training-batch": training_batch}
        refuse_without_effect(given, "without training in --what")
    latency = _latency(runtimes, rounds, batch) if "latency" in wanted else None
    training = _training(modes, steps, training_batch) if "training" in wanted else None
    asked = [method for method in split(methods, ",") if method]
    if not asked:
        raise ConfigError("--methods is empty; it must name a method to compare, for example groupnl")
    data, found = _Request(model, input_size(input_), asked, latency, training, threads).run()
    if record is not None:
        write_file(record, json.dumps(data, indent=2).encode() + b"\n")
    if as_json:
        typer.echo(json.dumps(data, indent=2))
    else:
        print_bench(f"{model}, {data['input']}", data["costs"], found, data)
