"""Export of a trained network: inference form, ONNX graph, bundle."""

from __future__ import annotations

from seedcnn.export.bundles import BundleInfo, to_bundle
from seedcnn.export.folding import fold, load_tensors
from seedcnn.export.onnx_graphs import OnnxModel, absorbed_norms, to_onnx
from seedcnn.layers.targets import TARGETS, Target

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
