"""The input of a report: plain frozen records."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

__all__ = ["Measured", "ModelRow", "Sample", "format_bytes"]


@dataclass(frozen=True)
class Measured:
    """A measured number.

    Attributes:
        value: in the unit of its field.
        n: number of samples or repetitions; None where there are none.
        spread: half width in the same unit, printed after a plus-minus sign; None if unknown.
        note: a few words that say what ``n`` and ``spread`` are.
    """

    value: float
    n: int | None = None
    spread: float | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"`value` (={self.value}) must be finite")


@dataclass(frozen=True)
class ModelRow:
    """The figures of one model; None means not measured.

    Attributes:
        name: unique in the report.
        accuracy, corrupted: top-1 in percent, on clean and on corrupted images.
        parameters, macs, nlf_evaluations: learnable parameters, and per image the multiply-accumulates and the
            evaluations of the nonlinear transformation functions; known for a torch module only.
        bundle_bytes: size of the shipped file.
        latency_ms: latency of one image on the device.
        top5: in percent, on clean images.
        seeded: whether the model generates channels or filters from seeds; None if that is not known.
    """

    name: str
    accuracy: Measured
    corrupted: Measured | None = None
    parameters: int | None = None
    macs: int | None = None
    nlf_evaluations: int | None = None
    bundle_bytes: int | None = None
    latency_ms: Measured | None = None
    top5: Measured | None = None
    seeded: bool | None = None


@dataclass(frozen=True, eq=False)
class Sample:
    """An image with each model's prediction.

    Attributes:
        image: uint8 [H, W, 3], or [H, W, 1] for grey.
        label: the true class.
        caption: a line below the label, such as the corruption and its severity.
        predictions: predicted class by model name.
        sure: how sure the models are, in a word; may be empty.
    """

    image: npt.NDArray[np.uint8]
    label: str
    caption: str
    predictions: Mapping[str, str]
    sure: Mapping[str, str] = field(default_factory=dict)


def format_bytes(count: int) -> str:
    """A size in decimal units: "812 B", "45.3 kB", "1.24 MB"."""
    if count < 1000:
        return f"{count} B"
    return f"{count / 1e3:.1f} kB" if count < 999_950 else f"{count / 1e6:.2f} MB"
