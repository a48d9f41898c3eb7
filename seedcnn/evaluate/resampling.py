"""Bootstrap over pictures: how much a number would change with other pictures of the same kind (Efron, 1979)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Interval", "interval", "resamples"]

Interval = tuple[float, float]
"""The bounds of a 95 % interval."""


def resamples(pictures: int, count: int, seed: int) -> npt.NDArray[np.int64]:
    """Draw pictures with replacement.

    Args:
        pictures: number of pictures, at least 1.
        count: number of resamples.
        seed: in [0, 2**64); raw words of Philox(key=seed) select.

    Returns:
        int64 [count, pictures], indices.

    Raises:
        ValueError: if an argument is out of range.
    """
    if pictures < 1:
        raise ValueError(f"`pictures` (={pictures}) must be at least 1")
    if count < 0:
        raise ValueError(f"`bootstrap` (={count}) must not be negative")
    if not 0 <= seed < 2**64:
        raise ValueError(f"`seed` (={seed}) must be in [0, 2**64)")
    words = np.random.Philox(key=np.array([seed, 0], np.uint64)).random_raw((count, pictures)) >> np.uint64(32)
    return (words * np.uint64(pictures) >> np.uint64(32)).astype(np.int64)


def interval(values: npt.ArrayLike, measured: float) -> Interval:
    """A 95 % interval: the 2.5th and 97.5th percentile of resampled numbers, moved so that their mean is ``measured``.

    Without the move an AP's interval lies too high: a picture that is drawn twice has equal scores, of which precision
    makes the best. Numbers that are undefined (NaN) are left out.

    Args:
        values: one number for each resample, shares of 1.
        measured: the number over all pictures once.

    Returns:
        Lower and upper bound, in 0 to 1; NaN where no number is defined.
    """
    numbers = np.asarray(values, np.float64)
    numbers = numbers[~np.isnan(numbers)]
    if not len(numbers) or np.isnan(measured):
        return float("nan"), float("nan")
    low, high = np.percentile(numbers - numbers.mean() + measured, [2.5, 97.5]).clip(0, 1).tolist()
    return low, high
