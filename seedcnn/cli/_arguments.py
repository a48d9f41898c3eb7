"""Arguments that several commands take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, TypeVar

import typer

__all__ = ["AsJson", "InputSize", "Model", "default", "input_size", "refuse_without_effect"]

_Value = TypeVar("_Value")

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A network of seedcnn or of timm, or package.module:callable.")
]
InputSize = Annotated[
    str | None, typer.Option("--input", help="Size of an image, such as 3x32x32; by default the model's own.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def input_size(text: str | None) -> tuple[int, int, int] | None:
    """CHANNELSxHEIGHTxWIDTH as three numbers, None for None; ``ConfigError`` for anything else."""
    from seedcnn.errors import ConfigError

    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
        raise ConfigError(f"--input {text}: it must be CHANNELSxHEIGHTxWIDTH, for example 3x32x32")
    channels, height, width = map(int, parts)
    return channels, height, width


def default(value: _Value | None, otherwise: _Value) -> _Value:
    """``otherwise`` for an option that was not given."""
    return otherwise if value is None else value


def refuse_without_effect(given: Mapping[str, object], why: str) -> None:
    """Raise ``ConfigError`` for the first option that was given although it has no effect.

    Args:
        given: option -> its value, None where it was not given.
        why: the reason, as the end of a sentence.
    """
    from seedcnn.errors import ConfigError

    for option, value in given.items():
        if value is not None:
            raise ConfigError(f"{option} {value} has no effect {why}")
