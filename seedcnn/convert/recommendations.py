"""Recommended configs, from measurements: plain alternatives so far."""

from __future__ import annotations

from torch import nn

from seedcnn.convert.filters import convolutions
from seedcnn.errors import ConfigError, ConversionError, did_you_mean
from seedcnn.layers.depthwise_separable import DepthwiseSeparableConfig
from seedcnn.layers.families import ConversionConfig
from seedcnn.layers.ghost import GhostConfig
from seedcnn.layers.low_pass import plain_type

__all__ = ["GOALS", "recommended"]

_SEPARABLE = DepthwiseSeparableConfig(scope="spatial", relu=False)
_SEPARABLE_GHOST = DepthwiseSeparableConfig(scope="spatial", relu=False, pointwise=GhostConfig(relu=False))
GOALS: dict[str, ConversionConfig] = {
    "latency": _SEPARABLE,
    "bytes": _SEPARABLE_GHOST,
    "robustness": _SEPARABLE,
}
"""Goal -> the config that ``recommended`` returns."""


def recommended(model: nn.Module, goal: str = "latency") -> ConversionConfig:
    """Return the config that gave the most accuracy at equal cost in the measurements of ``docs/worth.md``.

    Linear depthwise-separable convolutions beat the vanilla network narrowed to the same latency by 3.2 to 3.8 points,
    each in its fastest runtime, and by 0.5 to 2.4 points under corruption; with a Ghost convolution as their pointwise
    part they beat it by 3.3 to 3.7 points at equal bytes. The best seed form was level with it. Measured on ResNet-8,
    CIFAR-10, 0.5 to 12 million multiply-adds, three to five trainings per network (``results/worth/table.json``).

    Args:
        model: a network with dense convolutions above 1x1 besides its stem; it is not changed.
        goal: "latency" (clean accuracy at equal milliseconds), "bytes" (clean accuracy at equal bundle size) or
            "robustness" (accuracy on 19 corruptions at equal milliseconds).

    Returns:
        A config for :func:`convert_`.

    Raises:
        ConfigError: if there is no such goal.
        ConversionError: if the model has no such convolution, since no measurement applies to it.
    """
    if goal not in GOALS:
        hint = did_you_mean(goal, GOALS)
        raise ConfigError(f"unknown goal {goal!r}; {hint}known goals: {', '.join(GOALS)}")
    beside_stem = [module for _, module, _ in convolutions(model)][1:]
    if not any(
        plain_type(conv) is nn.Conv2d and conv.groups == 1 and max(conv.kernel_size) > 1 for conv in beside_stem
    ):
        raise ConversionError(
            f"{type(model).__name__} has no dense convolution above 1x1 besides its stem, the only kind measured; "
            "use seedcnn.plan to measure forms for this network's own layers"
        )
    return GOALS[goal]
