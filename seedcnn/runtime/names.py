"""The names of the inference runtimes. This module imports nothing, so that a command can list them cheaply."""

from __future__ import annotations

__all__ = ["AUTO", "RUNTIMES", "check_runtime"]

RUNTIMES = ("onnxruntime", "openvino")
AUTO = "auto"
"""Stands for the fastest of the installed runtimes, measured on the device."""


def check_runtime(runtime: str, *, auto: bool = False) -> str:
    """Return ``runtime`` if it is one of :data:`RUNTIMES`.

    Args:
        auto: accept :data:`AUTO` too.

    Raises:
        ValueError: naming the choices.
    """
    choices = (*RUNTIMES, AUTO) if auto else RUNTIMES
    if runtime not in choices:
        raise ValueError(f"`runtime` (={runtime!r}) must be one of {', '.join(choices)}")
    return runtime
