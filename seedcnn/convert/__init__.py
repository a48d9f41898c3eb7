"""Turn any torch CNN into one that grows from seeds."""

from __future__ import annotations

from seedcnn.convert.config import (
    METHODS,
    PRESETS,
    config_for,
    config_of_text,
    from_plain,
    method_of,
    to_plain,
)
from seedcnn.convert.convert import convert_, convert_layers_, replacement
from seedcnn.convert.from_dense import FromDenseReport, reestimate_batchnorm_, seed_from_dense_
from seedcnn.convert.low_passing import low_passed, lowpass_
from seedcnn.convert.plugins import load_plugin, loaded_plugins
from seedcnn.convert.recommendations import GOALS, recommended
from seedcnn.convert.report import ConversionReport, Replaced, Skipped
from seedcnn.layers.conditional_reduction import ConditionalReductionConfig
from seedcnn.layers.depthwise_separable import DepthwiseSeparableConfig
from seedcnn.layers.families import ConversionConfig, register
from seedcnn.layers.ghost import GhostConfig
from seedcnn.layers.group_nl import GroupNLConfig
from seedcnn.layers.local_binary import LocalBinaryConfig
from seedcnn.layers.mono import MonoConfig
from seedcnn.layers.perturbative import PerturbativeConfig
from seedcnn.layers.shift import ShiftConfig
from seedcnn.layers.sine_fm import SineFMConfig

__all__ = [
    "GOALS",
    "METHODS",
    "PRESETS",
    "ConditionalReductionConfig",
    "ConversionConfig",
    "ConversionReport",
    "DepthwiseSeparableConfig",
    "FromDenseReport",
    "GhostConfig",
    "GroupNLConfig",
    "LocalBinaryConfig",
    "MonoConfig",
    "PerturbativeConfig",
    "Replaced",
    "ShiftConfig",
    "SineFMConfig",
    "Skipped",
    "config_for",
    "config_of_text",
    "convert_",
    "convert_layers_",
    "from_plain",
    "load_plugin",
    "loaded_plugins",
    "low_passed",
    "lowpass_",
    "method_of",
    "recommended",
    "reestimate_batchnorm_",
    "register",
    "replacement",
    "seed_from_dense_",
    "to_plain",
]
