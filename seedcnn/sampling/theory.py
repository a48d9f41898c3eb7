"""The theory of reduced sampling: exact ratios, batches of an epoch, predicted time, probability of missing an image.

Source: the dissertation on CRnet and reduced random sampling, Sections 3.2.1 to 3.2.3, Theorems 1 to 4 and Corollaries
1 and 2. Its symbols: D images, B images in a batch, M = ceil(D / B) batches in a full epoch, N epochs, T0 the time of a
full batch, and T1 the time of the last batch of a full epoch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction

__all__ = [
    "Number",
    "batches",
    "exact",
    "exact_ratio",
    "full_batches",
    "log10_missing_probability",
    "missing_probability",
    "positive",
    "predicted_time_ratio",
    "short_batch",
]

Number = float | Fraction
"""A ratio: an int, a fraction, or a float, which stands for its shortest decimal (0.8 means 4/5)."""


def exact(name: str, value: Number) -> Fraction:
    """The rational number that a float, an int or a fraction stands for.

    Raises:
        TypeError: if it is not a float, an int or a ``fractions.Fraction``.
        ValueError: if it is not finite.
    """
    if isinstance(value, bool) or not isinstance(value, float | int | Fraction):
        raise TypeError(f"`{name}` (={value!r}) must be a float, an int or a fractions.Fraction")
    if isinstance(value, Fraction | int):
        return Fraction(value)
    if not math.isfinite(value):
        raise ValueError(f"`{name}` (={value!r}) must be finite")
    return Fraction(repr(float(value)))


def exact_ratio(name: str, value: Number) -> Fraction:
    """As :func:`exact`, for a sampling ratio, which must be in (0, 1]."""
    ratio = exact(name, value)
    if not 0 < ratio <= 1:
        raise ValueError(f"`{name}` (={value}) must be in (0, 1]")
    return ratio


def positive(name: str, value: int, least: int = 1) -> int:
    """Check that an argument is an int of at least ``least``, and return it."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"`{name}` (={value!r}) must be an int")
    if value < least:
        raise ValueError(f"`{name}` (={value}) must be at least {least}")
    return value


def full_batches(samples: int, batch_size: int, drop_last: bool = False, world_size: int = 1) -> int:
    """M, the number of batches of each process in an epoch over all images.

    Args:
        samples: D, the number of images.
        batch_size: B, images in a batch of one process.
        drop_last: leave out an incomplete last batch.
        world_size: number of processes; a step takes ``batch_size * world_size`` images. An incomplete last step with
            fewer images than processes is left out.

    Raises:
        TypeError, ValueError: if an argument is not a positive int, or there would be no batch.
    """
    step = positive("batch_size", batch_size) * positive("world_size", world_size)
    whole, rest = divmod(positive("samples", samples), step)
    count = whole + (not drop_last and rest >= world_size)
    if not count:
        raise ValueError(
            f"`samples` (={samples}) must be at least "
            + (
                f"`batch_size` (={batch_size}) times `world_size` (={world_size}), as the incomplete batch is dropped"
                if drop_last
                else f"`world_size` (={world_size})"
            )
        )
    return count


def short_batch(samples: int, batch_size: int, drop_last: bool = False, world_size: int = 1) -> int:
    """Images of each process in the last batch of an epoch over all images; ``batch_size`` if it is complete."""
    step = full_batches(samples, batch_size, drop_last, world_size) * batch_size * world_size
    return batch_size if step <= samples else (samples - step + batch_size * world_size) // world_size


def batches(samples: int, batch_size: int, ratio: Number, drop_last: bool = False, world_size: int = 1) -> int:
    """Number of batches of each process in an epoch at a ratio: M_alpha = floor(alpha * M), as in Theorems 2 and 4.

    It is computed with rational numbers: 0.7 of 90 batches are 63, where floating point gives 62.

    Args:
        samples, batch_size, drop_last, world_size: see :func:`full_batches`.
        ratio: alpha, in (0, 1].

    Raises:
        TypeError, ValueError: if the ratio is outside (0, 1] or leaves no batch, or another argument is wrong.
    """
    full = full_batches(samples, batch_size, drop_last, world_size)
    count = math.floor(exact_ratio("ratio", ratio) * full)
    if not count:
        raise ValueError(f"`ratio` (={ratio}) of {full} batches leaves none; use smaller batches or a larger ratio")
    return count


