"""The fused operator's name, and how to recognise graphs that use it and errors that it is missing."""

from __future__ import annotations

__all__ = ["COMMAND", "OPERATOR", "missing_operator", "uses_operator"]

OPERATOR = "seedcnn::GroupNLGenerator"
COMMAND = "python -m seedcnn.runtime.custom_op"


def uses_operator(graph: bytes) -> bool:
    """Whether an ONNX graph contains the operator's name."""
    return OPERATOR.split("::")[1].encode() in graph


def missing_operator(message: str) -> str:
    """Explain a runtime's error that the operator is missing; return "" if the error has another cause."""
    domain, kind = OPERATOR.split("::")
    if kind not in message or "not a registered" not in message:
        return ""
    return (
        f"the graph needs the operator {domain}::{kind}, which is not loaded: build it with `{COMMAND}` and pass the "
        "path that it prints in `libraries`"
    )
