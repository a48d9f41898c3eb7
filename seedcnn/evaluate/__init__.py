"""What a model is worth and what it costs: accuracy, robustness, MACs, bytes, latency, and the report of them all."""

from __future__ import annotations