def _ratios(ratios: Iterable[Number]) -> list[Fraction]:
    checked = [exact_ratio(f"ratios[{epoch}]", ratio) for epoch, ratio in enumerate(ratios)]
    if not checked:
        raise ValueError("`ratios` must hold at least one epoch")
    return checked


def _together(samples: int | None, batch_size: int | None) -> None:
    if (samples is None) != (batch_size is None):
        raise ValueError(f"`samples` (={samples}) and `batch_size` (={batch_size}) must be given together")


def predicted_time_ratio(
    ratios: Sequence[Number],
    samples: int | None = None,
    batch_size: int | None = None,
    *,
    drop_last: bool = False,
    world_size: int = 1,
    last_batch: float = 1.0,
) -> float:
    """Training time, relative to the same epochs with all images.

    Without ``samples`` this is the mean of the ratios (Corollary 1, Eq. 10; Corollary 2, Eq. 13), which ignores that
    batches are rounded down. With ``samples`` and ``batch_size`` it counts whole batches (Theorem 2, Eq. 8; Theorem 4,
    Eq. 12) with T_0alpha = T0. Only training steps count, not evaluation or start-up.

    Args:
        ratios: one for each epoch, from :func:`seedcnn.sampling.schedules.epoch_ratios`.
        samples, batch_size, drop_last, world_size: see :func:`full_batches`.
        last_batch: T1 / T0, the time of the last batch of a full epoch relative to another batch; 0 and 1 give the two
            bounds of Eq. 9. An epoch of ratio 1 has that batch too; Eq. 12 ignores it, this function does not.

    Returns:
        A number in (0, 1].

    Raises:
        TypeError, ValueError: naming the argument and the rule.
    """
    checked = _ratios(ratios)
    _together(samples, batch_size)
    if samples is None or batch_size is None:
        return float(sum(checked) / len(checked))
    saved = 1 - exact("last_batch", last_batch)
    if not 0 <= saved <= 1:
        raise ValueError(f"`last_batch` (={last_batch}) must be in [0, 1]")
    full = full_batches(samples, batch_size, drop_last, world_size)
    if full == saved:
        raise ValueError(f"`last_batch` (={last_batch}) must be above 0 where an epoch is a single batch")
    done = [batches(samples, batch_size, ratio, drop_last, world_size) for ratio in checked]
    time = sum(count - saved if count == full else Fraction(count) for count in done)
    return float(time / (len(done) * (full - saved)))


def log10_missing_probability(
    ratios: Sequence[Number],
    samples: int | None = None,
    batch_size: int | None = None,
    *,
    drop_last: bool = False,
    world_size: int = 1,
) -> float:
    """Decimal logarithm of the probability that a given image is in no epoch; -inf for a probability of 0.

    Without ``samples`` this is the formula: the product of (1 - alpha) over the epochs (Theorem 1, Eq. 6; Theorem 3,
    Eq. 11). With ``samples`` and ``batch_size``, alpha is the share of images that the whole batches of an epoch hold.
    Both treat epochs as independent draws.

    Raises:
        TypeError, ValueError: naming the argument and the rule.
    """
    checked = _ratios(ratios)
    _together(samples, batch_size)
    if samples is None or batch_size is None:
        missed = [1 - ratio for ratio in checked]
    else:
        place = (samples, batch_size, drop_last, world_size)
        full, short = full_batches(*place), short_batch(*place)
        counts = [batches(samples, batch_size, ratio, drop_last, world_size) for ratio in checked]
        seen = [(count * batch_size - (batch_size - short) * (count == full)) * world_size for count in counts]
        missed = [1 - Fraction(pictures, samples) for pictures in seen]
    return math.fsum(math.log10(share) if share else -math.inf for share in missed)


def missing_probability(
    ratios: Sequence[Number],
    samples: int | None = None,
    batch_size: int | None = None,
    *,
    drop_last: bool = False,
    world_size: int = 1,
) -> float:
    """Probability that a given image is in no epoch (Theorems 1 and 3); times D, the expected number of such images.

    Arguments and errors are those of :func:`log10_missing_probability`, which also handles probabilities that a float
    rounds to 0 (below 1e-323).
    """
    log10 = log10_missing_probability(ratios, samples, batch_size, drop_last=drop_last, world_size=world_size)
    return float(10**log10)
