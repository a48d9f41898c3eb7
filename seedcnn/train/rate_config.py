"""The config of training on the grid."""

from __future__ import annotations

import math
from dataclasses import dataclass

from seedcnn import typed
from seedcnn.errors import ConfigError

__all__ = ["RateConfig"]

_STEPS = ("sensitivity", "start")


@dataclass(frozen=True)
class RateConfig:
    """Training with rounded weights and a price on their bits (after Ballé et al., "Scalable model compression by
    entropy penalized reparameterization", ICLR 2020, without their transform).

    Args:
        weight: price of a bit: the loss grows by ``weight`` times the mean bits of a weight. 0 only rounds.
        steps: "sensitivity": each tensor's step is inverse to the root of its mean Fisher information. "start": the
            steps of the checkpoint that ``init_from`` names, and the price is that of the difference to its integers,
            so that a delta to this network is small.
        loss: for "sensitivity": the growth of the cross entropy, to second order, that rounding alone would cause; it
            sets how fine all steps are.
        lr: Adam's rate for the weights, in steps of the grid.

    Raises:
        ConfigError: naming the field, its value and the rule.
    """

    weight: float = 0.3
    steps: str = "sensitivity"
    loss: float = 0.1
    lr: float = 0.05

    def __post_init__(self) -> None:
        typed.settle(self, "rate")
        if self.steps not in _STEPS:
            raise ConfigError(f"rate.steps (={self.steps!r}) must be one of {', '.join(_STEPS)}")
        if not 0 <= self.weight < math.inf:
            raise ConfigError(f"rate.weight (={self.weight}) must be a number that is not negative")
        for name in ("loss", "lr"):
            if not 0 < (value := getattr(self, name)) < math.inf:
                raise ConfigError(f"rate.{name} (={value}) must be a positive number")
        if self.steps == "start" and self.loss != RateConfig.loss:
            raise ConfigError(f"rate.loss (={self.loss}) has no effect with steps 'start', which brings its steps")
