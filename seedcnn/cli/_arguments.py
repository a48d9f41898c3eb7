"""Arguments that several commands share: parsing them, and naming them in errors."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from seedcnn.errors import ConfigError

__all__ = [
    "AsJson",
    "InputSize",
    "Model",
    "Plugins",
    "as_options",
    "check_outputs",
    "default",
    "input_size",
    "load_plugins",
    "naming_plugins",
    "refuse_without_effect",
]

_Value = TypeVar("_Value")

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A network of seedcnn or of timm, FILE.py:CALLABLE, package.module:CALLABLE, or a checkpoint.",
    ),
]
InputSize = Annotated[
    str | None, typer.Option("--input", help="Size of an image, such as 32 or 3x32x32; by default the model's own.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Plugins = Annotated[
    list[str] | None,
    typer.Option("--plugin", metavar="FILE.py", help="Run a Python file that registers methods; may be repeated."),
]


def check_outputs(files: Mapping[str, Path | None], *, make: bool = False) -> None:
    """Check before any work that files can be written.

    Args:
        files: option -> path, None where it was not given.
        make: make their directories if they are missing.

    Raises:
        ConfigError: naming the option, the path and the reason.
    """
    from seedcnn.files import prepare_output

    for option, path in files.items():
        if path is None:
            continue
        if not make and not path.parent.is_dir():
            raise ConfigError(f"{option} {path}: there is no directory {path.parent}")
        try:
            prepare_output(path)
        except OSError as error:
            raise ConfigError(f"{option} {path} cannot be written: {error.strerror}") from None


def load_plugins(files: list[str] | None) -> None:
    """Run the files of ``--plugin``; ``ConfigError`` if one of them fails or registers nothing."""
    if files:
        from seedcnn.convert import load_plugin

        for file in files:
            if not file:
                raise ConfigError("--plugin is empty; it must name a Python file")
            load_plugin(file)


@contextmanager
def naming_plugins() -> Iterator[None]:
    """Name file, line and function where the code of a ``--plugin``, or of a network, made the command fail."""
    try:
        yield
    except BaseException:
        with ExitStack() as naming:
            for name, names in (("models.own", "own_code_named"), ("convert.plugins", "plugins_named")):
                if (module := sys.modules.get(f"seedcnn.{name}")) is not None:  # else no command loaded one
                    naming.enter_context(getattr(module, names)())
            raise


@contextmanager
def as_options() -> Iterator[None]:
    """Name options in the ``ConfigError`` of a request, which names fields: `max_drop` becomes --max-drop."""
    try:
        yield
    except ConfigError as error:
        text = re.sub(r"`([a-z][a-z0-9_]*)`", lambda field: "--" + field[1].replace("_", "-"), str(error))
        raise ConfigError(text) from None


def input_size(text: str | None) -> tuple[int, int, int] | None:
    """Parse 96, 96x128 or 1x96x96 into channels (3 if they are not given), height and width; None stays None.

    Raises:
        ConfigError: for anything else.
    """
    if text is None:
        return None
    parts = text.lower().split("x")
    if not 1 <= len(parts) <= 3 or not all(part.isdecimal() and int(part) for part in parts):
        raise ConfigError(f"--input {text}: it must be SIDE, HEIGHTxWIDTH or CHANNELSxHEIGHTxWIDTH, such as 3x32x32")
    *channels, height, width = map(int, parts * 2 if len(parts) == 1 else parts)
    return channels[0] if channels else 3, height, width


def default(value: _Value | None, otherwise: _Value) -> _Value:
    """``otherwise`` for an option that was not given."""
    return otherwise if value is None else value


def refuse_without_effect(given: Mapping[str, object], why: str) -> None:
    """Raise ``ConfigError`` for the first option that was given although it has no effect.

    Args:
        given: option -> its value, None where it was not given.
        why: the reason, as the end of a sentence.
    """
    for option, value in given.items():
        if value is not None:
            raise ConfigError(f"{option} {value} has no effect {why}")
