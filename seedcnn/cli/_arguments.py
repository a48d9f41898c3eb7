"""Arguments that several commands share: parsing them, and naming them in errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from seedcnn.errors import ConfigError

__all__ = ["as_options", "input_size"]


@contextmanager
def as_options() -> Iterator[None]:
    """Name options in the ``ConfigError`` of a request, which names fields: `max_drop` becomes --max-drop."""
    try:
        yield
    except ConfigError as error:
        told = re.sub(r"`([a-z][a-z0-9_]*)`", lambda field: "--" + field[1].replace("_", "-"), str(error))
        raise ConfigError(told) from None


def input_size(text: str) -> tuple[int, int, int]:
    """Parse CHANNELSxHEIGHTxWIDTH into three numbers.

    Raises:
        ConfigError: for anything else.
    """
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
        raise ConfigError(f"--input {text}: it must be CHANNELSxHEIGHTxWIDTH, for example 3x32x32")
    channels, height, width = map(int, parts)
    return channels, height, width
