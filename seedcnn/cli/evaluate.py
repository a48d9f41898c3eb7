"""``seedcnn evaluate``."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seedcnn.cli._arguments import Plugins, check_outputs, load_plugins, refuse_without_effect
from seedcnn.cli._trained import NetworkInput, Resize, Set, Weights, channels, open_trained
from seedcnn.errors import ConfigError, DataError
from seedcnn.messages import shown

if TYPE_CHECKING:
    from seedcnn.cli._evaluated import Normalization
    from seedcnn.evaluate import Evaluated, Opened
    from seedcnn.networks import Trained

__all__ = ["evaluate"]

_Models = Annotated[
    list[str], typer.Argument(help="Checkpoints, bundles, ONNX files, timm:NAME or timm:NAME=WEIGHTS, side by side.")
]
_Data = Annotated[
    str,
    typer.Option(
        help="cifar10, cifar100, gtsrb, icons50, icons50-rebuilt or imagenet; NAME, NAME:DIRECTORY, or a directory of "
        "your pictures (default: what the first checkpoint was trained on)."
    ),
]
_HoldOut = Annotated[
    str, typer.Option(help="For Icons-50: test on these styles only (apple,google), or on subtypes or traditional.")
]
_Corrupted = Annotated[
    Path | None, typer.Option(help="Directory of the published CIFAR-10-C or ImageNet-C, instead of generating it.")
]
_Images = Annotated[
    int | None,
    typer.Option(
        help="Corrupt at most this many test images: CIFAR's first; other sets are reduced to a fixed random choice."
    ),
]
_Corruptions = Annotated[
    str, typer.Option(help="Comma-separated names, or all, or none; frost downloads its pictures through pip.")
]
_FrostDir = Annotated[Path | None, typer.Option(help="Directory that holds the frost pictures.")]
_Seeds = Annotated[int, typer.Option(help="Draw the random corruptions this many times, with seeds 0, 1, ...")]
_Mean = Annotated[
    str | None,
    typer.Option(help="Mean for ONNX files (default: that of the given bundles) or --weights, one number per channel."),
]
_Std = Annotated[str | None, typer.Option(help="Standard deviation for ONNX files or --weights; needs --mean.")]
_Verify = Annotated[bool, typer.Option(help="Refuse an incomplete data set.")]
_SkipDamaged = Annotated[
    bool, typer.Option("--skip-damaged", help="Leave out images that cannot be decoded, and list them.")
]
_Decoded = Annotated[
    Path | None, typer.Option(help="Keep ImageNet's decoded images, 150 kB each, in this file instead of in memory.")
]
_Record = Annotated[
    Path | None, typer.Option(help="Keep every answer in this JSON file; an interrupted run resumes from it.")
]
_Csv = Annotated[Path | None, typer.Option(help="Write the raw table here.")]
_Report = Annotated[Path | None, typer.Option(help="Write an HTML report here.")]
_Details = Annotated[
    bool, typer.Option("--details", help="Also print accuracy by class, the classes confused, and the worst answers.")
]
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
    """The normalisation that --mean and --std give together."""
    means, stds = channels("--mean", mean), channels("--std", std)
    if (means is None) != (stds is None):
        raise ConfigError("--mean and --std go together, but only one of them was given")
    return None if means is None or stds is None else (means, stds)


@contextmanager
def _progress(shown: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on standard error, if that is a terminal."""
    from rich.progress import Progress

    from seedcnn.terminal import console as open_console

    console = open_console(stderr=True)
    with Progress(console=console, transient=True, disable=not (shown and console.is_terminal)) as bar:
        task = bar.add_task("corrupted images", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def _writing(option: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{option} {path} cannot be written: {error}") from error


def _weighted(
    models: list[str],
    data: str,
    set_: list[str] | None,
    how: tuple[Path | None, str | None, str | None, str | None, str | None],
) -> dict[str, Trained]:
    """The network that --weights belong to; none without the option."""
    from seedcnn.networks import check_trained, is_checkpoint

    weights, input_, resize, mean, std = how
    if weights is None:
        given = {"--input": input_, "--resize": resize, "--set": " ".join(set_) if set_ else None}
        refuse_without_effect(given, "without --weights")
        if not any(name.endswith(".onnx") for name in models):
            refuse_without_effect({"--mean": mean, "--std": std}, "without an ONNX file or --weights")
        for name in models:
            check_trained(name)
            if not Path(name).exists() and not name.startswith("timm:") and not name.endswith(".onnx"):
                raise DataError(f"there is no file {name}; for a network of timm, write timm:NAME or timm:NAME=FILE")
        return {}
    named = [name for name in models if not is_checkpoint(name) and not name.endswith(".onnx")]
    if len(named) != 1:
        raise ConfigError(f"--weights {weights} belong to one network; named are {', '.join(named) or 'files only'}")
    say = partial(typer.echo, err=True)
    return {named[0]: open_trained(named[0], data, weights, input_, resize, mean, std, set_, say)}


def _check_outputs(kinds: tuple[str, ...], csv: Path | None, report: Path | None) -> None:
    check_outputs({"--csv": csv, "--report": report})
    if csv is not None and not kinds:
        raise ConfigError(f"--csv {csv}: it keeps corrupted accuracies, but --corruptions is none")


def _write_files(
    found: Evaluated, opened: Mapping[str, Opened], csv: Path | None, report: Path | None, frost_dir: Path | None
) -> None:
    from seedcnn.files import write_file

    if csv is not None:
        with _writing("--csv", csv):
            write_file(csv, found.to_csv().encode())
    if report is not None:
        from seedcnn.evaluate.report import report_evaluation  # matplotlib takes its time

        command = shlex.join(["seedcnn", *sys.argv[1:]])
        with _writing("--report", report):
            report_evaluation(report, found, opened, frost_dir=frost_dir, command=command)


def evaluate(
    models: _Models,
    data: _Data = "",
    hold_out: _HoldOut = "",
    weights: Weights = None,
    input_: NetworkInput = None,
    resize: Resize = None,
    set_: Set = None,
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
    details: _Details = False,
    as_json: _Json = False,
    plugin: Plugins = None,
) -> None:
    """Measure accuracy on a test set: clean, by style, and corrupted at five severities.

    Example: seedcnn evaluate runs/vanilla.ckpt runs/groupnl.bundle --images 2000 --report report.html
    """
    load_plugins(plugin)
    if details and as_json:
        raise ConfigError("--details has no effect with --json, which always has them")
    from seedcnn.cli._arguments import as_options
    from seedcnn.cli._evaluated import open_models, read_trained_on, shared_rule, source_of
    from seedcnn.cli._evaluation_tables import print_tables
    from seedcnn.evaluate import EvaluateRequest

    kinds = _kinds(corruptions)
    _check_outputs(kinds, csv, report)
    weighted = _weighted(models, data, set_, (weights, input_, resize, mean, std))
    given = None if weighted else _normalization(mean, std)
    trained = {name: each.trained_on for name, each in weighted.items() if each.trained_on is not None}
    trained |= read_trained_on([name for name in models if name not in weighted])
    data = data or source_of(trained)
    with as_options():
        request = EvaluateRequest(
            data, hold_out, corrupted, images, kinds, frost_dir, seeds, verify, skip_damaged, decoded, record
        )
    test = request.load(lambda text: typer.echo(text, err=True), trained_on=shared_rule(data, trained))
    for bad in test.test.skipped:
        typer.echo(f"left out: {shown(bad.name)}: {bad.reason}", err=True)
    opened = open_models(models, given, test, trained, weighted)
    with _progress(bool(kinds)) as progress:
        found = request.measure(opened, test, progress)
    _write_files(found, opened, csv, report, frost_dir)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
    else:
        print_tables(found, details=details)
