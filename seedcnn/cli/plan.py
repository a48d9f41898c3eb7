"""``seedcnn plan``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import nn

    from seedcnn.plan import Budget, Calibration, Plan

__all__ = ["plan"]

Size = tuple[int, int, int]
Rule = tuple[tuple[float, ...], tuple[float, ...]]
_SHORT = {"ort": "onnxruntime"}


def _budget(latency: float | None, size: float | None, macs: float | None) -> Budget:
    from seedcnn.errors import ConfigError
    from seedcnn.plan import Budget

    given = {
        name: value for name, value in (("latency", latency), ("bytes", size), ("macs", macs)) if value is not None
    }
    if len(given) != 1:
        found = ", ".join(f"--budget-{name}" for name in given) or "none"
        raise ConfigError(f"give one of --budget-latency, --budget-bytes and --budget-macs; found: {found}")
    name, limit = next(iter(given.items()))
    if not 0 < limit < float("inf"):
        raise ConfigError(f"--budget-{name} {limit:g}: it must be a positive number")
    return Budget(name, limit)


@dataclass(frozen=True, eq=False)
class _Pictures:
    """Training pictures uint8 [N, H, W, 3], their labels, how many classes the set has, how they are normalised."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    classes: int
    rule: Rule


def _training_pictures(data: str, count: int) -> _Pictures:
    from seedcnn.data.pictures.folder import CenterCrop, ImageFolder
    from seedcnn.data.sets.named import load_train, random_choice

    name, _, where = data.partition(":")
    found = load_train(name, where or None, progress=lambda text: typer.echo(text, err=True))
    some = found.train.take(random_choice(len(found.train.labels), count))
    if isinstance(some, ImageFolder):
        some = some.load(CenterCrop(224, 256))
    return _Pictures(some.images, some.labels, len(some.classes), (found.mean, found.std))


def _calibration(data: str, found: _Pictures, rule: Rule, steps: int, size: Size) -> Calibration:
    import torch

    from seedcnn.data.transforms import normalize
    from seedcnn.errors import ConfigError
    from seedcnn.plan import Calibration

    height, width, channels = found.images.shape[1:]
    if (channels, height, width) != size:
        told = "x".join(map(str, size))
        raise ConfigError(
            f"--data {data} has pictures of {channels}x{height}x{width}; the network is planned for {told}: "
            f"give --input {channels}x{height}x{width}, or other data"
        )
    pictures = normalize(torch.from_numpy(found.images.transpose(0, 3, 1, 2).copy()), *rule)
    return Calibration(pictures, torch.from_numpy(found.labels.astype("int64")), fit_steps=steps)


def _trained(name: str, checkpoint: Path, found: _Pictures) -> tuple[nn.Module, dict[str, Any], Rule]:
    """The network of a checkpoint, its options, and how it takes pictures; timm's may be a file of timm's own."""
    from seedcnn.errors import ConfigError, TrainingError
    from seedcnn.models import list_models
    from seedcnn.train import load_model

    try:
        model, saved = load_model(checkpoint)
    except TrainingError:
        if name in list_models() or not checkpoint.is_file():
            raise
        from seedcnn.models.timm_registry import trained_timm_model

        theirs = trained_timm_model(name, checkpoint, num_classes=found.classes)
        return theirs.module, {"num_classes": found.classes}, (theirs.mean, theirs.std)
    if saved.config.model != name:
        raise ConfigError(f"--checkpoint {checkpoint} is a {saved.config.model}, not a {name}")
    if saved.config.convert is not None:
        raise ConfigError(f"--checkpoint {checkpoint} is converted already; a plan starts from the vanilla network")
    return model, dict(saved.config.model_options), found.rule


def _beside(name: str, found: Plan, options: dict[str, Any]) -> dict[str, nn.Module]:
    """The vanilla network narrowed to the plan's MACs, where it can be."""
    from seedcnn.errors import ConfigError
    from seedcnn.plan import narrowed_network

    if found.keeps_everything:
        return {}
    if found.predicted.macs >= found.vanilla.macs:
        typer.echo("no narrowed network beside it: the plan saves no MACs", err=True)
        return {}
    try:
        label, network, macs = narrowed_network(name, found.predicted.macs, found.input_size, **options)
    except ConfigError as error:
        typer.echo(f"no narrowed network beside it: {error}", err=True)
        return {}
    return {f"{label} ({macs / found.predicted.macs:.2f} of the plan's MACs)": network}


