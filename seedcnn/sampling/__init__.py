"""Reduced sampling: how many batches each epoch uses, and which images they hold. Dissertation, chapters 3 and 4."""

from __future__ import annotations

from seedcnn.sampling.batches import ReducedBatchSampler
from seedcnn.sampling.schedules import SETTINGS, SamplingConfig, describe
from seedcnn.sampling.theory import full_batches, predicted_time_ratio, short_batch

__all__ = [
    "SETTINGS",
    "ReducedBatchSampler",
    "SamplingConfig",
    "describe",
    "full_batches",
    "predicted_time_ratio",
    "short_batch",
]
