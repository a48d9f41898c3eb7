"""``seedcnn pack``, ``seedcnn apply`` and ``seedcnn inspect``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seedcnn.cli._arguments import Plugins, as_options, check_outputs, load_plugins
from seedcnn.errors import BundleError, ConfigError
from seedcnn.files import write_file

if TYPE_CHECKING:
    from seedcnn.pack import PackRequest, PackResult
    from seedcnn.train import Checkpoint

__all__ = ["apply", "inspect", "pack"]

_Checkpoint = Annotated[Path, typer.Argument(help="Checkpoint of a trained network.")]
_Out = Annotated[Path, typer.Option(help="Bundle to write.")]
_Family = Annotated[str, typer.Option(help="Model family that devices follow.")]
_Release = Annotated[int, typer.Option(help="Release number; it must grow with every release of the family.", min=1)]
_MinRelease = Annotated[int, typer.Option(help="Devices no longer accept releases below this.", min=0)]
_Step = Annotated[float | None, typer.Option(help="One grid step for all weights; 0 stores float32.", min=0)]
_MaxDrop = Annotated[
    float | None,
    typer.Option(
        help="Find the coarsest grid that costs at most this many points; with --step or --parent, refuse more."
    ),
]
_Parent = Annotated[
    Path | None, typer.Option(help="Use the grids of this bundle, and write OUT.delta, which leads from it to OUT.")
]
_Data = Annotated[
    str,
    typer.Option(help="NAME, NAME:DIRECTORY or a directory to measure accuracy on (default: the checkpoint's own)."),
]
_DeltaPrice = Annotated[
    float,
    typer.Option(
        help="With --parent: a weight changes only if that gains this much; a higher price makes a smaller delta.",
        min=0,
    ),
]
_Calibration = Annotated[
    str,
    typer.Option(help="NAME or NAME:DIRECTORY; training images for a search, --parent and int8 (default: --data)."),
]
_CalibrationPictures = Annotated[
    int | None,
    typer.Option(
        help="Number of calibration images; default: 5000 for a search, 512 with --parent, 256 for int8.", min=1
    ),
]
_Compression = Annotated[str, typer.Option(help="zstd, or zlib or xz for devices without zstd.")]
_Target = Annotated[str, typer.Option(help="Runtime that the graph is written for.")]
_Int8 = Annotated[bool, typer.Option("--int8", help="Quantise the convolutions; refused if int8 is slower here.")]
_ForceInt8 = Annotated[
    bool, typer.Option("--force-int8", help="Quantise the convolutions even if int8 is slower here.")
]
_Plot = Annotated[Path | None, typer.Option(help="Plot what the search tried: accuracy against bytes (SVG).")]
_Sizes = Annotated[bool, typer.Option("--sizes", help="Also print how large the same tensors are in other codings.")]


def pack(
    checkpoint: _Checkpoint,
    out: _Out,
    family: _Family,
    release: _Release,
    min_release: _MinRelease = 0,
    step: _Step = None,
    max_accuracy_drop: _MaxDrop = None,
    parent: _Parent = None,
    data: _Data = "",
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
    """Pack a trained network as a bundle, and measure what that costs in accuracy.

    Example: seedcnn pack runs/groupnl.ckpt --out groupnl-1.bundle --family cifar-groupnl --release 1
    """
    load_plugins(plugin)
    from seedcnn.cli._pack_tables import draw_search, say_result, say_sizes
    from seedcnn.models.own import model_name
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
        raise ConfigError("--plot draws a search: give --max-accuracy-drop, without --step or --parent")
    files = {"--out": out, "--plot": plot, "--parent: the delta": None if parent is None else _delta_of(out)}
    check_outputs(files, make=True)
    network, saved = load_model(checkpoint)
    name, request = model_name(saved.config.model), _with_data(request, saved)
    result = request.pack(network, name, _say, trained_on=saved.trained_on)
    _write(result, out, None if plot is None else (plot, draw_search(result)))
    say_result(result, request, out)
    if sizes:
        say_sizes(result, saved.config)


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _with_data(request: PackRequest, saved: Checkpoint) -> PackRequest:
    """Name the data by the config, for a checkpoint made before checkpoints kept them."""
    return request if request.data or saved.trained_on else replace(request, data=saved.config.data)


def _write(result: PackResult, out: Path, plot: tuple[Path, str] | None) -> None:
    """Write the bundle, the delta beside it, and the plot."""
    write_file(out, result.data)
    if plot is not None:
        write_file(plot[0], plot[1].encode())
    if result.delta is not None:
        write_file(_delta_of(out), result.delta)


def _delta_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.delta")


def apply(
    parent: Annotated[Path, typer.Argument(help="Bundle that the delta starts from.")],
    delta: Annotated[Path, typer.Argument(help="Delta that pack --parent wrote.")],
    out: Annotated[Path, typer.Option(help="Bundle to write.")],
) -> None:
    """Make the next bundle from an old one and a delta; its content is verified.

    Example: seedcnn apply groupnl-1.bundle groupnl-2.bundle.delta --out groupnl-2.bundle
    """
    from seedcnn.bundle import open_bundle, read_bundle
    from seedcnn.bundle.delta import apply_delta, read_delta

    check_outputs({"--out": out}, make=True)
    data = apply_delta(open_bundle(parent), read_delta(_bytes_of(delta)))
    write_file(out, data)
    manifest = read_bundle(data).manifest
    typer.echo(f"{out}: {len(data):,} bytes; release {manifest.release}, content {manifest.content_sha256()}")


def _bytes_of(delta: Path) -> bytes:
    try:
        return delta.read_bytes()
    except OSError as error:
        raise BundleError(f"{delta} cannot be read: {error.strerror}") from None


def inspect(
    bundle: Annotated[Path, typer.Argument(help="Bundle file.")],
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
) -> None:
    """Show what a bundle is: network, labels, input, size. Every digest is checked.

    Example: seedcnn inspect groupnl-1.bundle
    """
    from seedcnn.bundle import open_bundle

    opened = open_bundle(bundle)
    opened.graph()
    opened.canned_logits()
    expanded = opened.tensors()
    m, rule = opened.manifest, opened.manifest.preprocessing
    typer.echo(f"{m.model} (family {m.family}, release {m.release}), {opened.size:,} bytes, sha256 {opened.sha256}")
    shown = ", ".join(m.labels[:20]) + (f", and {len(m.labels) - 20} more" if len(m.labels) > 20 else "")
    typer.echo(f"{len(m.labels)} labels: {shown}")
    scaled = {"crop": f"short side to {rule.short_side}, then the middle", "squash": "each side by itself"}
    scaled |= {"pad": f"to fit, filled with {', '.join(map(str, rule.fill))}", "none": "other sizes are refused"}
    how = scaled[rule.resize] + ("" if rule.resize == "none" else f", {rule.filter}")
    typer.echo(f"input {' x '.join(map(str, rule.shape))}: {how}; orientation {rule.orientation}")
    numbers = [", ".join(f"{value:.6g}" for value in values) for values in (rule.mean, rule.std)]
    typer.echo(f"mean {numbers[0]}; standard deviation {numbers[1]}")
    canned = f"{m.canned.count} canned images, {len(m.canned.pictures)} canned pictures"
    typer.echo(f"graph {m.graph.size:,} bytes, {canned}")
    for entry in m.tensors if tensors else ():
        stored = 0 if entry.seeded else len(opened.payloads[entry.name].data)
        shape = "x".join(map(str, entry.shape))
        typer.echo(f"{entry.name:<44} {shape:>14}  {entry.coding:<16} {stored:>9,} B")
    total = sum(value.size for value in expanded.values())
    typer.echo(f"{len(expanded)} tensors, {total:,} values, all digests match")
