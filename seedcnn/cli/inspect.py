"""``seedcnn inspect``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zipfile import is_zipfile

import typer

from seedcnn.cli._arguments import Plugins, load_plugins
from seedcnn.errors import BundleFormatError, ConfigError, TrainingError
from seedcnn.messages import shown

if TYPE_CHECKING:
    from seedcnn.bundle import Bundle, Measured
    from seedcnn.train import Checkpoint

__all__ = ["inspect"]

_LABELS = 20


def inspect(
    file: Annotated[Path, typer.Argument(help="Bundle, delta, checkpoint, or file of weights.")],
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    plugin: Plugins = None,
) -> None:
    """Show what a bundle, a delta, a checkpoint or a file of weights is: network, labels, input, accuracy, size.

    Every digest of a bundle is checked.

    Example: seedcnn inspect groupnl-1.bundle
    """
    load_plugins(plugin)
    from seedcnn.bundle import open_bundle

    try:
        bundle = open_bundle(file)
    except BundleFormatError as no_bundle:
        if not file.is_file():
            raise
        if "this is a delta" in str(no_bundle):
            _inspect_delta(file, tensors)
            return
        _inspect_other(file, tensors, no_bundle)
    else:
        _inspect_bundle(bundle, tensors)


def _say_labels(labels: tuple[str, ...]) -> None:
    some = ", ".join(map(shown, labels[:_LABELS])) + (
        f", and {len(labels) - _LABELS} more" if len(labels) > _LABELS else ""
    )
    typer.echo(f"{len(labels)} labels: {some}")


def _inspect_bundle(opened: Bundle, tensors: bool) -> None:
    from seedcnn.bundle.parts import alone, sizes_by_part

    opened.graph()
    opened.canned_logits()
    expanded = opened.tensors()
    m = opened.manifest
    typer.echo(
        f"{shown(m.model)} (family {m.family}, release {m.release}), {opened.size:,} bytes, sha256 {opened.sha256}"
    )
    typer.echo(f"content {m.content_sha256()}")
    _say_labels(m.labels)
    typer.echo(m.preprocessing.in_words())
    _say_accuracy(m.measured)
    canned = f"{m.canned.count} canned images, {len(m.canned.pictures.sizes)} canned pictures"
    typer.echo(f"graph {m.graph.size:,} bytes, {canned}")
    parts = sizes_by_part(opened)
    typer.echo("bytes: " + ", ".join(f"{name} {size:,}" for name, size in parts.items() if size))
    sizes = alone(opened) if tensors else {}
    for entry in m.tensors if tensors else ():
        shape = "x".join(map(str, entry.shape))
        scaled = f"  scaled by {entry.scale}" if entry.scale else ""
        typer.echo(f"{entry.name:<44} {shape:>14}  {entry.coding:<14} {sizes[entry.name]:>9,} B alone{scaled}")
    total = sum(value.size for value in expanded.values())
    typer.echo(f"{len(expanded)} tensors, {total:,} values, all digests match")


def _say_accuracy(found: Measured | None) -> None:
    if found is not None:
        where = f" of {shown(found.data)}" if found.data else ""
        typer.echo(f"accuracy {found.top1:.2f} % of {found.count:,} images{where} when it was packed")


def _inspect_delta(file: Path, tensors: bool) -> None:
    from seedcnn.cli._deltas import open_delta

    found = open_delta(file)
    typer.echo(f"delta to release {found.release}, {found.size:,} bytes, sha256 {found.sha256}")
    typer.echo(f"from content {found.parent}\nto content   {found.result}")
    _say_accuracy(found.measured)
    for change in found.tensors if tensors else ():
        typer.echo(f"tensor {change.index} of the parent: {change.coding}")
    typer.echo(f"{len(found.tensors)} tensors change; `seedcnn apply` checks that they fit the parent")


def _inspect_other(file: Path, tensors: bool, no_bundle: BundleFormatError) -> None:
    """Show a checkpoint or a file of weights; what is neither is refused as the bundle that it is not."""
    from seedcnn.errors import PluginError
    from seedcnn.models.weights import load_state
    from seedcnn.train import load_checkpoint

    try:
        checkpoint = load_checkpoint(file)
    except PluginError:
        raise
    except TrainingError as no_checkpoint:
        if "is a bundle" in str(no_checkpoint):
            raise no_bundle from None
        if "is not a checkpoint" not in str(no_checkpoint):
            raise
        try:
            state = load_state(file, lambda text: typer.echo(text, err=True))
        except ConfigError as no_weights:
            if is_zipfile(file):  # torch's file format
                raise
            head = file.read_bytes()[: 1 << 20].decode("latin-1")
            if '"seedcnn":"seedcnn-' in head or "seedcnn.manifest" in head:
                raise no_bundle from None
            raise ConfigError(
                f"{file} is no bundle ({no_bundle}), delta or checkpoint, and no file of weights ({no_weights})"
            ) from None
        typer.echo(f"weights from elsewhere, {file.stat().st_size:,} bytes; they say nothing about labels or input")
        _say_tensors(state, tensors)
    else:
        _inspect_checkpoint(checkpoint, file, tensors)


def _inspect_checkpoint(found: Checkpoint, file: Path, tensors: bool) -> None:
    from seedcnn.convert import method_of

    config = found.config
    method = "as it is" if config.convert is None else f"converted by {method_of(config.convert)}"
    if config.plan:
        converted = sum(each is not None for each in config.plan.values())
        method = f"{converted} of {len(config.plan)} layers converted by a plan"
    epochs = f"{found.epoch} of {config.epochs} epochs"
    typer.echo(f"checkpoint of {config.model}, {method}; {epochs}, {file.stat().st_size:,} bytes")
    if found.labels:
        _say_labels(found.labels)
    if found.preprocessing is not None:
        typer.echo(found.preprocessing.in_words())
    trained = f"trained on {shown(found.source or config.data)}"
    best = "" if found.best is None else f"; best epoch of the run {found.best:.2f} %"
    typer.echo(f"{trained}{best}")
    _say_tensors(found.weights, tensors)


def _say_tensors(state: Mapping[str, Any], tensors: bool) -> None:
    for name, value in state.items() if tensors else ():
        shape = "x".join(map(str, value.shape)) or "scalar"
        typer.echo(f"{name:<44} {shape:>14}  {str(value.dtype).removeprefix('torch.')}")
    typer.echo(f"{len(state)} tensors, {sum(value.numel() for value in state.values()):,} values")
