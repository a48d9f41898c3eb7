"""From a trained network to what travels: inference form, ONNX graph, bundle."""

from __future__ import annotations

from seedcnn.export.fold import fold, load_tensors
from seedcnn.export.targets import TARGETS, Target
from seedcnn.export.to_bundle import BundleInfo, to_bundle
from seedcnn.export.to_onnx import OnnxModel, absorbed_norms, to_onnx

__all__ = [
    "TARGETS",
    "BundleInfo",
    "OnnxModel",
    "Target",
    "absorbed_norms",
    "fold",
    "load_tensors",
    "to_bundle",
    "to_onnx",
]
