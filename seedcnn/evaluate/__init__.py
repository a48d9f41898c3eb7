"""Measure a network: accuracy, robustness, cost, latency, and whether two forms of it are the same function."""

from __future__ import annotations

from seedcnn.evaluate.accuracies import Accuracy, accuracy, torch_predictor
from seedcnn.evaluate.costs import CONVENTIONS, Cost, LayerCost, cost
from seedcnn.evaluate.equivalence import Equivalence, compare_logits
from seedcnn.evaluate.onnx_file import onnx_predictor, read_onnx
from seedcnn.evaluate.predictors import bundle_predictor
from seedcnn.evaluate.robustness_runs import (
    RobustnessTable,
    SeededRobustness,
    robustness,
    robustness_many,
    robustness_seeds,
)
from seedcnn.latency import Latency, interleave

__all__ = [
    "CONVENTIONS",
    "Accuracy",
    "Cost",
    "Equivalence",
    "Latency",
    "LayerCost",
    "RobustnessTable",
    "SeededRobustness",
    "accuracy",
    "bundle_predictor",
    "compare_logits",
    "cost",
    "interleave",
    "onnx_predictor",
    "read_onnx",
    "robustness",
    "robustness_many",
    "robustness_seeds",
    "torch_predictor",
]
