"""``seedcnn plan``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from seedcnn.cli._arguments import AsJson, Model, Plugins, check_outputs, input_size, load_plugins

__all__ = ["plan"]

_Milliseconds = Annotated[float | None, typer.Option(help="Largest latency of one image, in milliseconds.")]
_Bytes = Annotated[float | None, typer.Option(help="Largest size of the tensors in the bundle, in bytes.")]
_Macs = Annotated[float | None, typer.Option(help="Largest number of multiply-accumulates for one image.")]
_Runtime = Annotated[
    str | None, typer.Option(help="Runtime that latency is measured in: onnxruntime (the default) or openvino.")
]
_Checkpoint = Annotated[
    Path | None, typer.Option(help="Trained weights; sensitivities are then measured instead of estimated from sizes.")
]
_Data = Annotated[
    str | None,
    typer.Option(
        help="Training images for that: cifar10 (the default), or NAME:DIRECTORY of cifar100, gtsrb or imagenet."
    ),
]
_Count = Annotated[int | None, typer.Option(help="Number of training images; 256 by default.", min=16)]
_Steps = Annotated[
    int | None,
    typer.Option(help="Training steps that fit each form to the layer it would replace; 20 by default.", min=0),
]
_Input = Annotated[
    str | None,
    typer.Option("--input", "--input-size", help="Size of an image, such as 3x32x32; by default the model's own."),
]
_Forms = Annotated[
    str | None, typer.Option(help="Comma-separated forms to choose from, or method:option=value; by default all.")
]
_Multiple = Annotated[int, typer.Option(help="Use only forms whose inner channel counts are multiples of this.", min=1)]
_GridStep = Annotated[float | None, typer.Option(help="Estimate bytes on this grid of weights, not as float32.")]
_Rounds = Annotated[
    int | None, typer.Option(help="Measured calls of each form; by default 100, or fewer for slow layers.", min=1)
]
_Threads = Annotated[int, typer.Option(help="Threads of the runtime.", min=1)]
_Seed = Annotated[int, typer.Option(help="Model seed of the conversion.", min=0)]
_Latency = Annotated[bool, typer.Option(help="Measure latency even if the budget is in bytes or MACs.")]
_Out = Annotated[Path | None, typer.Option(help="Write the plan here, for seedcnn.plan.read_plan.")]


def plan(
    model: Model,
    budget_latency: _Milliseconds = None,
    budget_bytes: _Bytes = None,
    budget_macs: _Macs = None,
    runtime: _Runtime = None,
    checkpoint: _Checkpoint = None,
    data: _Data = None,
    pictures: _Count = None,
    steps: _Steps = None,
    input_: _Input = None,
    forms: _Forms = None,
    multiple: _Multiple = 16,
    grid_step: _GridStep = None,
    rounds: _Rounds = None,
    threads: _Threads = 1,
    seed: _Seed = 0,
    latency: _Latency = True,
    out: _Out = None,
    as_json: AsJson = False,
    plugin: Plugins = None,
) -> None:
    """Choose a form for each layer, plain alternatives included, so that the network meets a budget at the least loss.

    Then measure the converted network beside the vanilla one and, where possible, the vanilla one narrowed to the same
    MACs.

    Example: seedcnn plan resnet18_cifar --budget-macs 200e6 --out plan.json
    """
    load_plugins(plugin)
    from seedcnn.cli import _plan_request as request
    from seedcnn.cli._plan_tables import print_plan
    from seedcnn.literals import split
    from seedcnn.progress import Progress

    budget = request.budget_of(budget_latency, budget_bytes, budget_macs)
    measuring = request.measuring_of(budget, latency, runtime, rounds, threads)
    name, size = model.removeprefix("timm:"), input_size(input_)
    if Path(model).is_file():
        checkpoint, (name, own_size, source) = Path(model), request.checkpoint_of(model)
        size, data = size or own_size, data or source
    calibration = request.calibration_of(checkpoint, data, pictures, steps)
    check_outputs({"--out": out})
    asked = None if forms is None else [form for form in split(forms, ",") if form]
    found, compared = request.PlanRequest(
        name, size, budget, measuring, calibration, asked, multiple, grid_step, seed, Progress()
    ).run()
    if out is not None:
        found.save(out)
    if as_json:
        typer.echo(json.dumps({"model": name, "plan": found.to_dict(), "compared": compared.to_dict()}, indent=2))
    else:
        print_plan(name, found, compared)
