"""A config of every family that has weights of its own, and the network as it is."""

from __future__ import annotations

from seedcnn.convert import (
    ConditionalReductionConfig,
    DepthwiseSeparableConfig,
    GhostConfig,
    GroupNLConfig,
    LocalBinaryConfig,
    MonoConfig,
    PerturbativeConfig,
    ShiftConfig,
    SineFMConfig,
)

FORMS = [
    None,
    GroupNLConfig(),
    GroupNLConfig.paper(nlf_groups=2, normalize="batch", sparse=True),
    MonoConfig(),
    GhostConfig(),
    DepthwiseSeparableConfig(),
    SineFMConfig(),
    ShiftConfig(),
    LocalBinaryConfig(),
    PerturbativeConfig(),
    ConditionalReductionConfig(),
]
