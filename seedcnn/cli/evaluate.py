"""``seedcnn evaluate``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seedcnn.errors import BundleError, ConfigError, DataError

if TYPE_CHECKING:
    from seedcnn.cli._evaluated import Opened
    from seedcnn.data.sets.named import NamedTest
    from seedcnn.evaluate.accuracies import Accuracy
    from seedcnn.evaluate.papers import PaperRow
    from seedcnn.evaluate.styles import StyleTable

__all__ = ["evaluate"]


def _kinds(corruptions: str) -> tuple[str, ...]:
    from seedcnn.data.corruptions import CORRUPTIONS

    if corruptions == "none":
        return ()
    kinds = tuple(CORRUPTIONS) if corruptions == "all" else tuple(filter(None, corruptions.split(",")))
    for kind in kinds:
        if kind not in CORRUPTIONS:
            raise ConfigError(f"--corruptions {kind}: it must be one of {', '.join(CORRUPTIONS)}, or all, or none")
    if not kinds or len(set(kinds)) != len(kinds):
        raise ConfigError(f"--corruptions {corruptions!r}: it must name at least one corruption, none twice")
    return kinds


def _clean(models: Mapping[str, Opened], data: NamedTest) -> dict[str, Accuracy]:
    from seedcnn.evaluate.accuracies import accuracy

    test, found = data.test, {}
    for name, model in models.items():
        try:
            found[name] = accuracy(model.predict, test.images, test.labels, num_classes=len(test.classes))
        except (DataError, BundleError) as error:
            raise DataError(f"{name}: {error}") from error
    return found


def _styles(models: Mapping[str, Opened], data: NamedTest) -> dict[str, StyleTable]:
    """Accuracy by style, where the pictures have styles."""
    from seedcnn.evaluate.styles import accuracy_by_style

    test = data.test
    if test.styles is None:
        return {}
    held = [style for style in data.held_out if style in test.styles]  # one may be a part of a path, and no style
    return {
        name: accuracy_by_style(model.predict, test.images, test.labels, test.styles, held_out=held)
        for name, model in models.items()
    }


def _papers(models: Mapping[str, Opened], data: NamedTest, corrupted: bool) -> dict[str, list[PaperRow]]:
    """The papers' rows of the same network and method on the same pictures."""
    from seedcnn.convert import METHODS
    from seedcnn.evaluate.papers import DATASETS, paper_rows

    sets = [data.name] if data.name in DATASETS and (data.name != "icons50" or data.held_out) else []
    sets += ["cifar10-c"] if data.name == "cifar10" and corrupted else []
    found: dict[str, list[PaperRow]] = {}
    for name, model in models.items():
        config = model.config
        # A network of other widths than published is not the paper's.
        if config is not None and not set(config.model_options) - {"num_classes"}:
            methods = [known for known, kind in METHODS.items() if type(config.convert) is kind]
            method = methods[0] if methods else "vanilla"
            found[name] = [row for each in sets for row in paper_rows(each, config.model, method)]
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


def _check(
    kinds: Sequence[str], images: int | None, seeds: int, record: Path | None, csv: Path | None, report: Path | None
) -> None:
    for option, number in (("--images", images), ("--seeds", seeds)):
        if number is not None and number < 1:
            raise ConfigError(f"{option} {number}: it must be at least 1")
    for option, path in (("--csv", csv), ("--report", report)):
        if path is not None and not path.parent.is_dir():
            raise ConfigError(f"{option} {path}: there is no directory {path.parent}")
    for option, path in (("--csv", csv), ("--record", record)):
        if path is not None and not kinds:
            raise ConfigError(f"{option} {path}: it keeps corrupted accuracies; --corruptions none leaves nothing")