def plan(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A network of ours or of timm's, or package.module:callable.")
    ],
    budget_latency: Annotated[float | None, typer.Option(help="Milliseconds that one picture may take.")] = None,
    budget_bytes: Annotated[float | None, typer.Option(help="Bytes that the tensors of its bundle may take.")] = None,
    budget_macs: Annotated[float | None, typer.Option(help="Multiply-accumulates that one picture may take.")] = None,
    runtime: Annotated[str, typer.Option(help="Where latency is measured: onnxruntime or openvino.")] = "onnxruntime",
    checkpoint: Annotated[
        Path | None, typer.Option(help="Trained weights; sensitivities are then measured, not stood in for.")
    ] = None,
    data: Annotated[
        str, typer.Option(help="Training pictures for that: cifar10, or NAME:DIRECTORY of cifar100, gtsrb, imagenet.")
    ] = "cifar10",
    pictures: Annotated[int, typer.Option(help="So many training pictures.", min=16)] = 256,
    steps: Annotated[int, typer.Option(help="Steps that fit each form to the layer it would replace.", min=0)] = 20,
    input_: Annotated[
        str | None, typer.Option("--input", "--input-size", help="Size of a picture; the model's own if left.")
    ] = None,
    forms: Annotated[
        str | None, typer.Option(help="Comma-separated forms to choose from, or method:option=value; all if left.")
    ] = None,
    multiple: Annotated[int, typer.Option(help="Widths that a form brings in are multiples of this.", min=1)] = 16,
    grid_step: Annotated[
        float | None, typer.Option(help="Estimate bytes on this grid of weights, not as float32.")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Measured calls of each form.", min=1)] = 100,
    threads: Annotated[int, typer.Option(help="Threads of the runtime.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="Model seed of the conversion.", min=0)] = 0,
    latency: Annotated[bool, typer.Option(help="Measure latency even where the budget is of something else.")] = True,
    out: Annotated[Path | None, typer.Option(help="Write the plan here, for seedcnn.plan.read_plan.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Choose a form for each layer, plain alternatives included, so that the network meets a budget at the least loss.

    The converted network is then measured beside the vanilla one and, where it can be, the vanilla one narrowed to the
    same MACs.

    Example: seedcnn plan resnet18_cifar --budget-macs 200e6 --out plan.json
    """
    import torch

    from seedcnn.cli._arguments import input_size
    from seedcnn.cli._plan_tables import print_plan
    from seedcnn.errors import ConfigError
    from seedcnn.evaluate.benchmark import quiet_process
    from seedcnn.models.opening import network
    from seedcnn.plan import compare
    from seedcnn.plan import plan as search

    budget = _budget(budget_latency, budget_bytes, budget_macs)
    if out is not None and not out.parent.is_dir():
        raise ConfigError(f"--out {out}: there is no directory {out.parent}")
    name = model.removeprefix("timm:")
    vanilla, size = network(name, None if input_ is None else input_size(input_))
    options: dict[str, Any] = {}
    calibration = None
    if checkpoint is not None:
        seen = _training_pictures(data, pictures)
        vanilla, options, rule = _trained(name, checkpoint, seen)
        calibration = _calibration(data, seen, rule, steps, size)
    timed = latency or budget.of == "latency"
    if timed:
        quiet_process(threads)
    else:
        torch.set_num_threads(threads)
    try:
        found = search(
            vanilla,
            budget,
            input_size=size,
            runtime=_SHORT.get(runtime, runtime),
            forms=None if forms is None else [form for form in forms.split(",") if form],
            calibration=calibration,
            multiple=multiple,
            rounds=rounds,
            threads=threads,
            step=grid_step,
            seed=seed,
            latency=latency,
            say=lambda text: typer.echo(text, err=True),
        )
    except ValueError as error:
        raise ConfigError(str(error)) from None
    beside = _beside(name, found, options)
    compared = compare(found, vanilla, beside=beside, rounds=rounds, threads=threads, latency=timed)
    if out is not None:
        found.save(out)
    if as_json:
        data_out = {"model": name, "plan": found.to_dict(), "compared": compared.to_dict()}
        typer.echo(json.dumps(data_out, indent=2))
    else:
        print_plan(name, found, compared)
