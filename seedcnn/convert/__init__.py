"""Turn any torch CNN into one that grows from seeds."""

from __future__ import annotations

from seedcnn.convert.config import METHODS, ConversionConfig, GroupNLConfig, config_for
from seedcnn.convert.convert import convert_
from seedcnn.convert.report import ConversionReport, Replaced, Skipped

__all__ = [
    "METHODS",
    "ConversionConfig",
    "ConversionReport",
    "GroupNLConfig",
    "Replaced",
    "Skipped",
    "config_for",
    "convert_",
]
