"""Arguments that several commands take, from text to what they mean."""

from __future__ import annotations

__all__ = ["input_size"]


def input_size(text: str) -> tuple[int, int, int]:
    """CHANNELSxHEIGHTxWIDTH as three numbers; ``ConfigError`` for anything else."""
    from seedcnn.errors import ConfigError

    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) for part in parts):
        raise ConfigError(f"--input {text}: it must be CHANNELSxHEIGHTxWIDTH, for example 3x32x32")
    channels, height, width = map(int, parts)
    return channels, height, width
