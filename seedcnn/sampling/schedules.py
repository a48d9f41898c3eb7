"""Reduced random sampling: a schedule of ratios that determines how many batches each epoch uses.

An epoch of ratio alpha shuffles the images and uses the first floor(alpha * M) of its M batches; batch size and
learning rates stay the same. A schedule is either flat or has three stages. The second stage is a chain of bottlenecks:
epochs at a squeezed ratio between epochs at the full ratio of that stage. Source: the dissertation on CRnet and reduced
random sampling, Section 3.2; the settings are those of Tables 4-9, 4-11 and 4-13.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from seedcnn.errors import ConfigError, did_you_mean
from seedcnn.sampling.theory import (
    Number,
    batches,
    exact,
    exact_ratio,
    full_batches,
    log10_missing_probability,
    positive,
    predicted_time_ratio,
)

__all__ = ["MADE_FOR", "SETTINGS", "SamplingConfig", "SamplingPlan", "describe", "epoch_ratios", "setting"]


def _stage_epochs(epochs: int, gammas: Sequence[Number]) -> tuple[int, int, int]:
    """N1, N2, N3."""
    if len(gammas) != 2:
        raise ValueError(f"`gammas` (={tuple(gammas)}) must be the shares of stages 1 and 3")
    shares = [exact(f"gammas[{index}]", gamma) for index, gamma in enumerate(gammas)]
    if not all(0 <= share <= 1 for share in shares):
        raise ValueError(f"`gammas` (={tuple(gammas)}) must be in [0, 1]")
    # Halves round down, so that shares with a sum of 1 never exceed the number of epochs.
    first, third = (math.ceil(share * epochs - Fraction(1, 2)) for share in shares)
    if first + third > epochs:
        raise ValueError(
            f"`gammas` (={tuple(gammas)}) leave {epochs - first - third} epochs of {epochs} for stage 2; they must "
            "add up to at most 1"
        )
    return first, epochs - first - third, third


def epoch_ratios(
    epochs: int,
    alphas: Sequence[Number],
    gammas: Sequence[Number] = (1, 0),
    squeeze: Number = 1,
    internal: int = 4,
) -> list[Fraction]:
    """The sampling ratio of each epoch (Section 3.2.3 and Theorem 3).

    Stage 1 has N1 = gamma1 * N epochs at alpha1, stage 3 has N3 = gamma3 * N epochs at alpha3, and stage 2 has the
    rest. In stage 2 every (internal + 1)-th epoch is at alpha21 and the others at alpha22 = squeeze * alpha21. The
    first bottleneck begins with the last epoch of stage 1, so stage 2 begins squeezed. Three equal alphas and
    ``squeeze=1`` are flat sampling. The dissertation does not say how N1 and N3 are rounded; here they are rounded to
    the nearest integer, halves down (the published settings have no halves).

    Args:
        epochs: N.
        alphas: (alpha1, alpha21, alpha3), each in (0, 1]. A float stands for its shortest decimal.
        gammas: (gamma1, gamma3), shares of the epochs in [0, 1].
        squeeze: se, in (0, 1].
        internal: k, squeezed epochs in a bottleneck; 4 in the published settings.

    Returns:
        Exact ratios, one for each epoch.

    Raises:
        TypeError: if an argument is not a number, or ``epochs`` or ``internal`` is not an int.
        ValueError: if one is out of range, the gammas add up to more than 1, or no epoch comes before a squeezed
            stage 2.
    """
    positive("epochs", epochs)
    positive("internal", internal)
    if len(alphas) != 3:
        raise ValueError(f"`alphas` (={tuple(alphas)}) must be the ratios of stages 1, 2 and 3")
    one, two, three = (exact_ratio(f"alphas[{index}]", alpha) for index, alpha in enumerate(alphas))
    squeezed = exact_ratio("squeeze", squeeze) * two
    first, middle, third = _stage_epochs(epochs, gammas)
    if middle and not first and squeezed != two:
        raise ValueError(
            f"`gammas` (={tuple(gammas)}) give stage 1 no epoch of {epochs} (N1 = 0), but the first bottleneck of "
            "stage 2 begins with the last epoch of stage 1; use a larger gammas[0] or squeeze=1"
        )
    bottlenecks = [squeezed if (index + 1) % (internal + 1) else two for index in range(middle)]
    return [one] * first + bottlenecks + [three] * third


@dataclass(frozen=True)
class SamplingConfig:
    """A schedule of reduced sampling for any number of epochs, with the arguments of :func:`epoch_ratios`.

    It holds floats, which JSON can store; for exact fractions call :func:`epoch_ratios`.

    Raises:
        TypeError, ValueError: as for :func:`epoch_ratios`, for all rules that do not depend on the number of epochs.
    """

    alphas: tuple[float, float, float]
    gammas: tuple[float, float] = (1.0, 0.0)
    squeeze: float = 1.0
    internal: int = 4

    def __post_init__(self) -> None:
        for name in ("alphas", "gammas"):  # JSON has lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if fractions := [value for value in (*self.alphas, *self.gammas, self.squeeze) if isinstance(value, Fraction)]:
            raise TypeError(f"a sampling config holds floats, not {fractions[0]!r}")
        exact_ratio("squeeze", self.squeeze)
        epoch_ratios(100, self.alphas, self.gammas, 1, self.internal)  # checks the rules for any number of epochs

    @classmethod
    def flat(cls, ratio: float) -> SamplingConfig:
        """A schedule with the same ratio in every epoch (Section 3.2.1)."""
        return cls((ratio, ratio, ratio))

    def ratios(self, epochs: int) -> list[Fraction]:
        """The ratio of each epoch, as :func:`epoch_ratios` returns it."""
        return epoch_ratios(epochs, self.alphas, self.gammas, self.squeeze, self.internal)


_THIRDS = (1 / 3, 1 / 3)
SETTINGS: dict[str, SamplingConfig] = {
    "R1_0.8": SamplingConfig.flat(0.8),
    "R1_0.618": SamplingConfig.flat(0.618),
    "R2": SamplingConfig((0.8, 0.8, 0.8), _THIRDS, 0.8),
    "R2_1": SamplingConfig((0.8, 1.0, 0.8), _THIRDS, 0.8),
    "R3": SamplingConfig((0.8, 0.8, 0.25), (1 / 3, 1 / 6), 0.8),
    "R2_2": SamplingConfig((0.8, 0.8, 0.5), _THIRDS, 0.625),
}
"""The published settings by name."""

MADE_FOR: dict[str, tuple[int, ...]] = {
    "R1_0.8": (120, 150),
    "R1_0.618": (120, 150),
    "R2": (120,),
    "R2_1": (120,),
    "R3": (120,),
    "R2_2": (150,),
}
"""The numbers of epochs that each setting was published with: 120 on CIFAR, 150 on ImageNet."""


def setting(name: str) -> SamplingConfig:
    """A published setting by name.

    Raises:
        ConfigError: if there is none; near names are listed.
    """
    if name not in SETTINGS:
        hint = did_you_mean(name, SETTINGS)
        raise ConfigError(f"unknown sampling setting {name!r}; {hint}known: {', '.join(SETTINGS)}")
    return SETTINGS[name]


@dataclass(frozen=True)
class SamplingPlan:
    """The batches, time and missing probability of a schedule; print it with ``str`` before training.

    Attributes:
        epochs, samples, batch_size: the run that the schedule is for.
        batches_full: batches of an epoch over all images.
        runs: (ratio, batches per epoch, consecutive epochs), in order.
        time_ratio: predicted time of the training steps, by Corollaries 1 and 2, relative to full sampling.
        time_ratio_by_batches: the same with whole batches, by Theorems 2 and 4.
        log10_missing: decimal logarithm of the probability that an image is never drawn, by Theorems 1 and 3; -inf
            for 0.
        log10_missing_by_batches: the same with the share of images that whole batches hold.
    """

    epochs: int
    samples: int
    batch_size: int
    batches_full: int
    runs: tuple[tuple[Fraction, int, int], ...]
    time_ratio: float
    time_ratio_by_batches: float
    log10_missing: float
    log10_missing_by_batches: float

    def __str__(self) -> str:
        counted: dict[tuple[Fraction, int], int] = {}
        for ratio, count, length in self.runs:
            counted[ratio, count] = counted.get((ratio, count), 0) + length
        levels = ", ".join(f"{n} at {float(ratio):g} ({count})" for (ratio, count), n in counted.items())
        return (
            f"reduced sampling: {self.epochs} epochs over {self.samples} images in batches of {self.batch_size}\n"
            f"  epochs at a ratio (batches of {self.batches_full}): {levels}\n"
            f"  predicted time of the training steps: {self.time_ratio_by_batches:.4f} of full sampling "
            f"({self.time_ratio:.4f} without rounding to batches)\n"
            f"  probability that an image is never drawn: {_power(self.log10_missing_by_batches)} "
            f"({_power(self.log10_missing)} by formula)"
        )


def _power(log10: float) -> str:
    if log10 == -math.inf:
        return "0"
    exponent = math.floor(log10)
    return f"{10 ** (log10 - exponent):.2f}e{exponent}"


def describe(
    config: SamplingConfig,
    epochs: int,
    samples: int,
    batch_size: int,
    *,
    drop_last: bool = False,
    world_size: int = 1,
) -> SamplingPlan:
    """Compute the batches, the predicted time and the missing probability of a schedule.

    Args:
        config: the schedule.
        epochs: number of epochs of the run.
        samples, batch_size, drop_last, world_size: see :func:`full_batches`.

    Raises:
        TypeError, ValueError: naming the argument, its value and the rule.
    """
    ratios = config.ratios(epochs)
    place = {"drop_last": drop_last, "world_size": world_size}
    runs = tuple(
        (ratio, batches(samples, batch_size, ratio, **place), len(list(group)))  # type: ignore[arg-type]
        for ratio, group in itertools.groupby(ratios)
    )
    return SamplingPlan(
        epochs,
        samples,
        batch_size,
        full_batches(samples, batch_size, drop_last, world_size),
        runs,
        predicted_time_ratio(ratios),
        predicted_time_ratio(ratios, samples, batch_size, drop_last=drop_last, world_size=world_size),
        log10_missing_probability(ratios),
        log10_missing_probability(ratios, samples, batch_size, drop_last=drop_last, world_size=world_size),
    )
