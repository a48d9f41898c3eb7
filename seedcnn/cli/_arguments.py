"""Arguments that several commands take, from text to what they mean."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from seedcnn.errors import ConfigError

__all__ = ["as_options", "input_size"]


@contextmanager
def as_options() -> Iterator[None]:
    """Let a request's ``ConfigError`` name options where it names fields: `max_drop` becomes --max-drop."""
    try:
        yield
    except ConfigError as error:
        told = re.sub(r"`([a-z][a-z0-9_]*)`", lambda field: "--" + field[1].replace("_", "-"), str(error))
        raise ConfigError(told) from None


def input_size(text: str) -> tuple[int, int, int]:
    """CHANNELSxHEIGHTxWIDTH as three numbers; ``ConfigError`` for anything else."""
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
        raise ConfigError(f"--input {text}: it must be CHANNELSxHEIGHTxWIDTH, for example 3x32x32")
    channels, height, width = map(int, parts)
    return channels, height, width
