"""``seedcnn evaluate``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from seedcnn.data.cifar10 import Cifar10
    from seedcnn.evaluate.accuracy import Predict

__all__ = ["evaluate"]


def _predictor(path: Path, cifar: Cifar10) -> Predict:
    """A checkpoint or a bundle as a callable; told apart by the file's own metadata."""
    from seedcnn.bundle import open_bundle
    from seedcnn.errors import BundleFormatError, DataError, TrainingError
    from seedcnn.evaluate.accuracy import torch_predictor
    from seedcnn.evaluate.predictors import bundle_predictor
    from seedcnn.train import load_model

    if not path.is_file():
        raise DataError(f"there is no file {path}")
    try:
        bundle = open_bundle(path)
    except BundleFormatError as no_bundle:
        try:
            return torch_predictor(load_model(path)[0], cifar.mean, cifar.std)
        except TrainingError as no_checkpoint:
            raise DataError(f"{path} is neither a bundle ({no_bundle}) nor a checkpoint ({no_checkpoint})") from None
    return bundle_predictor(bundle)


def evaluate(
    models: Annotated[list[Path], typer.Argument(help="Checkpoints or bundles, evaluated side by side.")],
    data: Annotated[Path | None, typer.Option(help="Directory that holds CIFAR-10; downloaded if not given.")] = None,
    images: Annotated[int | None, typer.Option(help="Corrupt only the first so many test pictures.")] = None,
    corruptions: Annotated[
        str, typer.Option(help="Comma-separated names, or all 19; frost fetches its pictures through pip.")
    ] = "all",
    frost_dir: Annotated[Path | None, typer.Option(help="Directory that holds the frost pictures.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the raw table as JSON.")] = False,
) -> None:
    """Measure accuracy on CIFAR-10's test pictures, clean and corrupted at five severities.

    Example: seedcnn evaluate runs/vanilla.ckpt runs/groupnl.bundle --images 2000
    """
    from rich.console import Console
    from rich.table import Table

    from seedcnn.data.cifar10 import load_cifar10
    from seedcnn.data.corruptions import CORRUPTIONS
    from seedcnn.errors import ConfigError
    from seedcnn.evaluate.accuracy import accuracy
    from seedcnn.evaluate.robustness import robustness_many

    kinds = tuple(CORRUPTIONS) if corruptions == "all" else tuple(filter(None, corruptions.split(",")))
    for kind in kinds:
        if kind not in CORRUPTIONS:
            raise ConfigError(f"--corruptions {kind}: it must be one of {', '.join(CORRUPTIONS)}, or all")
    if not kinds or len(set(kinds)) != len(kinds):
        raise ConfigError(f"--corruptions {corruptions!r}: it must name at least one corruption, none twice")
    cifar = load_cifar10(data, progress=lambda text: typer.echo(text, err=True))
    predictors = {str(path): _predictor(path, cifar) for path in models}
    clean = {name: accuracy(p, cifar.test_images, cifar.test_labels) for name, p in predictors.items()}
    corrupted = robustness_many(
        predictors,
        cifar.test_images,
        cifar.test_labels,
        corruptions=kinds,
        max_images=images,
        frost_dir=frost_dir,
    )
    if as_json:
        rows = {
            name: {"clean": clean[name].top1, "n": clean[name].n, "corrupted": corrupted[name].to_dict()}
            for name in predictors
        }
        typer.echo(json.dumps(rows, indent=2))
        return
    first = next(iter(corrupted.values()))
    table = Table("accuracy in %", *predictors)
    table.add_row(f"clean (n = {next(iter(clean.values())).n})", *(f"{c.top1:.2f}" for c in clean.values()))
    for kind in first.corruption_means:
        table.add_row(f"{kind} (n = {first.n} x 5)", *(f"{t.corruption_means[kind]:.2f}" for t in corrupted.values()))
    table.add_row("mean over corruptions", *(f"{t.mean_over_corruptions:.2f}" for t in corrupted.values()))
    table.add_row("mean over groups", *(f"{t.mean_over_groups:.2f}" for t in corrupted.values()))
    Console().print(table)
