"""``seedcnn evaluate``."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seedcnn.cli._arguments import Plugins, load_plugins
from seedcnn.errors import ConfigError, DataError

if TYPE_CHECKING:
    from seedcnn.cli._evaluated import Normalization

__all__ = ["evaluate"]

_Models = Annotated[
    list[str], typer.Argument(help="Checkpoints, bundles, ONNX files, timm:NAME or timm:NAME=WEIGHTS, side by side.")
]
_Data = Annotated[
    str, typer.Option(help="cifar10, cifar100, gtsrb, icons50, icons50-rebuilt or imagenet; NAME or NAME:DIRECTORY.")
]
_HoldOut = Annotated[
    str, typer.Option(help="Of Icons-50: test on these styles only (apple,google), on subtypes or traditional.")
]
_Corrupted = Annotated[
    Path | None, typer.Option(help="Directory of the published CIFAR-10-C or ImageNet-C; else generated.")
]
_Images = Annotated[
    int | None, typer.Option(help="Corrupt only so many test pictures: CIFAR's first, of others a fixed choice.")
]
_Corruptions = Annotated[
    str, typer.Option(help="Comma-separated names, all 19 or none; frost fetches its pictures through pip.")
]
_FrostDir = Annotated[Path | None, typer.Option(help="Directory that holds the frost pictures.")]
_Seeds = Annotated[int, typer.Option(help="Draw the random corruptions so many times, with seeds 0, 1, ...")]
_Mean = Annotated[str | None, typer.Option(help="Of ONNX files, three numbers; else as the bundles given.")]
_Std = Annotated[str | None, typer.Option(help="Of ONNX files, three numbers; goes with --mean.")]
_Verify = Annotated[bool, typer.Option(help="Refuse a data set that is not complete.")]
_SkipDamaged = Annotated[
    bool, typer.Option("--skip-damaged", help="Leave out pictures that cannot be decoded, and list them.")
]
_Decoded = Annotated[
    Path | None, typer.Option(help="File to keep ImageNet's decoded pictures in, 150 kB each, not in memory.")
]
_Record = Annotated[Path | None, typer.Option(help="JSON file of every answer; an interrupted run goes on from it.")]
_Csv = Annotated[Path | None, typer.Option(help="Write the raw table here.")]
_Report = Annotated[Path | None, typer.Option(help="Write an HTML report here.")]
_Json = Annotated[bool, typer.Option("--json", help="Print the raw table as JSON.")]


def _kinds(corruptions: str) -> tuple[str, ...]:
    from seedcnn.data.corruptions import CORRUPTIONS

    if corruptions == "none":
        return ()
    kinds = tuple(CORRUPTIONS) if corruptions == "all" else tuple(filter(None, corruptions.split(",")))
    if not kinds:
        raise ConfigError(f"--corruptions {corruptions!r}: it must name at least one corruption, or be all or none")
    return kinds


def _normalization(mean: str | None, std: str | None) -> Normalization | None:
    """What --mean and --std say together."""
    from seedcnn.cli._evaluated import channels

    means, stds = channels("--mean", mean), channels("--std", std)
    if (means is None) != (stds is None):
        raise ConfigError("--mean and --std go together: one of them alone was given")
    return None if means is None or stds is None else (means, stds)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar with the time left on standard error, if that is a terminal."""
    from rich.progress import Progress

    from seedcnn.terminal import console as open_console

    console = open_console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("corrupted pictures", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def _writing(option: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{option} {path} cannot be written: {error}") from error


def _check_outputs(kinds: tuple[str, ...], csv: Path | None, report: Path | None) -> None:
    for option, path in (("--csv", csv), ("--report", report)):
        if path is not None and not path.parent.is_dir():
            raise ConfigError(f"{option} {path}: there is no directory {path.parent}")
    if csv is not None and not kinds:
        raise ConfigError(f"--csv {csv}: it keeps corrupted accuracies; --corruptions none leaves nothing")


def evaluate(
    models: _Models,
    data: _Data = "cifar10",
    hold_out: _HoldOut = "",
    corrupted: _Corrupted = None,
    images: _Images = None,
    corruptions: _Corruptions = "all",
    frost_dir: _FrostDir = None,
    seeds: _Seeds = 1,
    mean: _Mean = None,
    std: _Std = None,
    verify: _Verify = True,
    skip_damaged: _SkipDamaged = False,
    decoded: _Decoded = None,
    record: _Record = None,
    csv: _Csv = None,
    report: _Report = None,
    as_json: _Json = False,
    plugin: Plugins = None,
) -> None:
    """Measure accuracy on a test set, clean, by style and corrupted at five severities.

    Example: seedcnn evaluate runs/vanilla.ckpt runs/groupnl.bundle --images 2000 --report report.html
    """
    load_plugins(plugin)
    from seedcnn.cli._arguments import as_options
    from seedcnn.cli._evaluated import open_models
    from seedcnn.cli._evaluation_tables import print_tables
    from seedcnn.evaluate import EvaluateRequest
    from seedcnn.evaluate.report import report_evaluation
    from seedcnn.files import write_file

    kinds, given = _kinds(corruptions), _normalization(mean, std)
    _check_outputs(kinds, csv, report)
    with as_options():
        request = EvaluateRequest(
            data, hold_out, corrupted, images, kinds, frost_dir, seeds, verify, skip_damaged, decoded, record
        )
    test = request.load(lambda text: typer.echo(text, err=True))
    for bad in test.test.skipped:
        typer.echo(f"left out: {bad.name}: {bad.reason}", err=True)
    opened = open_models(models, given, (test.mean, test.std), len(test.test.classes))
    with _progress() as progress:
        found = request.measure(opened, test, progress)
    if csv is not None:
        with _writing("--csv", csv):
            write_file(csv, found.to_csv().encode())
    if report is not None:
        with _writing("--report", report):
            report_evaluation(
                report, found, opened, frost_dir=frost_dir, command=shlex.join(["seedcnn", *sys.argv[1:]])
            )
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
    else:
        print_tables(found)
