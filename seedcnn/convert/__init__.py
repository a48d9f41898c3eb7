"""Turn any torch CNN into one that grows from seeds."""

from __future__ import annotations

from seedcnn.convert.config import (
    METHODS,
    PRESETS,
    ConditionalReductionConfig,
    ConversionConfig,
    DepthwiseSeparableConfig,
    GhostConfig,
    GroupNLConfig,
    LocalBinaryConfig,
    MonoConfig,
    PerturbativeConfig,
    ShiftConfig,
    SineFMConfig,
    config_for,
    config_of_text,
    from_plain,
    method_of,
    to_plain,
)
from seedcnn.convert.convert import convert_
from seedcnn.convert.from_dense import FromDenseReport, reestimate_batchnorm_, seed_from_dense_
from seedcnn.convert.recommendations import GOALS, recommended
from seedcnn.convert.report import ConversionReport, Replaced, Skipped

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
    "from_plain",
    "method_of",
    "recommended",
    "reestimate_batchnorm_",
    "seed_from_dense_",
    "to_plain",
]
