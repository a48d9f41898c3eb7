"""Measure a network: accuracy, robustness, cost, latency, and whether two forms of it are the same function."""

from __future__ import annotations

from seedcnn.evaluate.accuracy import Accuracy, accuracy, torch_predictor
from seedcnn.evaluate.cost import CONVENTIONS, Cost, LayerCost, cost
from seedcnn.evaluate.equivalence import Equivalence, compare_logits
from seedcnn.evaluate.predictors import bundle_predictor
from seedcnn.evaluate.robustness import RobustnessTable, robustness, robustness_many
from seedcnn.latency import Latency, interleave

__all__ = [
    "CONVENTIONS",
    "Accuracy",
    "Cost",
    "Equivalence",
    "Latency",
    "LayerCost",
    "RobustnessTable",
    "accuracy",
    "bundle_predictor",
    "compare_logits",
    "cost",
    "interleave",
    "robustness",
    "robustness_many",
    "torch_predictor",
]
