"""``seedcnn evaluate``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seedcnn.errors import BundleError, ConfigError, DataError

if TYPE_CHECKING:
    from seedcnn.cli._evaluated import Opened
    from seedcnn.data.cifar10 import Cifar10
    from seedcnn.evaluate.accuracy import Accuracy
    from seedcnn.evaluate.robustness import SeededRobustness, Summary

__all__ = ["evaluate"]

_WIDTH = 120  # of a file or a pipe


def _kinds(corruptions: str) -> tuple[str, ...]:
    from seedcnn.data.corruptions import CORRUPTIONS

    kinds = tuple(CORRUPTIONS) if corruptions == "all" else tuple(filter(None, corruptions.split(",")))
    for kind in kinds:
        if kind not in CORRUPTIONS:
            raise ConfigError(f"--corruptions {kind}: it must be one of {', '.join(CORRUPTIONS)}, or all")
    if not kinds or len(set(kinds)) != len(kinds):
        raise ConfigError(f"--corruptions {corruptions!r}: it must name at least one corruption, none twice")
    return kinds


def _clean(models: Mapping[str, Opened], cifar: Cifar10) -> dict[str, Accuracy]:
    from seedcnn.evaluate.accuracy import accuracy

    found = {}
    for name, model in models.items():
        try:
            found[name] = accuracy(model.predict, cifar.test_images, cifar.test_labels, num_classes=len(cifar.classes))
        except (DataError, BundleError) as error:
            raise DataError(f"{name}: {error}") from error
    return found


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar with the time left on standard error, if that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("corrupted pictures", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _told(summary: Summary) -> str:
    spread = "" if summary.std is None else f" ± {summary.std:.2f}"
    interval = "" if summary.interval is None else " [{:.2f}, {:.2f}]".format(*summary.interval)
    return f"{summary.mean:.2f}{spread}{interval}"


def _print(clean: Mapping[str, Accuracy], corrupted: Mapping[str, SeededRobustness]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from seedcnn.data.corruptions import CORRUPTIONS
    from seedcnn.evaluate.robustness import FIGURES

    results = list(corrupted.values())
    first, seeds = results[0].tables[0], len(results[0].tables)
    table = Table("accuracy in %")
    for name in corrupted:
        table.add_column(escape(name), overflow="fold")
    n = next(iter(clean.values())).n
    table.add_row(f"clean, top-1 (n = {n})", *(f"{c.top1:.2f} ± {c.standard_error:.2f}" for c in clean.values()))
    table.add_row(f"clean, top-5 (n = {n})", *("-" if c.top5 is None else f"{c.top5:.2f}" for c in clean.values()))
    times = f"n = {first.n} x {len(first.severities)}" + (f" x {seeds} seeds" if seeds > 1 else "")
    for kind in first.accuracies:
        table.add_row(f"{kind} ({times})", *(f"{result.corruption_mean(kind):.2f}" for result in results))
    summaries = [result.summary() for result in results]
    for figure, title in FIGURES.items():
        found = [summary for row in summaries if (summary := row[figure]) is not None]
        if found:
            part = f" ({len(first.accuracies)} measured)" if len(first.accuracies) < len(CORRUPTIONS) else ""
            told = title + (part if figure.startswith("mean_over") else "")
            table.add_row(told, *(escape(_told(summary)) for summary in found))
    console = Console() if Console().is_terminal else Console(width=_WIDTH)
    console.print(table)
    about = "Clean: ± standard error. In brackets: 95 % of a bootstrap over pictures. "
    about += f"Averages: ± standard deviation over {seeds} seeds of the corruptions. " if seeds > 1 else ""
    if all(row["mce_15"] is None for row in summaries):
        about += "No mCE: it needs the standard 15 corruptions."
    else:
        about += "mCE divides by AlexNet's errors on ImageNet-C: for these pictures it is a weighting, not comparable."
    console.print(escape(about), soft_wrap=True, highlight=False)


def _write_csv(path: Path, corrupted: Mapping[str, SeededRobustness]) -> None:
    import csv
    import io

    from seedcnn.evaluate.robustness import CSV_COLUMNS
    from seedcnn.files import write_file

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", *CSV_COLUMNS])
    for name, result in corrupted.items():
        writer.writerows([name, *row] for table in result.tables for row in table.csv_rows())
    try:
        write_file(path, text.getvalue().encode())
    except OSError as error:
        raise DataError(f"--csv {path} cannot be written: {error}") from error


def evaluate(
    models: Annotated[list[Path], typer.Argument(help="Checkpoints, bundles or ONNX files, side by side.")],
    data: Annotated[Path | None, typer.Option(help="Directory that holds CIFAR-10; downloaded if not given.")] = None,
    images: Annotated[int | None, typer.Option(help="Corrupt only the first so many test pictures.")] = None,
    corruptions: Annotated[
        str, typer.Option(help="Comma-separated names, or all 19; frost fetches its pictures through pip.")
    ] = "all",
    frost_dir: Annotated[Path | None, typer.Option(help="Directory that holds the frost pictures.")] = None,
    seeds: Annotated[int, typer.Option(help="Draw the random corruptions so many times, with seeds 0, 1, ...")] = 1,
    mean: Annotated[str | None, typer.Option(help="Of ONNX files, three numbers; else as the bundles given.")] = None,
    std: Annotated[str | None, typer.Option(help="Of ONNX files, three numbers; goes with --mean.")] = None,
    record: Annotated[
        Path | None, typer.Option(help="JSON file of every answer; an interrupted run goes on from it.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the raw table here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the raw table as JSON.")] = False,
) -> None:
    """Measure accuracy on CIFAR-10's test pictures, clean and corrupted at five severities.

    Example: seedcnn evaluate runs/vanilla.ckpt runs/groupnl.bundle --images 2000 --record runs/robust.json
    """
    from seedcnn.cli._evaluated import channels, open_models
    from seedcnn.data.cifar10 import load_cifar10
    from seedcnn.evaluate.robustness import robustness_seeds

    kinds, means, stds = _kinds(corruptions), channels("--mean", mean), channels("--std", std)
    if (means is None) != (stds is None):
        raise ConfigError("--mean and --std go together: one of them alone was given")
    for option, number in (("--images", images), ("--seeds", seeds)):
        if number is not None and number < 1:
            raise ConfigError(f"{option} {number}: it must be at least 1")
    if csv is not None and not csv.parent.is_dir():
        raise ConfigError(f"--csv {csv}: there is no directory {csv.parent}")
    given = (means, stds) if means is not None and stds is not None else None
    cifar = load_cifar10(data, progress=lambda text: typer.echo(text, err=True))
    opened = open_models(models, given, (cifar.mean, cifar.std))
    clean = _clean(opened, cifar)
    with _progress() as progress:
        corrupted = robustness_seeds(
            {name: model.predict for name, model in opened.items()},
            cifar.test_images,
            cifar.test_labels,
            seeds=range(seeds),
            corruptions=kinds,
            max_images=images,
            frost_dir=frost_dir,
            progress=progress,
            record=record,
            digests={name: model.digest for name, model in opened.items()},
        )
    if csv is not None:
        _write_csv(csv, corrupted)
    if as_json:
        rows = {
            name: {"clean": c.top1, "clean_top5": c.top5, "n": c.n, "corrupted": corrupted[name].to_dict()}
            for name, c in clean.items()
        }
        typer.echo(json.dumps(rows, indent=2))
        return
    _print(clean, corrupted)
