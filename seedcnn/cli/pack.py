"""``seedcnn pack``, ``seedcnn apply`` and ``seedcnn inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seedcnn.cli._arguments import Plugins, load_plugins

if TYPE_CHECKING:
    from seedcnn.pack import PackResult

__all__ = ["apply", "inspect", "pack"]

_Checkpoint = Annotated[Path, typer.Argument(help="Checkpoint of a trained network.")]
_Out = Annotated[Path, typer.Option(help="Bundle to write.")]
_Family = Annotated[str, typer.Option(help="Model family that devices follow.")]
_Release = Annotated[int, typer.Option(help="Release counter; grows with each release of the family.", min=1)]
_MinRelease = Annotated[int, typer.Option(help="Releases below this are no longer accepted.", min=0)]
_Step = Annotated[float | None, typer.Option(help="One grid step for all weights; 0 stores float32.", min=0)]
_MaxDrop = Annotated[
    float | None,
    typer.Option(help="Search the coarsest grid that loses no more points; with --step or --parent, refuse more."),
]
_Parent = Annotated[
    Path | None, typer.Option(help="Use the grid of this bundle, and write a delta from it beside the bundle.")
]
_Data = Annotated[str, typer.Option(help="NAME or NAME:DIRECTORY; accuracy is measured on its test part.")]
_DeltaPrice = Annotated[
    float, typer.Option(help="With --parent: what a change must bring; more makes a smaller delta.", min=0)
]
_Calibration = Annotated[
    str,
    typer.Option(help="NAME or NAME:DIRECTORY; training pictures for search, --parent, int8 (default: --data)."),
]
_CalibrationPictures = Annotated[
    int | None,
    typer.Option(help="How many: 5000 for a search, 512 for --parent, 256 for int8 if not given.", min=1),
]
_Compression = Annotated[str, typer.Option(help="zstd, or zlib or xz for devices without it.")]
_Target = Annotated[str, typer.Option(help="Runtime that the graph is written for.")]
_Int8 = Annotated[bool, typer.Option("--int8", help="Quantise the convolutions; refused where it is slower.")]
_ForceInt8 = Annotated[bool, typer.Option("--force-int8", help="The same, even where it is slower.")]
_Plot = Annotated[Path | None, typer.Option(help="Draw what the search tried: accuracy against bytes (SVG).")]
_Sizes = Annotated[bool, typer.Option("--sizes", help="Also print what other codings would have taken.")]


def pack(
    checkpoint: _Checkpoint,
    out: _Out,
    family: _Family,
    release: _Release,
    min_release: _MinRelease = 0,
    step: _Step = None,
    max_accuracy_drop: _MaxDrop = None,
    parent: _Parent = None,
    data: _Data = "cifar10",
    delta_price: _DeltaPrice = 0.1,
    calibration: _Calibration = "",
    calibration_pictures: _CalibrationPictures = None,
    compression: _Compression = "zstd",
    target: _Target = "onnxruntime",
    int8: _Int8 = False,
    force_int8: _ForceInt8 = False,
    plot: _Plot = None,
    sizes: _Sizes = False,
    plugin: Plugins = None,
) -> None:
    """Fold, export and code a network as one bundle; the accuracy change is measured on test pictures.

    Example: seedcnn pack runs/groupnl.ckpt --out groupnl-1.bundle --family cifar-groupnl --release 1
    """
    load_plugins(plugin)
    from seedcnn.cli._arguments import as_options
    from seedcnn.cli._pack_tables import draw_search, say_result, say_sizes
    from seedcnn.errors import ConfigError
    from seedcnn.files import write_file
    from seedcnn.pack import PackRequest
    from seedcnn.train import load_model

    with as_options():
        request = PackRequest(
            family,
            release,
            min_release,
            data=data,
            step=step,
            max_accuracy_drop=max_accuracy_drop,
            parent=parent,
            delta_price=delta_price,
            calibration=calibration,
            calibration_pictures=calibration_pictures,
            compression=compression,
            target=target,
            int8=int8,
            force_int8=force_int8,
        )
    if plot is not None and not request.searches:
        raise ConfigError("--plot draws a search; give --max-accuracy-drop without --step and --parent")
    network, saved = load_model(checkpoint)
    result = request.pack(network, saved.config.model, lambda text: typer.echo(text, err=True))
    _write(result, out)
    if plot is not None:
        write_file(plot, draw_search(result).encode())
    say_result(result, request, out)
    if sizes:
        say_sizes(result, saved.config)


def _write(result: PackResult, out: Path) -> None:
    """The bundle, and the delta beside it."""
    from seedcnn.files import write_file

    out.parent.mkdir(parents=True, exist_ok=True)
    write_file(out, result.data)
    if result.delta is not None:
        write_file(out.with_name(out.name + ".delta"), result.delta)


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
    from seedcnn.files import write_file

    data = apply_delta(open_bundle(parent), read_delta(delta.read_bytes()))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_file(out, data)
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
