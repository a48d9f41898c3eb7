"""``seedcnn pack``, ``seedcnn apply`` and ``seedcnn inspect``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["apply", "inspect", "pack"]


def pack(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of a trained network.")],
    out: Annotated[Path, typer.Option(help="Bundle to write.")],
    family: Annotated[str, typer.Option(help="Model family that devices follow.")],
    release: Annotated[int, typer.Option(help="Release counter; grows with each release of the family.", min=1)],
    min_release: Annotated[int, typer.Option(help="Releases below this are no longer accepted.", min=0)] = 0,
    step: Annotated[float | None, typer.Option(help="One grid step for all weights; 0 stores float32.", min=0)] = None,
    max_accuracy_drop: Annotated[
        float | None,
        typer.Option(help="Search the coarsest grid that loses no more points; with --step or --parent, refuse more."),
    ] = None,
    parent: Annotated[
        Path | None, typer.Option(help="Use the grid of this bundle, and write a delta from it beside the bundle.")
    ] = None,
    data: Annotated[
        str, typer.Option(help="NAME or NAME:DIRECTORY; accuracy is measured on its test part.")
    ] = "cifar10",
    delta_price: Annotated[
        float, typer.Option(help="With --parent: what a change must bring; more makes a smaller delta.", min=0)
    ] = 0.1,
    calibration: Annotated[
        str,
        typer.Option(help="NAME or NAME:DIRECTORY; training pictures for search, --parent, int8 (default: --data)."),
    ] = "",
    calibration_pictures: Annotated[
        int | None,
        typer.Option(help="How many: 5000 for a search, 512 for --parent, 256 for int8 if not given.", min=1),
    ] = None,
    compression: Annotated[str, typer.Option(help="zstd, or zlib or xz for devices without it.")] = "zstd",
    target: Annotated[str, typer.Option(help="Runtime that the graph is written for.")] = "onnxruntime",
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantise the convolutions; refused where it is slower.")
    ] = False,
    force_int8: Annotated[bool, typer.Option("--force-int8", help="The same, even where it is slower.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw what the search tried: accuracy against bytes (SVG).")] = None,
    sizes: Annotated[bool, typer.Option("--sizes", help="Also print what other codings would have taken.")] = False,
) -> None:
    """Fold, export and code a network as one bundle; the accuracy change is measured on test pictures.

    Example: seedcnn pack runs/groupnl.ckpt --out groupnl-1.bundle --family cifar-groupnl --release 1
    """
    from seedcnn.bundle import open_bundle
    from seedcnn.bundle.compression import COMPRESSIONS
    from seedcnn.cli._pack_tables import draw_search, say_delta, say_int8, say_search, say_sizes
    from seedcnn.data.sets.named import load_test
    from seedcnn.errors import ConfigError
    from seedcnn.export import TARGETS, BundleInfo
    from seedcnn.pack import DEFAULT_STEP, Int8, Parent, Search, preprocessing_of
    from seedcnn.pack import pack as run
    from seedcnn.runtime.custom_op import built
    from seedcnn.train import load_model

    for option, value, known in (("--target", target, TARGETS), ("--compression", compression, COMPRESSIONS)):
        if value not in known:
            raise ConfigError(f"{option} is {value!r}; it must be one of {', '.join(known)}")
    if parent is not None and step is not None:
        raise ConfigError("--parent has a grid already; leave --step out")
    opened = None if parent is None else open_bundle(parent)
    libraries = [built()] if TARGETS[target].operator else []
    model, saved = load_model(checkpoint)
    say = lambda text: typer.echo(text, err=True)  # noqa: E731
    measured = load_test(data, progress=say)
    searching = max_accuracy_drop is not None and step is None and parent is None
    if plot is not None and not searching:
        raise ConfigError("--plot draws a search; give --max-accuracy-drop without --step and --parent")
    search = quantised = follow = None
    if searching or opened is not None or int8 or force_int8:
        usual = 5000 if searching else 512 if opened is not None else 256
        images, labels = _calibration(calibration or data, calibration_pictures or usual, say)
        search = Search(images, labels, max_accuracy_drop or 0.0) if searching else None
        follow = None if opened is None else Parent(opened, images, delta_price)
        if int8 or force_int8:
            quantised = Int8(images[: calibration_pictures or 256] if follow is None else None, force=force_int8)
    info = BundleInfo(
        model=saved.config.model,
        family=family,
        release=release,
        min_release=min_release,
        preprocessing=preprocessing_of(measured.mean, measured.std, measured.test.images.shape[1:3]),
        labels=measured.test.classes,
    )
    result = run(
        model,
        info,
        measured.test.images,
        measured.test.labels,
        step=DEFAULT_STEP if step is None else step or None,
        search=search,
        parent=follow,
        max_drop=None if searching else max_accuracy_drop,
        threads=2,
        target=target,
        libraries=libraries,
        int8=quantised,
        compression=compression,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(result.data)
    if search is not None:
        say_search(result, search)
        if plot is not None:
            plot.write_text(draw_search(result), "utf-8")
    grid = (
        "the parent's grids" if opened else "float32 weights" if result.step is None else f"grid step {result.step:.3g}"
    )
    rate = "" if result.step is None and opened is None else f", {result.bits_per_weight:.2f} bits a weight"
    typer.echo(f"{out}: {len(result.data):,} bytes ({grid}{rate}; {result.seeded_values} values travel as seeds)")
    typer.echo(
        f"accuracy {result.before.top1:.2f} -> {result.after.top1:.2f} % on {result.before.n} test pictures; "
        f"{result.grid.agreement:.2f} % same first class"
    )
    if result.plain:
        shown = ", ".join(result.plain[:6]) + (f" and {len(result.plain) - 6} more" if len(result.plain) > 6 else "")
        typer.echo(f"convolutions packed as they are: {shown}")
    say_int8(result)
    if result.delta is not None:
        say_delta(result, out.with_name(out.name + ".delta"))
    if sizes:
        say_sizes(result, saved.config)


def _calibration(data: str, count: int, say: Callable[[str], None]) -> tuple[Any, Any]:
    """Training pictures, the classes in turns; of sets of files those that are drawn are decoded."""
    from seedcnn.data.pictures.folder import ImageFolder
    from seedcnn.data.sets.named import load_train
    from seedcnn.errors import ConfigError
    from seedcnn.pack import calibration_order

    name, _, where = data.partition(":")
    found = load_train(name, where or None, progress=say)
    if isinstance(found.train, ImageFolder):
        raise ConfigError(f"calibration data {name!r} is a set of files; pack takes sets that are held in memory")
    picked = calibration_order(found.train.labels, min(count, len(found.train.labels)))
    return found.train.images[picked], found.train.labels[picked]


def apply(
    parent: Annotated[Path, typer.Argument(help="Bundle that the delta starts from.")],
    delta: Annotated[Path, typer.Argument(help="Delta, as pack --parent wrote it.")],
    out: Annotated[Path, typer.Option(help="Bundle to write.")],
) -> None:
    """Make the next bundle of an old one and a delta; its content is verified.

    Example: seedcnn apply groupnl-1.bundle groupnl-2.bundle.delta --out groupnl-2.bundle
    """
    from seedcnn.bundle import open_bundle, read_bundle
    from seedcnn.bundle.delta import apply_delta, read_delta

    data = apply_delta(open_bundle(parent), read_delta(delta.read_bytes()))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(data)
    manifest = read_bundle(data).manifest
    typer.echo(f"{out}: {len(data):,} bytes; release {manifest.release}, content {manifest.content_sha256()}")


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
