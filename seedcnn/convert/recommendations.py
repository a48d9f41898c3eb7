"""What to convert to, by what was measured: as yet a plain alternative."""

from __future__ import annotations

from torch import nn

from seedcnn.convert.filters import convolutions
from seedcnn.errors import ConfigError, ConversionError, did_you_mean
from seedcnn.layers.depthwise_separable import DepthwiseSeparableConfig
from seedcnn.layers.families import ConversionConfig
from seedcnn.layers.ghost import GhostConfig

__all__ = ["GOALS", "recommended"]

_SEPARABLE = DepthwiseSeparableConfig(scope="spatial", relu=False)
_SEPARABLE_GHOST = DepthwiseSeparableConfig(scope="spatial", relu=False, pointwise=GhostConfig(relu=False))
GOALS: dict[str, ConversionConfig] = {
    "latency": _SEPARABLE,
    "bytes": _SEPARABLE_GHOST,
    "robustness": _SEPARABLE,
}
"""What ``recommended`` gives for each goal."""


def recommended(model: nn.Module, goal: str = "latency") -> ConversionConfig:
    """The config that gave most accuracy at equal cost in the measurements of ``docs/worth.md``.

    Linear depthwise-separable convolutions were 3.2 to 3.8 points above the vanilla network narrowed to the same
    latency, each in its fastest runtime, and under corruption 0.5 to 2.4; with a Ghost convolution as their pointwise
    part they were 3.3 to 3.7 points above it at equal bytes. The best seed form was level with it. ResNet-8, CIFAR-10,
    0.5 to 12 million multiply-adds, three to five trainings of each network (``results/worth/table.json``).

    Args:
        model: a network with dense convolutions above 1x1 beside its stem; it is looked at, not changed.
        goal: "latency" (clean accuracy at equal milliseconds), "bytes" (clean accuracy at equal bytes of the bundle) or
            "robustness" (accuracy on 19 corruptions at equal milliseconds).

    Returns:
        A config for :func:`convert_`.

    Raises:
        ConfigError: if there is no such goal.
        ConversionError: if the model has no such convolution: nothing was measured that speaks about it.
    """
    if goal not in GOALS:
        hint = did_you_mean(goal, GOALS)
        raise ConfigError(f"unknown goal {goal!r}; {hint}known goals: {', '.join(GOALS)}")
    beside_stem = [module for _, module, _ in convolutions(model)][1:]
    if not any(type(conv) is nn.Conv2d and conv.groups == 1 and max(conv.kernel_size) > 1 for conv in beside_stem):
        raise ConversionError(
            f"{type(model).__name__} has no dense convolution above 1x1 beside its stem, and only such were measured; "
            "seedcnn.plan measures the forms of this network's own layers"
        )
    return GOALS[goal]
