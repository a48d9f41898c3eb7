"""``seedcnn recipes`` and ``seedcnn train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["recipes", "train"]


def recipes() -> None:
    """List the recipes that come with seedcnn.

    Example: seedcnn recipes
    """
    from seedcnn.train import list_recipes

    found = list_recipes()
    width = max(map(len, found), default=0)
    for name, summary in found.items():
        typer.echo(f"{name:<{width}}  {summary}")


def train(
    recipe: Annotated[str, typer.Argument(help="FILE:FUNCTION of a recipe, see `seedcnn recipes`.")],
    out: Annotated[Path, typer.Option(help="Checkpoint to write.")] = Path("runs/model.ckpt"),
    set_: Annotated[list[str] | None, typer.Option("--set", help="Override a field: a.b=value.")] = None,
    data: Annotated[Path | None, typer.Option(help="Directory that holds CIFAR-10; downloaded if not given.")] = None,
    resume: Annotated[bool, typer.Option(help="Continue the checkpoint if it is there.")] = False,
) -> None:
    """Train a network on CIFAR-10; a checkpoint is written after every epoch.

    Example: seedcnn train demo:groupnl --set epochs=10 --out runs/groupnl.ckpt
    """
    from seedcnn.data.cifar10 import load_cifar10
    from seedcnn.evaluate.accuracy import accuracy, torch_predictor
    from seedcnn.train import TrainData, find_recipe, override
    from seedcnn.train import train as run

    config = override(find_recipe(recipe), set_ or [])
    cifar = load_cifar10(data, progress=lambda text: typer.echo(text, err=True))
    pictures = TrainData(cifar.train_images, cifar.train_labels, cifar.mean, cifar.std)
    model, checkpoint = run(config, pictures, out, name=recipe, resume=resume)
    result = accuracy(torch_predictor(model, cifar.mean, cifar.std), cifar.test_images, cifar.test_labels)
    typer.echo(
        f"{out}: {checkpoint.epoch} epochs, test accuracy {result.top1:.2f} % "
        f"(n = {result.n}, standard error {result.standard_error:.2f})"
    )
