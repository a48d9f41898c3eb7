"""What each runtime is given: how sines are written, how the slices of sparse seed convolutions are summed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["MONO_FORMS", "SINES", "SPREADS", "SUMS", "TARGETS", "Form", "Target", "polynomial_sine", "target_of"]

# Odd minimax polynomial of sin(2 pi t) on [-1/2, 1/2], largest error 9.6e-8. Degree 7 (2.5e-4) is not faster where the
# runtime fuses the chain, and networks make its error hundreds of times larger.
_TURNS = (6.2831828186, -41.3414213988, 81.5961838757, -76.5801005422, 41.2053948998, -12.2712623593)


def polynomial_sine(u: Tensor) -> Tensor:
    """sin(u) by range reduction and an odd polynomial of degree 11; within 1e-6 + 1e-7 * ``|u|`` in float32."""
    t = u * (0.5 / math.pi)
    t = t - t.round()
    s = t * t
    c1, c3, c5, c7, c9, c11 = _TURNS
    return t * (c1 + s * (c3 + s * (c5 + s * (c7 + s * (c9 + s * c11)))))


SINES: dict[str, Callable[[Tensor], Tensor]] = {"sin": torch.sin, "polynomial": polynomial_sine}
"""The ways to write a sine: the runtime's own operator (exact) or :func:`polynomial_sine`."""

SUMS = ("rows", "convolution")
"""How a group's channels are summed after the depthwise convolution: laid above each other and sliced apart along the
height, or by a grouped 1x1 convolution whose filters are zeros and ones."""


SPREADS = ("gather", "concat")
"""How each seed map is laid beside its functions where it has several: by an index, or by concatenating slices, for
runtimes that have no gather over channels."""


@dataclass(frozen=True)
class Target:
    """The inference form for one kind of runtime.

    Attributes:
        sine: a key of :data:`SINES`.
        sums: one of :data:`SUMS`.
        spread: one of :data:`SPREADS`.
        operator: whether the graph uses the fused operator of :mod:`seedcnn.runtime.custom_op`.
    """

    sine: str
    sums: str
    spread: str = "gather"
    operator: bool = False


MONO_FORMS = ("graph", "expanded")
"""How mono filters leave: as operations on seed filters and beta in the graph, or as the filters of a convolution."""


@dataclass(frozen=True)
class Form:
    """What is asked of the inference form of one layer.

    Attributes:
        target: the runtime's.
        mono: one of :data:`MONO_FORMS`.
        absorb: whether a GroupNL layer absorbs the norm after it, if it can at all; None asks whether that is exact.
    """

    target: Target
    mono: str = "graph"
    absorb: bool | None = None


TARGETS: dict[str, Target] = {
    "onnxruntime": Target("sin", "rows"),
    "onnxruntime-custom-op": Target("sin", "rows", operator=True),
    "openvino": Target("polynomial", "convolution"),
    "litert": Target("sin", "rows"),
    "ncnn": Target("sin", "rows", "concat"),
}
"""The forms by runtime, chosen by measurement (benchmarks/records).

OpenVINO's Sin takes several times as long as the polynomial, and a sum over neighbouring channels makes it leave its
layout (channels last), which the 1x1 convolution does not. Any form runs in any runtime that reads ONNX, but for
"onnxruntime-custom-op", which needs ONNX Runtime and the library of :mod:`seedcnn.runtime.custom_op`.
"""


def target_of(name: str) -> Target:
    """The target of a name; ``ValueError`` naming the choices for any other."""
    if name not in TARGETS:
        raise ValueError(f"`target` (={name!r}) must be one of {', '.join(map(repr, TARGETS))}")
    return TARGETS[name]
