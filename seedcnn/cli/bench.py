"""``seedcnn bench``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
    for name in names:
        if name not in known:
            raise ConfigError(f"{option} {name}: it must be one of {', '.join([*short, *known])}")
    if not names:
        raise ConfigError(f"{option} is empty; it must name one of {', '.join([*short, *known])}")
    return list(dict.fromkeys(names))


def _forms(model: str, size: tuple[int, int, int], methods: list[str]) -> dict[str, nn.Module]:
    """Vanilla, every method, the controls, and for a network of ours the one narrowed to the first method's MACs."""
    import copy
    import warnings

    from seedcnn.convert import config_of_text, convert_
    from seedcnn.errors import ConfigError
    from seedcnn.evaluate.costs import cost
    from seedcnn.models import create_model, list_models
    from seedcnn.models.opening import network
    from seedcnn.plan import narrowed_widths

    configs = {method: config_of_text(method) for method in methods}
    configs |= {control: config_of_text(control) for control in _CONTROLS if control not in configs}
    vanilla, _ = network(model, size)
    forms: dict[str, nn.Module] = {"vanilla": vanilla}
    for name, config in configs.items():
        converted = copy.deepcopy(vanilla)
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                convert_(converted, config)
        except ConfigError as error:
            if name in methods:
                raise
            typer.echo(f"no {name} beside it: {error}", err=True)
            continue
        for warning in caught:
            typer.echo(f"{name}: {warning.message}", err=True)
        forms[name] = converted
    if model in list_models():
        macs = cost(forms[methods[0]], size).macs
        try:
            widths = narrowed_widths(model, macs, size)
            forms["narrowed: " + "/".join(map(str, widths))] = create_model(model, widths=widths)
        except ConfigError as error:
            typer.echo(f"no narrowed network beside it: {error}", err=True)
    return forms


def bench(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A network of ours or of timm's, or package.module:callable.")
    ],
    methods: Annotated[
        str, typer.Option(help="Comma-separated methods; options behind colons: groupnl:reduction_ratio=4.")
    ] = "groupnl,groupnl:sparse=True",
    runtimes: Annotated[str, typer.Option(help="Comma-separated: torch, compile, ort, ort-op, openvino.")] = "ort",
    parts: Annotated[str, typer.Option("--what", help="Comma-separated: latency, training.")] = "latency",
    modes: Annotated[
        str, typer.Option(help="Of training, comma-separated: eager, compile, and each with ' channels_last'.")
    ] = "eager",
    input_: Annotated[str | None, typer.Option("--input", help="Size of a picture; the model's own if left.")] = None,
    rounds: Annotated[int, typer.Option(help="Measured calls of each form.", min=1)] = 100,
    steps: Annotated[int, typer.Option(help="Measured training steps of each form.", min=1)] = 7,
    batch: Annotated[int, typer.Option(help="Pictures of a call.", min=1)] = 1,
    training_batch: Annotated[int, typer.Option(help="Pictures of a training step.", min=1)] = 32,
    threads: Annotated[int, typer.Option(help="Threads of every runtime.", min=1)] = 1,
    record: Annotated[Path | None, typer.Option(help="Write the numbers and their conditions as JSON.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Time a network as it is, converted, and its plain alternatives, side by side on this machine.

    Ghost, depthwise-separable and, for networks of ours, the vanilla network narrowed to the first method's MACs are
    always measured in the same run. Weights are random: these are costs, not accuracies.

    Example: seedcnn bench resnet18_cifar --methods groupnl,groupnl:sparse=True --runtimes ort,openvino
    """
    from seedcnn.cli._arguments import input_size
    from seedcnn.errors import ConfigError
    from seedcnn.evaluate.benchmark import TRAINING_MODES, bench_latency, bench_training, conditions, quiet_process
    from seedcnn.evaluate.costs import cost
    from seedcnn.evaluate.runners import RUNNERS
    from seedcnn.evaluate.tables import cost_row, print_bench
    from seedcnn.files import write_file
    from seedcnn.models.opening import network

    wanted = _names("--what", parts, _PARTS, {})
    places = _names("--runtimes", runtimes, RUNNERS, _SHORT)
    kinds = _names("--modes", modes, TRAINING_MODES, {})
    _, size = network(model, None if input_ is None else input_size(input_), weights=False)
    asked = [method for method in methods.split(",") if method]
    if not asked:
        raise ConfigError("--methods is empty; it must name a method to compare, for example groupnl")
    forms = _forms(model, size, asked)
    process = quiet_process(threads)
    found: dict[str, list[Measurement]] = {}
    if "latency" in wanted:
        found["latency"] = bench_latency(forms, size, runtimes=places, rounds=rounds, threads=threads, batch=batch)
    if "training" in wanted:
        found["training"] = bench_training(forms, size, batch=training_batch, modes=kinds, rounds=steps)
    costs = {name: cost_row(cost(form, size)) for name, form in forms.items()}
    about = conditions(threads=threads, rounds=rounds, process=process)
    data = {"model": model, "input": "x".join(map(str, size)), **about, "costs": costs}
    data |= {part: [one.to_dict() for one in rows] for part, rows in found.items()}
    if record is not None:
        write_file(record, json.dumps(data, indent=2).encode() + b"\n")
    if as_json:
        typer.echo(json.dumps(data, indent=2))
    else:
        print_bench(f"{model}, {data['input']}", costs, found, about)
