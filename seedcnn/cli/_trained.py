"""Options that open a trained network: a checkpoint, or a network by its name with weights from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seedcnn.cli._arguments import input_size, refuse_without_effect
from seedcnn.errors import ConfigError
from seedcnn.messages import Say

if TYPE_CHECKING:
    from seedcnn.networks import Trained

__all__ = ["Mean", "NetworkInput", "Resize", "Set", "Std", "Weights", "channels", "open_trained"]

Weights = Annotated[
    Path | None,
    typer.Option(help="Weights from elsewhere, safetensors or .pth; needs --data, whose classes they know."),
]
NetworkInput = Annotated[
    str | None, typer.Option("--input", help="With --weights: size of the input, 96, 96x128 or 1x96x96.")
]
Resize = Annotated[str | None, typer.Option(help="With --weights: crop, squash, pad or none, for your own pictures.")]
Mean = Annotated[
    str | None, typer.Option(help="With --weights: mean of the input, one number per channel, on the 0..1 scale.")
]
Std = Annotated[str | None, typer.Option(help="With --weights: standard deviation of the input, in the same way.")]

Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="With --weights: option of the network, model_options.NAME=VALUE; repeatable."),
]


def channels(option: str, text: str | None) -> tuple[float, ...] | None:
    """Parse an option such as "0.5,0.5,0.5" into one number for each of 1 or 3 channels; None stays None.

    Raises:
        ConfigError: if they are not one or three finite numbers, or those of --std are not positive.
    """
    from math import isfinite

    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, 3) or not all(map(isfinite, values)) or (option == "--std" and min(values) <= 0):
        rule = "positive numbers" if option == "--std" else "numbers"
        raise ConfigError(
            f"{option} {text}: it must be three {rule}, comma-separated, one per channel, on the 0..1 scale "
            "(one for grey)"
        )
    return values


def open_trained(
    name: str,
    data: str,
    weights: Path | None,
    input_: str | None,
    resize: str | None,
    mean: str | None,
    std: str | None,
    set_: list[str] | None,
    say: Say,
) -> Trained:
    """Open a checkpoint, or a network by its name with ``weights``.

    Raises:
        ConfigError: if options contradict each other; otherwise as :func:`seedcnn.networks.open_weights`.
    """
    from seedcnn.networks import is_checkpoint, open_checkpoint, open_weights

    given = {"--input": input_, "--resize": resize, "--mean": mean, "--std": std}
    given["--set"] = " ".join(set_) if set_ else None
    if weights is None:
        refuse_without_effect(given, f"on the checkpoint {name}, which keeps its network and its rule for pictures")
        return open_checkpoint(name)
    if is_checkpoint(name):
        raise ConfigError(f"--weights {weights}: {name} is a file with weights of its own; name a network instead")
    if not data:
        raise ConfigError(f"--weights {weights} needs --data: the file does not say what its classes are")
    means, stds = channels("--mean", mean), channels("--std", std)
    size, changes = input_size(input_), set_ or ()
    return open_weights(
        name, weights, data, size=size, resize=resize, mean=means, std=stds, changes=changes, progress=say
    )
