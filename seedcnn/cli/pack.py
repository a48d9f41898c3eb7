"""``seedcnn pack`` and ``seedcnn inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["inspect", "pack"]


def pack(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of a trained network.")],
    out: Annotated[Path, typer.Option(help="Bundle to write.")],
    family: Annotated[str, typer.Option(help="Model family that devices follow.")],
    release: Annotated[int, typer.Option(help="Release counter; grows with each release of the family.", min=1)],
    min_release: Annotated[int, typer.Option(help="Releases below this are no longer accepted.", min=0)] = 0,
    step: Annotated[float | None, typer.Option(help="Grid step of the weights; 0 stores float32.", min=0)] = None,
    max_accuracy_drop: Annotated[float | None, typer.Option(help="Refuse to lose more points than this.")] = None,
    data: Annotated[Path | None, typer.Option(help="Directory that holds CIFAR-10; downloaded if not given.")] = None,
    target: Annotated[str, typer.Option(help="Runtime that the graph is written for.")] = "onnxruntime",
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantise the convolutions; refused where it is slower.")
    ] = False,
    force_int8: Annotated[bool, typer.Option("--force-int8", help="The same, even where it is slower.")] = False,
    calibration: Annotated[int, typer.Option(help="Training pictures that int8 ranges are taken from.", min=1)] = 256,
) -> None:
    """Fold, export and code a network as one bundle; the accuracy change is measured on CIFAR-10's test pictures.

    Example: seedcnn pack runs/groupnl.ckpt --out groupnl-1.bundle --family cifar-groupnl --release 1
    """
    from seedcnn.bundle.custom_op import built
    from seedcnn.data.cifar10 import load_cifar10
    from seedcnn.errors import ConfigError
    from seedcnn.export import TARGETS, BundleInfo
    from seedcnn.pack import DEFAULT_STEP, Int8, draw_calibration, preprocessing_of
    from seedcnn.pack import pack as run
    from seedcnn.train import load_model

    if target not in TARGETS:
        raise ConfigError(f"--target is {target!r}; it must be one of {', '.join(TARGETS)}")
    libraries = [built()] if TARGETS[target].operator else []
    model, saved = load_model(checkpoint)
    cifar = load_cifar10(data, progress=lambda text: typer.echo(text, err=True))
    info = BundleInfo(
        model=saved.config.model,
        family=family,
        release=release,
        min_release=min_release,
        preprocessing=preprocessing_of(cifar.mean, cifar.std),
        labels=cifar.classes,
    )
    grid = DEFAULT_STEP if step is None else step or None
    quantised = None
    if int8 or force_int8:
        quantised = Int8(draw_calibration(cifar.train_images, cifar.train_labels, calibration), force=force_int8)
    result = run(
        model,
        info,
        cifar.test_images,
        cifar.test_labels,
        step=grid,
        max_drop=max_accuracy_drop,
        threads=2,
        target=target,
        libraries=libraries,
        int8=quantised,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(result.data)
    coding = "float32 weights" if grid is None else f"grid step {grid:g}, {result.bits_per_weight:.2f} bits a weight"
    typer.echo(f"{out}: {len(result.data):,} bytes ({coding}; {result.seeded_values} values travel as seeds)")
    typer.echo(
        f"accuracy {result.before.top1:.2f} -> {result.after.top1:.2f} % on {result.before.n} pictures; "
        f"{result.grid.agreement:.2f} % same first class"
    )
    if result.int8 is not None:
        found = result.int8
        typer.echo(
            f"int8, {found.calibration} calibration pictures: {found.logits.agreement:.2f} % same first class as "
            f"float32; {found.float32_latency.median_ms:.3f} -> {found.latency.median_ms:.3f} ms a picture in "
            f"{found.runtime} (medians of {found.latency.n}, one thread, this machine)"
        )


def inspect(bundle: Annotated[Path, typer.Argument(help="Bundle file.")]) -> None:
    """Show what a bundle holds; every digest is checked.

    Example: seedcnn inspect groupnl-1.bundle
    """
    from seedcnn.bundle import open_bundle

    opened = open_bundle(bundle)
    opened.graph()
    opened.canned_logits()
    tensors = opened.tensors()
    m = opened.manifest
    typer.echo(f"{m.model} (family {m.family}, release {m.release}), {opened.size:,} bytes, sha256 {opened.sha256}")
    typer.echo(f"graph {m.graph.size:,} bytes, {len(m.labels)} labels, {m.canned.count} canned vectors")
    for entry in m.tensors:
        stored = 0 if entry.seeded else len(opened.payloads[entry.name].data)
        shape = "x".join(map(str, entry.shape))
        typer.echo(f"{entry.name:<44} {shape:>14}  {entry.coding:<16} {stored:>9,} B")
    total = sum(value.size for value in tensors.values())
    typer.echo(f"{len(tensors)} tensors, {total:,} values, all digests match")
