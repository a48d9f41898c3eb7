"""The table of commands."""

from __future__ import annotations

from typing import Annotated

import typer

from seedcnn.cli import bench, cost, evaluate, inspect, pack, plan, repo, reproduce, rollout, train
from seedcnn.terminal import version

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Convolutional networks that grow from seeds: train, measure, pack, publish.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"seedcnn {version()}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Convolutional networks that grow from seeds: train, measure, pack, publish."""


app.command("recipes")(train.recipes)
app.command("train")(train.train)
app.command("reproduce")(reproduce.reproduce)
app.command("evaluate")(evaluate.evaluate)
app.command("cost")(cost.cost)
app.command("bench")(bench.bench)
app.command("plan")(plan.plan)
app.command("pack")(pack.pack)
app.command("apply")(pack.apply)
app.command("inspect")(inspect.inspect)
app.add_typer(repo.app, name="repo")
app.add_typer(rollout.app, name="rollout")
