"""The HTML report of an evaluation."""

from __future__ import annotations

from seedcnn.evaluate.report.choice import advice
from seedcnn.evaluate.report.evaluation import report_evaluation
from seedcnn.evaluate.report.pages import write_report
from seedcnn.evaluate.report.rows import Measured, ModelRow, Sample, format_bytes

__all__ = ["Measured", "ModelRow", "Sample", "advice", "format_bytes", "report_evaluation", "write_report"]
