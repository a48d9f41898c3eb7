"""Inference forms by runtime: how sines are written, how the slices of sparse seed convolutions are summed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["MONO_FORMS", "SINES", "SPREADS", "SUMS", "TARGETS", "Form", "Target", "polynomial_sine", "target_of"]

# Odd minimax polynomial of sin(2 pi t) on [-1/2, 1/2], largest error 9.6e-8. Degree 7 (2.5e-4) is no faster in a
# runtime that fuses the chain, and networks amplify its error hundreds of times.
_TURNS = (6.2831828186, -41.3414213988, 81.5961838757, -76.5801005422, 41.2053948998, -12.2712623593)


def polynomial_sine(u: Tensor) -> Tensor:
    """Compute sin(u) by range reduction and an odd polynomial of degree 11, to 1e-6 + 1e-7 * ``|u|`` in float32."""
    t = u * (0.5 / math.pi)
    t = t - t.round()
    s = t * t
    c1, c3, c5, c7, c9, c11 = _TURNS
    return t * (c1 + s * (c3 + s * (c5 + s * (c7 + s * (c9 + s * c11)))))


SINES: dict[str, Callable[[Tensor], Tensor]] = {"sin": torch.sin, "polynomial": polynomial_sine}
"""Ways to write a sine: the runtime's own operator (exact) or :func:`polynomial_sine`."""

SUMS = ("rows", "convolution")
"""Ways to sum a group's channels after the depthwise convolution: stack the maps along the height and add the slices,
or convolve with grouped 1x1 filters of zeros and ones."""


SPREADS = ("gather", "concat")
"""Ways to repeat a seed map for its generated channels: gather by index, or concatenate slices, for runtimes without a
gather over channels."""


@dataclass(frozen=True)
class Target:
    """Inference form for one kind of runtime.

    Attributes:
        sine: a key of :data:`SINES`.
        sums: one of :data:`SUMS`.
        spread: one of :data:`SPREADS`.
        operator: use the fused operator of :mod:`seedcnn.runtime.custom_op` in the graph.
    """

    sine: str
    sums: str
    spread: str = "gather"
    operator: bool = False


MONO_FORMS = ("graph", "expanded")
"""Ways to export mono filters: as operations on seed filters and beta in the graph, or as a convolution's filters."""


@dataclass(frozen=True)
class Form:
    """Requested inference form of one layer.

    Attributes:
        target: form for the runtime.
        mono: one of :data:`MONO_FORMS`.
        absorb: whether a GroupNL layer absorbs the norm after it, if it can at all; None: if that is exact.
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
"""Form for each runtime, chosen by measurement (benchmarks/records).

OpenVINO's Sin takes several times as long as the polynomial, and a sum over neighbouring channels makes OpenVINO leave
its layout (channels last), which the 1x1 convolution does not. Any form runs in any runtime that reads ONNX, except
"onnxruntime-custom-op", which needs ONNX Runtime and the library of :mod:`seedcnn.runtime.custom_op`.
"""


def target_of(name: str) -> Target:
    """Return the target called ``name``; raise ``ValueError`` naming the choices for any other."""
    if name not in TARGETS:
        raise ValueError(f"`target` (={name!r}) must be one of {', '.join(map(repr, TARGETS))}")
    return TARGETS[name]
