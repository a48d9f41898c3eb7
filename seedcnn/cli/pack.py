"""``seedcnn pack`` and ``seedcnn apply``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seedcnn.cli._arguments import Plugins, as_options, check_outputs, load_plugins, refuse_without_effect
from seedcnn.cli._trained import Mean, NetworkInput, Resize, Set, Std, Weights, open_trained
from seedcnn.errors import ConfigError
from seedcnn.files import write_file

if TYPE_CHECKING:
    from seedcnn.networks import Trained
    from seedcnn.pack import PackRequest, PackResult
    from seedcnn.progress import Progress
    from seedcnn.train import TrainConfig

__all__ = ["apply", "pack"]

_Network = Annotated[
    str,
    typer.Argument(metavar="NETWORK", help="Checkpoint of a trained network; with --weights, a network by its name."),
]
_Out = Annotated[Path, typer.Option(help="Bundle to write.")]
_Family = Annotated[str | None, typer.Option(help="Model family that devices follow; by default the parent's.")]
_Release = Annotated[int, typer.Option(help="Release number; it must grow with every release of the family.", min=1)]
_MinRelease = Annotated[int, typer.Option(help="Devices no longer accept releases below this.", min=0)]
_Step = Annotated[
    float | None, typer.Option(help="One grid step for all weights instead of a search; 0 stores float32.", min=0)
]
_MaxDrop = Annotated[
    float | None,
    typer.Option(
        help="Find the coarsest grid that costs at most this many points (default: 0.5); with --step or --parent, "
        "refuse more (default: any)."
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
_Compression = Annotated[str, typer.Option(help="How integers are stored: entropy (the smallest), zstd, zlib or xz.")]
_Target = Annotated[str, typer.Option(help="Runtime that the graph is written for.")]
_Int8 = Annotated[bool, typer.Option("--int8", help="Quantise the convolutions; refused if int8 is slower here.")]
_ForceInt8 = Annotated[
    bool, typer.Option("--force-int8", help="Quantise the convolutions even if int8 is slower here.")
]
_Memory = Annotated[
    str | None,
    typer.Option(
        help="Limit for this process's memory as far as the images and the statistics of layers take it; less memory "
        "means smaller pieces, and perhaps another grid (default: 2GB)."
    ),
]
_Adaptable = Annotated[
    bool,
    typer.Option("--adaptable", help="Let devices give the norms statistics of their own: seedcnn-device adapt."),
]
_Tune = Annotated[
    int | None,
    typer.Option(
        metavar="EPOCHS",
        help="Train on for EPOCHS with rounded weights and a price on bits, until the bundle keeps to --bytes or "
        "--max-accuracy-drop; up to six trials, kept beside the checkpoint.",
        min=1,
    ),
]
_Bytes = Annotated[int | None, typer.Option("--bytes", help="With --tune: largest bundle, in bytes.", min=1)]
_Plot = Annotated[Path | None, typer.Option(help="Plot what the search tried: accuracy against bytes (SVG).")]
_Sizes = Annotated[bool, typer.Option("--sizes", help="Also print how large the same tensors are in other codings.")]


def pack(
    network: _Network,
    out: _Out,
    release: _Release,
    family: _Family = None,
    min_release: _MinRelease = 0,
    step: _Step = None,
    max_accuracy_drop: _MaxDrop = None,
    parent: _Parent = None,
    data: _Data = "",
    weights: Weights = None,
    input_: NetworkInput = None,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    set_: Set = None,
    delta_price: _DeltaPrice = 0.1,
    calibration: _Calibration = "",
    calibration_pictures: _CalibrationPictures = None,
    compression: _Compression = "entropy",
    target: _Target = "onnxruntime",
    int8: _Int8 = False,
    force_int8: _ForceInt8 = False,
    memory: _Memory = None,
    plot: _Plot = None,
    sizes: _Sizes = False,
    tune: _Tune = None,
    bytes_: _Bytes = None,
    adaptable: _Adaptable = False,
    plugin: Plugins = None,
) -> None:
    """Pack a trained network as a bundle, and measure what that costs in accuracy.

    Example: seedcnn pack runs/groupnl.ckpt --out groupnl-1.bundle --family cifar-groupnl --release 1
    """
    load_plugins(plugin)
    from seedcnn.cli._pack_tables import draw_search, say_result, say_sizes
    from seedcnn.pack import PackRequest

    graph: dict[str, Any] = {"target": target, "int8": int8, "force_int8": force_int8, "compression": compression}
    search: dict[str, Any] = {"step": step, "max_accuracy_drop": max_accuracy_drop, "calibration": calibration}
    search |= {"calibration_pictures": calibration_pictures, "memory": memory}
    with as_options():
        rest = {"data": data, "parent": parent, "delta_price": delta_price, "adaptable": adaptable}
        request = PackRequest(_family(family, parent), release, min_release, **(graph | search | rest))
    _check_files(request, out, plot)
    with _nothing_written() as say:
        if tune is not None or bytes_ is not None:
            unfit: dict[str, object] = {"--weights": weights, "--plot": plot, "--calibration": calibration or None}
            unfit["--calibration-pictures"] = calibration_pictures
            result, config = _tuned(network, request, tune, bytes_, unfit, say)
        else:
            found = open_trained(network, data, weights, input_, resize, mean, std, set_, say)
            result, config = _packed(found, request, plot, say), found.config
    _write(result, out, None if plot is None else (plot, draw_search(result)))
    say_result(result, request, out)
    if sizes:
        say_sizes(result, config)


def _packed(found: Trained, request: PackRequest, plot: Path | None, say: Progress) -> PackResult:
    """The result without --tune."""
    from seedcnn.networks import request_for

    if found.grid_steps:
        unfit = {"--calibration": request.calibration or None, "--plot": plot}
        refuse_without_effect(unfit, "on a network that was trained on its grid")
    steps = found.grid_steps
    return request_for(request, found).pack(
        found.module, found.name, say, trained_on=found.trained_on, grid_steps=steps
    )


def _tuned(
    network: str,
    request: PackRequest,
    epochs: int | None,
    most_bytes: int | None,
    unfit: Mapping[str, object],
    say: Progress,
) -> tuple[PackResult, TrainConfig]:
    """The result of --tune, and the config of the tuned network."""
    from seedcnn.networks import check_trained, open_checkpoint, tune

    if epochs is None:
        raise ConfigError("--bytes goes with --tune EPOCHS: a search without training keeps to --max-accuracy-drop")
    if named := [name for name, value in unfit.items() if value is not None]:
        raise ConfigError(f"{named[0]} has no effect with --tune, which trains a checkpoint on")
    if most_bytes is not None and request.max_accuracy_drop is not None:
        raise ConfigError("--bytes contradicts --max-accuracy-drop: --tune keeps to one of them")
    check_trained(network)
    result, checkpoint = tune(network, request, epochs=epochs, most_bytes=most_bytes, progress=say)
    say(f"the tuned network is {checkpoint}")
    return result, open_checkpoint(checkpoint).config


@contextmanager
def _nothing_written() -> Iterator[Progress]:
    """Progress of a command that writes its files at the end, and says so if it is interrupted before."""
    from seedcnn.progress import Progress

    say = Progress()
    try:
        yield say
    except KeyboardInterrupt:
        say("nothing is written")
        raise


def _family(given: str | None, parent: Path | None) -> str:
    from seedcnn.bundle import open_bundle

    if given is not None:
        return given
    if parent is None:
        raise ConfigError("--family is needed: the name of the model family that devices follow")
    return open_bundle(parent).manifest.family


def _check_files(request: PackRequest, out: Path, plot: Path | None) -> None:
    if plot is not None and not request.searches:
        raise ConfigError("--plot draws a search: leave out --step and --parent")
    delta = None if request.parent is None else _delta_of(out)
    check_outputs({"--out": out, "--plot": plot, "--parent: the delta": delta}, make=True)


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
    from seedcnn.bundle.delta import apply_delta
    from seedcnn.cli._deltas import open_delta

    check_outputs({"--out": out}, make=True)
    data = apply_delta(open_bundle(parent), open_delta(delta))
    write_file(out, data)
    manifest = read_bundle(data).manifest
    typer.echo(f"{out}: {len(data):,} bytes; release {manifest.release}, content {manifest.content_sha256()}")
