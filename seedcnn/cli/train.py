"""``seedcnn recipes`` and ``seedcnn train``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seedcnn.cli._arguments import AsJson, Plugins, check_outputs, default, load_plugins
from seedcnn.cli._together import open_progress
from seedcnn.errors import ConfigError
from seedcnn.machine import is_first_process
from seedcnn.messages import counted, shown, steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from seedcnn.cli._train_request import Prepared
    from seedcnn.evaluate.accuracies import Accuracy
    from seedcnn.train import Checkpoint

__all__ = ["recipes", "train"]


def _print_rows(rows: list[tuple[str, ...]]) -> None:
    """Print columns; each but the last is as wide as its longest text."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    for row in rows:
        typer.echo("  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[-1]]))


def recipes(
    pattern: Annotated[str, typer.Argument(help="Only recipes with this text in their name.")] = "",
    table: Annotated[str, typer.Option(help="Only recipes of this file.")] = "",
    all_: Annotated[bool, typer.Option("--all", help="List every recipe.")] = False,
    as_json: AsJson = False,
) -> None:
    """List recipes; without an argument, list the files that hold them (most are tables of a paper).

    Example: seedcnn recipes resnet18_groupnl
    """
    from seedcnn.recipe_index import list_recipe_files, list_recipes

    if all_ and (pattern or table):
        raise ConfigError(f"--all contradicts {'--table' if table else 'a pattern'}, which selects some recipes")
    if not (all_ or pattern or table):
        files = list_recipe_files()
        if as_json:
            found = [{"table": name, "about": file.about, "recipes": len(file.recipes)} for name, file in files.items()]
            typer.echo(json.dumps(found, indent=2))
            return
        _print_rows([(name, f"{len(file.recipes):>3}", file.about) for name, file in files.items()])
        total = sum(len(file.recipes) for file in files.values())
        typer.echo(f"{total} recipes; list them with PATTERN, --table NAME or --all")
        return
    listed = list_recipes(pattern, table)
    if as_json:
        typer.echo(json.dumps([{"recipe": name, "about": about} for name, about in listed.items()], indent=2))
        return
    _print_rows(list(listed.items()))


def _summary(out: Path, checkpoint: Checkpoint, where: str, result: Accuracy | None) -> str:
    """The last line: the checkpoint, its accuracy or how to measure it, and the best checkpoint."""
    from seedcnn.train.checkpoint import beside

    text = f"{out}: {counted(checkpoint.epoch, 'epoch')}"
    if result is None:
        return f"{text}; measure it with: seedcnn evaluate {out} --data {where}"
    text += f", test accuracy {result.top1:.2f} % (n = {result.n}, standard error {result.standard_error:.2f})"
    if checkpoint.best is None:
        return text
    validated = [row.get("validation") for row in checkpoint.history]
    epoch = validated.index(checkpoint.best) + 1
    return f"{text}; best: {beside(out, 'best')} (epoch {epoch}, validation {checkpoint.best:.2f} %)"


_Target = Annotated[
    str,
    typer.Argument(
        metavar="WHAT",
        help="FILE:FUNCTION of a recipe (`seedcnn recipes`), a network of seedcnn or timm, FILE.py:CALLABLE of your "
        "own, or a checkpoint to go on from.",
    ),
]
_Set = Annotated[
    list[str] | None, typer.Option("--set", help="Set a field of the config: a.b=value; repeatable, see TrainConfig.")
]
_Data = Annotated[
    Path | None,
    typer.Option(help="Your pictures: a directory or a CSV file. For a recipe: the directory of its data set."),
]
_Input = Annotated[str | None, typer.Option("--input", help="Size of the input: 96, 96x128, or 1x96x96 for grey.")]
_Resize = Annotated[str | None, typer.Option(help="crop, squash, pad or none: how a picture takes that size.")]
_Val = Annotated[float | None, typer.Option(help="Share to measure on, if the directory has no val.", min=0, max=1)]
_Pretrained = Annotated[bool, typer.Option("--pretrained", help="Start from timm's published weights.")]
_Weights = Annotated[Path | None, typer.Option(help="Start from these weights: safetensors, .pth or a checkpoint.")]
_Flip = Annotated[bool, typer.Option("--flip/--no-flip", help="Mirror half of the pictures in training.")]
_Plan = Annotated[Path | None, typer.Option(help="Convert the layers that this file of `seedcnn plan --out` names.")]
_Strict = Annotated[bool, typer.Option("--strict", help="Refuse files that cannot be decoded.")]
_Validate = Annotated[
    bool | None,
    typer.Option(
        "--validate/--no-validate",
        help="Measure after every epoch and keep the best as OUT.best.ckpt; on for your own pictures.",
    ),
]
_SaveSteps = Annotated[int, typer.Option(help="Also write the checkpoint every N updates; 0 for never.")]
_Workers = Annotated[int | None, typer.Option(help="Processes that decode image files (ImageNet); 2 by default.")]


_Update = Annotated[
    str | None, typer.Option(help="What learns: all, norms, head or norms+head; the rest stays, for a small update.")
]


def train(
    what: _Target,
    out: Annotated[Path, typer.Option(help="Checkpoint to write.")] = Path("runs/model.ckpt"),
    set_: _Set = None,
    data: _Data = None,
    input_: _Input = None,
    resize: _Resize = None,
    val: _Val = None,
    pretrained: _Pretrained = False,
    update: _Update = None,
    weights: _Weights = None,
    flip: _Flip = True,
    strict: _Strict = False,
    plan: _Plan = None,
    resume: Annotated[bool, typer.Option(help="Continue from the checkpoint if it exists.")] = False,
    validate: _Validate = None,
    keep: Annotated[int, typer.Option(help="Keep the checkpoints of this many epochs.")] = 1,
    save_steps: _SaveSteps = 0,
    workers: _Workers = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    tensorboard: Annotated[Path | None, typer.Option(help="Directory for TensorBoard events.")] = None,
    plugin: Plugins = None,
) -> None:
    """Train a network and write a checkpoint after every epoch. On several GPUs or machines start it with torchrun.

    Example: seedcnn train mobilenetv3_small_050 --data photos --input 96 --out runs/photos.ckpt
    """
    say = open_progress(f"training {shown(what)}")
    with steps(say, "loading PyTorch"):
        load_plugins(plugin)
        from seedcnn.cli._train_request import TrainRequest
        from seedcnn.terminal import console as open_console
        from seedcnn.terminal import prose
        from seedcnn.train import train as run

    _check_out(out)
    start = (what, _settings(set_, update), data, input_, resize, val, pretrained, weights)
    request = TrainRequest(*start, flip=flip, strict=strict, plan=plan, workers=workers, validate=validate)
    with steps(say, "loading the data"):
        prepared = request.prepare(say)
    model, checkpoint = run(
        prepared.config,
        prepared.data,
        out,
        name=what,
        resume=resume,
        validate=_validated(prepared, validate),
        keep=keep,
        save_steps=save_steps,
        workers=default(workers, 2),
        device=device,
        tensorboard=tensorboard,
    )
    if is_first_process():
        with steps(say, "measuring"):
            measured = None if prepared.measure is None else prepared.measure(model)
        console = open_console(highlight=False)
        prose(console, _summary(out, checkpoint, prepared.where, measured))


def _settings(set_: list[str] | None, update: str | None) -> tuple[str, ...]:
    return (*(set_ or ()), *(() if update is None else (f"update={update}",)))


def _check_out(out: Path) -> None:
    if out.suffix == ".csv":
        raise ConfigError(f"--out {out}: a checkpoint is no table; the table of epochs is written beside it, as .csv")
    check_outputs({"--out": out}, make=True)


def _validated(prepared: Prepared, wanted: bool | None) -> Callable[[nn.Module], float] | None:
    """Return what measures the network after every epoch, if it is wanted and possible."""
    from seedcnn.data.sets.named import FOLDER

    measure = prepared.measure
    if measure is None or not default(wanted, prepared.config.data == FOLDER):
        return None
    return lambda network: measure(network).top1
