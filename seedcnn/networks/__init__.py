"""Trained networks by name or file: opened, evaluated and packed in one call each."""

from __future__ import annotations

from seedcnn.networks.evaluating import evaluate
from seedcnn.networks.opening import (
    Trained,
    check_trained,
    is_checkpoint,
    open_architecture,
    open_checkpoint,
    open_weights,
)
from seedcnn.networks.packing import pack_checkpoint, request_for
from seedcnn.networks.tuning import tune

__all__ = [
    "Trained",
    "check_trained",
    "evaluate",
    "is_checkpoint",
    "open_architecture",
    "open_checkpoint",
    "open_weights",
    "pack_checkpoint",
    "request_for",
    "tune",
]
