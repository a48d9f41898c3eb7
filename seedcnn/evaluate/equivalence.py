"""How far two forms of a network differ: before and after folding, export, or rounding to a grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seedcnn.errors import DataError

__all__ = ["Equivalence", "compare_logits"]


@dataclass(frozen=True)
class Equivalence:
    """How far two sets of logits differ over ``n`` images.

    Attributes:
        max_abs: largest absolute difference of a logit.
        max_rel: ``max_abs`` over the largest absolute logit of the reference.
        agreement: share of images with the same top class, in percent.
    """

    max_abs: float
    max_rel: float
    agreement: float
    n: int


def compare_logits(reference: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> Equivalence:
    """Compare logits of the same images, both [N, classes].

    Raises:
        DataError: if the shapes differ, or there is no image.
    """
    if reference.shape != other.shape or reference.ndim != 2 or not len(reference):
        raise DataError(f"logits of shapes {reference.shape} and {other.shape} cannot be compared")
    difference = float(np.abs(reference - other).max())
    same = float((reference.argmax(1) == other.argmax(1)).mean())
    largest = float(np.abs(reference).max())
    return Equivalence(difference, difference / max(largest, 1e-30), 100 * same, len(reference))
