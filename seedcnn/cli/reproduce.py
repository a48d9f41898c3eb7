"""``seedcnn reproduce``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seedcnn.cli._together import PATIENCE, open_progress
from seedcnn.errors import ConfigError
from seedcnn.messages import steps

if TYPE_CHECKING:
    from rich.table import Table

    from seedcnn.reproduce import Row

__all__ = ["reproduce"]

_WIDTH = 120  # where the output is a file or a pipe


def _directories(given: Sequence[str]) -> dict[str, Path]:
    found = {}
    for text in given:
        name, equals, where = text.partition("=")
        if not equals or not where:
            raise ConfigError(f"--data {text}: it must be NAME=DIRECTORY, for example gtsrb=/data/gtsrb")
        found[name] = Path(where)
    return found


def _add(table: Table, row: Row) -> None:
    name = row.recipe
    for key, figure in row.figures.items():
        printed = "-" if figure.printed is None else f"{figure.printed:g}"
        ours = "failed" if figure.mean is None else f"{figure.mean:.2f}"
        spread = "-" if figure.std is None else f"{figure.std:.2f}"
        difference = "-" if figure.difference is None else f"{figure.difference:+.2f}"
        table.add_row(name, key, printed, ours, difference, str(len(figure.values)), spread)
        name = ""


def _json(row: Row) -> dict[str, Any]:
    figures = {
        key: {"printed": each.printed, "values": list(each.values), "mean": each.mean, "std": each.std}
        for key, each in row.figures.items()
    }
    return {"recipe": row.recipe, "figures": figures, "failed": list(row.failed)}


def reproduce(
    table: Annotated[str, typer.Argument(help="A recipe file that holds a table, such as groupnl_table6.")],
    scale: Annotated[str, typer.Option(help="full, cpu (a documented reduction) or smoke.")] = "cpu",
    seeds: Annotated[int, typer.Option(help="Train each row this many times, with seeds 0, 1, ...")] = 1,
    rows: Annotated[str, typer.Option(help="Only these rows, comma-separated names or parts of names.")] = "",
    data: Annotated[list[str] | None, typer.Option(help="NAME=DIRECTORY of a data set; may be repeated.")] = None,
    out: Annotated[
        Path, typer.Option(help="Directory for checkpoints and results; rows that it already holds are not run again.")
    ] = Path("runs/reproduce"),
    frost_dir: Annotated[Path | None, typer.Option(help="Directory that holds the frost pictures.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Train and measure a table of the papers; print its values beside the measured ones. torchrun shares the work out.

    Example: seedcnn reproduce groupnl_table6 --rows resnet18 --scale cpu --seeds 2
    """
    if seeds < 1:
        raise ConfigError(f"--seeds {seeds}: it must be at least 1")
    say = open_progress(f"reproducing {table} at scale {scale}")
    with steps(say, "loading PyTorch"):
        from seedcnn.processes import open_processes
        from seedcnn.reproduce import reproduce as run
    names = tuple(filter(None, rows.split(",")))
    where = _directories(data or [])
    with open_processes(patience=PATIENCE) as processes:
        done = list(
            run(
                table,
                scale=scale,
                seeds=range(seeds),
                rows=names,
                data=where,
                out=out,
                frost_dir=frost_dir,
                progress=say,
                processes=processes,
            )
        )
    if not processes.first:
        return
    if as_json:
        typer.echo(json.dumps({"table": table, "scale": scale, "rows": [_json(row) for row in done]}, indent=2))
        return
    _print(done, scale)


def _print(done: Sequence[Row], scale: str) -> None:
    from rich.table import Table

    from seedcnn.reproduce import SCALES
    from seedcnn.terminal import console as open_console
    from seedcnn.terminal import prose

    shown = Table("recipe", "quantity", "printed", "ours", "difference", "runs", "± over runs")
    for row in done:
        _add(shown, row)
    console = open_console(width=_WIDTH)
    console.print(shown)
    prose(console, f"Scale {scale}: {SCALES[scale].about}.")
    for row in done:
        for why in row.failed:
            prose(console, f"{row.recipe}: {why}")
