"""``seedcnn evaluate``."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from seedcnn.cli._arguments import Plugins, check_outputs, load_plugins, refuse_without_effect
from seedcnn.cli._together import PATIENCE, open_progress
from seedcnn.cli._trained import NetworkInput, Resize, Set, Weights, channels, open_trained
from seedcnn.errors import ConfigError, DataError
from seedcnn.messages import Say, shown, steps

if TYPE_CHECKING:
    from seedcnn.cli._evaluated import Normalization
    from seedcnn.data.sets.named import NamedTest
    from seedcnn.data.sets.own import TrainedOn
    from seedcnn.evaluate import Evaluated, EvaluateRequest, Opened
    from seedcnn.networks import Trained
    from seedcnn.processes import Processes

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
_FlipAverage = Annotated[
    bool,
    typer.Option(
        "--flip-average",
        help="Average the logits of each image and of its mirror image, at twice the latency; every table says so.",
    ),
]
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
    say: Say,
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
    return {named[0]: open_trained(named[0], data, weights, input_, resize, mean, std, set_, say)}


class _Asked(NamedTuple):
    """The checked request, and the models that say what they were trained on, or have weights from elsewhere."""

    request: EvaluateRequest
    weighted: dict[str, Trained]
    trained: dict[str, TrainedOn]


def _asked(
    models: list[str],
    data: str,
    set_: list[str] | None,
    how: tuple[Path | None, str | None, str | None, str | None, str | None],
    options: Mapping[str, Any],
    outputs: Mapping[str, Path | None],
    say: Say,
) -> _Asked:
    from seedcnn.cli._arguments import as_options
    from seedcnn.cli._evaluated import read_trained_on, source_of
    from seedcnn.evaluate import EvaluateRequest

    kinds = _kinds(options["corruptions"])
    check_outputs(outputs)
    if (csv := outputs["--csv"]) is not None and not kinds:
        raise ConfigError(f"--csv {csv}: it keeps corrupted accuracies, but --corruptions is none")
    weighted = _weighted(models, data, set_, how, say)
    trained = {name: each.trained_on for name, each in weighted.items() if each.trained_on is not None}
    trained |= read_trained_on([name for name in models if name not in weighted])
    with as_options():
        request = EvaluateRequest(data or source_of(trained), **{**options, "corruptions": kinds})
    return _Asked(request, weighted, trained)


def _opened(
    asked: _Asked, models: list[str], given: Normalization | None, say: Say, processes: Processes
) -> tuple[NamedTest, dict[str, Opened]]:
    """Load the data and open the models, in every process."""
    from seedcnn.cli._evaluated import open_models, shared_rule

    trained_on = processes.everywhere(lambda: shared_rule(asked.request.data, asked.trained))
    with steps(say, "loading the data"):
        test = processes.in_turn(lambda: asked.request.load(say, trained_on=trained_on))
    for bad in test.test.skipped:
        say(f"left out: {shown(bad.name)}: {bad.reason}")
    with steps(say, "opening the models"):
        opened = processes.everywhere(lambda: open_models(models, given, test, asked.trained, asked.weighted))
    return test, opened


def _write_files(
    found: Evaluated,
    opened: Mapping[str, Opened],
    csv: Path | None,
    report: Path | None,
    frost_dir: Path | None,
    say: Say,
) -> None:
    from seedcnn.evaluate.evaluated import short_names
    from seedcnn.files import write_file

    if csv is not None:
        with _writing("--csv", csv):
            write_file(csv, found.to_csv().encode())
    if report is not None:
        with steps(say, "writing the report"), _writing("--report", report):
            from seedcnn.evaluate.report import report_evaluation  # matplotlib takes its time

            command = shlex.join(["seedcnn", *sys.argv[1:]])
            names = short_names(list(opened))
            models = {names[name]: model for name, model in opened.items()}
            report_evaluation(report, found.renamed(names), models, frost_dir=frost_dir, command=command)


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
    flip_average: _FlipAverage = False,
    details: _Details = False,
    as_json: _Json = False,
    plugin: Plugins = None,
) -> None:
    """Measure accuracy on a test set: clean, by style, and corrupted at five severities. torchrun shares the work out.

    Example: seedcnn evaluate runs/vanilla.ckpt runs/groupnl.bundle --images 2000 --report report.html
    """
    if details and as_json:
        raise ConfigError("--details has no effect with --json, which always has them")
    say = open_progress(f"evaluating {shown(', '.join(models))}")
    with steps(say, "loading PyTorch"):
        load_plugins(plugin)
        import seedcnn.train  # noqa: F401 - opens checkpoints; timm takes its time
        from seedcnn.cli._evaluation_tables import print_tables
        from seedcnn.evaluate.evaluated import short_names
        from seedcnn.processes import open_processes
    options = {"hold_out": hold_out, "corrupted": corrupted, "images": images, "corruptions": corruptions}
    options |= {"frost_dir": frost_dir, "seeds": seeds, "verify": verify, "skip_damaged": skip_damaged}
    options |= {"decoded": decoded, "record": record}
    outputs = {"--csv": csv, "--report": report}
    with open_processes("cpu", patience=PATIENCE) as processes:
        how = (weights, input_, resize, mean, std)
        asked = processes.everywhere(lambda: _asked(models, data, set_, how, options, outputs, say))
        given = None if weights else processes.everywhere(lambda: _normalization(mean, std))
        test, opened = _opened(asked, models, given, say, processes)
        if flip_average:
            opened = {f"{name}, flip-averaged": model.flip_averaged() for name, model in opened.items()}
        found = asked.request.measure(opened, test, say, processes)
    if processes.first:
        _write_files(found, opened, csv, report, frost_dir, say)
        if as_json:
            typer.echo(json.dumps(found.to_dict(), indent=2))
        else:
            print_tables(found.renamed(short_names(list(opened))), details=details)
