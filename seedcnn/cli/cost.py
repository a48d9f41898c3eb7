"""``seedcnn cost``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seedcnn.cli._arguments import AsJson, InputSize, Model, Plugins, input_size, load_plugins

if TYPE_CHECKING:
    from torch import nn

    from seedcnn.evaluate.costs import Cost

__all__ = ["cost"]


@dataclass(frozen=True)
class _Column:
    """One network of the table: its name, its cost, and its MACs by the convention conv-linear."""

    name: str
    cost: Cost
    macs: int


@dataclass(frozen=True)
class _Counted:
    """The size of the images that were counted for, and the networks."""

    size: tuple[int, int, int]
    columns: list[_Column]


def _options(methods: list[str], assignments: list[str]) -> dict[str, dict[str, str]]:
    """Options by method as it was written, with its name; those of one method win over ``option=value``, for all."""
    from seedcnn.errors import ConfigError
    from seedcnn.literals import member_of_text

    own = {method: member_of_text(method, "method") for method in methods}
    for_all: dict[str, str] = {}
    for_one: dict[str, dict[str, str]] = {options["method"]: {} for options in own.values()}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        method, dot, option = path.rpartition(".")
        if not equals or not option:
            raise ConfigError(f"--set {assignment}: it must look like option=value or method.option=value")
        if not methods:
            raise ConfigError(f"--set {assignment} sets an option of a method, and there is no --method")
        if dot and method not in for_one:
            raise ConfigError(f"--set {assignment}: {method!r} is not among the methods asked for")
        options = for_one[method] if dot else for_all
        if option in options:
            raise ConfigError(f"--set {assignment}: {path} is also set to {options[option]}")
        options[option] = text
        twice = [each for each, given in own.items() if option in given and method in ("", given["method"])]
        if option == "method":
            raise ConfigError(f"--set {assignment}: the method is no option; --method names it")
        if twice:
            raise ConfigError(f"--set {assignment}: --method {twice[0]} also sets {option}")
    return {method: for_all | for_one[given["method"]] | given for method, given in own.items()}


def _narrowed(model: str, columns: list[_Column], input_size: tuple[int, int, int], convention: str) -> list[_Column]:
    """The vanilla network narrowed to the MACs of each method: the control for every saving."""
    import torch

    from seedcnn.errors import ConfigError
    from seedcnn.evaluate.costs import cost as count
    from seedcnn.models import create_model
    from seedcnn.plan import narrowed_widths, widths_in_words

    result = []
    for column in columns[1:]:
        if column.macs >= columns[0].macs:
            typer.echo(f"{column.name} saves no MACs, so there is no narrowed network to compare it with", err=True)
            continue
        try:
            widths = narrowed_widths(model, column.macs, input_size)
        except ConfigError as error:
            typer.echo(f"no narrowed network for {column.name}: {error}", err=True)
            continue
        with torch.device("meta"):
            found = count(create_model(model, widths=widths), input_size, convention=convention)
        result.append(_Column(f"narrowed to {column.name}: {widths_in_words(widths)}", found, found.macs))
    return result


def _tables(columns: list[_Column], width: int) -> list[Any]:
    """The networks side by side; on a narrow terminal several tables, each of which begins with the first network."""
    from rich.table import Table

    base = columns[0].cost
    rows = {
        "parameters": lambda c: c.params,
        "fixed numbers": lambda c: c.fixed,
        "MACs": lambda c: c.macs,
        "NLF evaluations": lambda c: c.nlf_evals,
        "fp32 bytes sent": lambda c: c.fp32_bytes,
        "gradient bytes": lambda c: c.gradient_bytes,
        "saved bytes": lambda c: c.saved_bytes,
    }

    def cells(column: _Column) -> list[str]:
        pairs = [(get(column.cost), get(base)) for get in rows.values()]
        return [f"{value:,}" + (f" ({value / first:.3f})" if first else "") for value, first in pairs]

    room = width - max(map(len, rows)) - 4
    wide = max(len(text) for column in columns for text in cells(column)) + 3
    others = max(1, room // wide - 1)
    tables = []
    for start in range(1, max(2, len(columns)), others):
        shown = [columns[0], *columns[start : start + others]]
        table = Table("", *(column.name for column in shown))
        for name, *values in zip(rows, *map(cells, shown), strict=True):
            table.add_row(name, *values)
        tables.append(table)
    return tables


def _layer_table(column: _Column) -> Any:
    from rich.table import Table

    table = Table("layer", "kind", "parameters", "fixed", "MACs", "NLF evaluations", "output", title=column.name)
    for row in column.cost.layers:
        shape = "" if row.output is None else "x".join(map(str, row.output))
        numbers = (f"{value:,}" for value in (row.params, row.fixed, row.macs, row.nlf_evals))
        table.add_row(row.name or "(the model)", row.kind, *numbers, shape)
    return table


def _columns(model: str, methods: list[str], assignments: list[str], size: str | None, convention: str) -> _Counted:
    """Count the network as it is, converted by each method, and narrowed to the MACs of each."""

    from seedcnn.convert import config_for, convert_
    from seedcnn.convert.copies import copy_model
    from seedcnn.errors import ConfigError
    from seedcnn.evaluate.costs import cost as count
    from seedcnn.models import list_models
    from seedcnn.networks import open_architecture
    from seedcnn.typed import prefixed

    asked = _options(methods, assignments)
    configs = {}
    for name, options in asked.items():
        with prefixed(f"--method {name}"):
            configs[name] = config_for(**options)
    vanilla, shape = open_architecture(model, input_size(size), weights=False)

    def column(name: str, module: nn.Module) -> _Column:
        try:
            found = count(module, shape, convention=convention)
            return _Column(name, found, found.macs if convention == "conv-linear" else count(module, shape).macs)
        except ValueError as error:
            raise ConfigError(f"{model}, {name}: {error}") from None

    columns = [column("vanilla", vanilla)]
    for name, config in configs.items():
        converted = copy_model(vanilla)
        convert_(converted, config)
        columns.append(column(name, converted))
    if model in list_models():
        columns += _narrowed(model, columns, shape, convention)
    return _Counted(shape, columns)


def cost(
    model: Model,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Also count the network converted by this method, or NAME:option=value; repeatable."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Option of the methods: option=value or method.option=value; repeatable."),
    ] = None,
    input_: InputSize = None,
    convention: Annotated[
        str, typer.Option(help="How MACs are counted: conv-linear, torchprofile or torchsummaryx.")
    ] = "conv-linear",
    layers: Annotated[bool, typer.Option("--layers", help="Show every layer; JSON always has them.")] = False,
    as_json: AsJson = False,
    plugin: Plugins = None,
) -> None:
    """Count what a network costs as it is, converted, and narrowed to the same MACs.

    Example: seedcnn cost resnet18_cifar --method groupnl --method ghost --set groupnl.sparse=true
    """
    load_plugins(plugin)
    from seedcnn.errors import ConfigError
    from seedcnn.terminal import console as open_console
    from seedcnn.terminal import prose

    if layers and as_json:
        raise ConfigError("--layers has no effect with --json, which always has the layers")
    counted = _columns(model, method or [], set_ or [], input_, convention)
    if as_json:
        shape = "x".join(map(str, counted.size))
        networks = {c.name: c.cost.to_dict() for c in counted.columns}
        typer.echo(json.dumps({"model": model, "input": shape, "networks": networks}, indent=2))
        return
    console = open_console()
    if layers:
        for one in counted.columns:
            console.print(_layer_table(one))
    for table in _tables(counted.columns, console.width):
        console.print(table)
    prose(
        console,
        f"For one image; MACs by the convention {convention}; fixed numbers come from seeds; saved bytes are "
        "those of activations kept for the backward pass. In brackets: ratio to vanilla.",
    )
    for one in counted.columns:
        if one.cost.unsupported:
            console.print(f"{one.name}: {convention} does not count {', '.join(one.cost.unsupported)}")
