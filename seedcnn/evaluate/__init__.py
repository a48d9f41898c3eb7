"""Measure a network: accuracy, robustness, cost, latency, and whether two forms of it are the same function."""

from __future__ import annotations

from seedcnn.evaluate.accuracies import (
    Accuracy,
    Predict,
    accuracy,
    accuracy_of_logits,
    predict_logits,
    torch_predictor,
)
from seedcnn.evaluate.answers import Answers, ask
from seedcnn.evaluate.benchmark import bench_latency
from seedcnn.evaluate.box_precision import average_precision
from seedcnn.evaluate.costs import Cost, cost
from seedcnn.evaluate.detections import Detections
from seedcnn.evaluate.equivalence import Equivalence, compare_logits
from seedcnn.evaluate.evaluated import Evaluated, Opened
from seedcnn.evaluate.map_overlap import mean_iou
from seedcnn.evaluate.onnx_file import onnx_predictor, read_onnx
from seedcnn.evaluate.predictors import bundle_predictor
from seedcnn.evaluate.request import EvaluateRequest
from seedcnn.evaluate.robustness_runs import (
    RobustnessTable,
    SeededRobustness,
    robustness,
    robustness_many,
    robustness_seeds,
)

__all__ = [
    "Accuracy",
    "Answers",
    "Cost",
    "Detections",
    "Equivalence",
    "EvaluateRequest",
    "Evaluated",
    "Opened",
    "Predict",
    "RobustnessTable",
    "SeededRobustness",
    "accuracy",
    "accuracy_of_logits",
    "ask",
    "average_precision",
    "bench_latency",
    "bundle_predictor",
    "compare_logits",
    "cost",
    "mean_iou",
    "onnx_predictor",
    "predict_logits",
    "read_onnx",
    "robustness",
    "robustness_many",
    "robustness_seeds",
    "torch_predictor",
]
