"""What each runtime is given: how sines are written, how the slices of sparse seed convolutions are summed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["SINES", "SUMS", "TARGETS", "Target", "polynomial_sine", "target_of"]

# Odd minimax polynomial of sin(2 pi t) on [-1/2, 1/2], largest error 2.51e-4.
_TURNS = (6.27863546, -41.09373099, 77.93035221, -56.08640092)


def polynomial_sine(u: Tensor) -> Tensor:
    """sin(u) by range reduction and an odd polynomial of degree 7; within 2.6e-4 where ``|u|`` is at most 100."""
    t = u * (0.5 / math.pi)
    t = t - t.round()
    s = t * t
    c1, c3, c5, c7 = _TURNS
    return t * (c1 + s * (c3 + s * (c5 + s * c7)))


SINES: dict[str, Callable[[Tensor], Tensor]] = {"sin": torch.sin, "polynomial": polynomial_sine}
"""The ways to write a sine: the runtime's own operator (exact) or :func:`polynomial_sine`."""

SUMS = ("rows", "convolution")
"""How a group's channels are summed after the depthwise convolution: laid above each other and sliced apart along the
height, or by a grouped 1x1 convolution whose filters are zeros and ones."""


@dataclass(frozen=True)
class Target:
    """The inference form for one kind of runtime.

    Attributes:
        sine: a key of :data:`SINES`.
        sums: one of :data:`SUMS`.
    """

    sine: str
    sums: str


TARGETS: dict[str, Target] = {
    "onnxruntime": Target("sin", "rows"),
    "openvino": Target("polynomial", "convolution"),
    "litert": Target("sin", "rows"),
    "ncnn": Target("sin", "rows"),
}
"""The forms by runtime, chosen by measurement (benchmarks/records).

OpenVINO's Sin takes several times as long as the polynomial, and a sum over neighbouring channels makes it leave its
layout (channels last), which the 1x1 convolution does not. Any form runs in any runtime that reads ONNX.
"""


def target_of(name: str) -> Target:
    """The target of a name; ``ValueError`` naming the choices for any other."""
    if name not in TARGETS:
        raise ValueError(f"`target` (={name!r}) must be one of {', '.join(map(repr, TARGETS))}")
    return TARGETS[name]
