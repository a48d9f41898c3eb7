"""Accuracy that a changed network loses against the network it was made from, on the same images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seedcnn.arrays import F32

__all__ = ["Drop", "drop_between", "margin_of", "softness"]

_SOFTNESS = 0.25  # of the margins' spread


@dataclass(frozen=True)
class Drop:
    """Accuracy lost, in percentage points.

    A count of images that turn from right to wrong and back has a large error, since few do. So each image counts by
    how far its answer is right: the logistic function of its margin, the label's logit minus the largest other one,
    over :func:`softness`. That is the accuracy as it would be on average under a little more noise; its error is a
    fraction of the count's.

    Attributes:
        drop: soft accuracy lost.
        error: standard error of ``drop``, of the differences image by image.
        lost: accuracy lost by counting.
        lost_error: standard error of ``lost``, at least that of a single image.
        n: number of images.
    """

    drop: float
    error: float
    lost: float
    lost_error: float
    n: int

    @property
    def least_error(self) -> float:
        """The error that one image makes: few images prove little, however they answer."""
        return 100.0 / self.n


def margin_of(logits: F32, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The label's logit minus the largest other one, float64 [N]; above 0 where the answer is right.

    Args:
        logits: float32 [N, classes], classes >= 2.
        labels: int64 [N].
    """
    rest = logits.astype(np.float64)
    own = np.take_along_axis(rest, labels[:, None], axis=1)[:, 0]
    np.put_along_axis(rest, labels[:, None], -np.inf, axis=1)
    return np.asarray(own - rest.max(axis=1))


def softness(margins: npt.NDArray[np.float64]) -> float:
    """The margin over which an answer turns from wrong to right: a quarter of the margins' standard deviation."""
    return max(_SOFTNESS * float(margins.std()), 1e-9)


def drop_between(
    before: npt.NDArray[np.float64], after: npt.NDArray[np.float64], soft: float, right: npt.NDArray[np.bool_]
) -> Drop:
    """The accuracy lost between two sets of margins of the same images.

    Args:
        before, after: float64 [N], see :func:`margin_of`.
        soft: see :func:`softness`; the same for all that are compared.
        right: bool [N], whether the first answers are right; of equal logits the first class counts, which a margin of
            0 does not tell.
    """
    n = len(before)
    paired = 100.0 * (_soft(before / soft) - _soft(after / soft))
    counted = 100.0 * right - 100.0 * (after > 0)
    root = n**0.5
    return Drop(
        float(paired.mean()),
        float(paired.std()) / root,
        float(counted.mean()),
        max(float(counted.std()), 100.0 / root) / root,
        n,
    )


def _soft(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))
