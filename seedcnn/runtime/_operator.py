"""The fused operator's name, and how a graph or a runtime's error is told to be about it."""

from __future__ import annotations

__all__ = ["COMMAND", "OPERATOR", "missing_operator", "uses_operator"]

OPERATOR = "seedcnn::GroupNLGenerator"
COMMAND = "python -m seedcnn.runtime.custom_op"


def uses_operator(graph: bytes) -> bool:
    """Whether ONNX bytes name the operator."""
    return OPERATOR.split("::")[1].encode() in graph


def missing_operator(message: str) -> str:
    """What a runtime's message says to a user whose graph needs the operator; empty if it is about something else."""
    domain, kind = OPERATOR.split("::")
    if kind not in message or "not a registered" not in message:
        return ""
    return (
        f"the graph needs the operator {domain}::{kind}, which is not loaded: build it with `{COMMAND}` and open the "
        "bundle with the path it prints in `libraries`"
    )