def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(help="Checkpoints, bundles, ONNX files, timm:NAME or timm:NAME=WEIGHTS, side by side."),
    ],
    data: Annotated[
        str,
        typer.Option(help="cifar10, cifar100, gtsrb, icons50, icons50-rebuilt or imagenet; NAME or NAME:DIRECTORY."),
    ] = "cifar10",
    hold_out: Annotated[
        str, typer.Option(help="Of Icons-50: test on these styles only (apple,google), on subtypes or traditional.")
    ] = "",
    corrupted: Annotated[
        Path | None, typer.Option(help="Directory of the published CIFAR-10-C or ImageNet-C; else generated.")
    ] = None,
    images: Annotated[
        int | None, typer.Option(help="Corrupt only so many test pictures: CIFAR's first, of others a fixed choice.")
    ] = None,
    corruptions: Annotated[
        str, typer.Option(help="Comma-separated names, all 19 or none; frost fetches its pictures through pip.")
    ] = "all",
    frost_dir: Annotated[Path | None, typer.Option(help="Directory that holds the frost pictures.")] = None,
    seeds: Annotated[int, typer.Option(help="Draw the random corruptions so many times, with seeds 0, 1, ...")] = 1,
    mean: Annotated[str | None, typer.Option(help="Of ONNX files, three numbers; else as the bundles given.")] = None,
    std: Annotated[str | None, typer.Option(help="Of ONNX files, three numbers; goes with --mean.")] = None,
    verify: Annotated[bool, typer.Option(help="Refuse a data set that is not complete.")] = True,
    skip_damaged: Annotated[
        bool, typer.Option("--skip-damaged", help="Leave out pictures that cannot be decoded, and list them.")
    ] = False,
    decoded: Annotated[
        Path | None, typer.Option(help="File to keep ImageNet's decoded pictures in, 150 kB each, not in memory.")
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="JSON file of every answer; an interrupted run goes on from it.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the raw table here.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the raw table as JSON.")] = False,
) -> None:
    """Measure accuracy on a test set, clean, by style and corrupted at five severities.

    Example: seedcnn evaluate runs/vanilla.ckpt runs/groupnl.bundle --images 2000 --report report.html
    """
    from seedcnn.cli._evaluated import channels, open_models
    from seedcnn.cli._evaluation_tables import Evaluated, print_tables, to_json, write_csv
    from seedcnn.data.sets.named import load_test
    from seedcnn.evaluate.robustness_runs import robustness_seeds

    kinds, means, stds = _kinds(corruptions), channels("--mean", mean), channels("--std", std)
    if (means is None) != (stds is None):
        raise ConfigError("--mean and --std go together: one of them alone was given")
    _check(kinds, images, seeds, record, csv, report)
    if corrupted is not None and (seeds > 1 or not kinds):
        raise ConfigError(f"--corrupted {corrupted}: published pictures go with one seed, and with corruptions")
    test = load_test(
        data,
        hold_out=hold_out,
        limit=images,
        corrupted=corrupted,
        verify=verify,
        on_error="skip" if skip_damaged else "raise",
        decoded=decoded,
        progress=lambda text: typer.echo(text, err=True),
    )
    for bad in test.test.skipped:
        typer.echo(f"left out: {bad.name}: {bad.reason}", err=True)
    given = (means, stds) if means is not None and stds is not None else None
    opened = open_models(models, given, (test.mean, test.std), len(test.test.classes))
    clean, found = _clean(opened, test), {}
    if kinds:
        with _progress() as progress:
            found = robustness_seeds(
                {name: model.predict for name, model in opened.items()},
                test.test.images,
                test.test.labels,
                seeds=range(seeds),
                corruptions=kinds,
                constants=test.constants,
                max_images=images,
                frost_dir=frost_dir,
                corrupted=test.corrupted,
                progress=progress,
                record=record,
                digests={name: model.digest for name, model in opened.items()},
            )
    evaluated = Evaluated(test, clean, found, _styles(opened, test), _papers(opened, test, bool(kinds)))
    if csv is not None:
        write_csv(csv, evaluated)
    if report is not None:
        from seedcnn.cli._evaluation_report import report as write

        write(report, evaluated, opened, frost_dir)
    if as_json:
        typer.echo(json.dumps(to_json(evaluated), indent=2))
        return
    print_tables(evaluated)
