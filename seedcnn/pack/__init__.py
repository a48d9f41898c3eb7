"""Pack a trained network as a bundle, float32 or int8: fold, export, code, and measure the accuracy of the result."""

from __future__ import annotations

from seedcnn.pack.int8 import Int8, Int8Result, calibration_order, draw_calibration
from seedcnn.pack.packing import DEFAULT_STEP, pack, preprocessing_of
from seedcnn.pack.parent import Parent
from seedcnn.pack.request import PackRequest
from seedcnn.pack.result import PackResult
from seedcnn.pack.search import Candidate, Search

__all__ = [
    "DEFAULT_STEP",
    "Candidate",
    "Int8",
    "Int8Result",
    "PackRequest",
    "PackResult",
    "Parent",
    "Search",
    "calibration_order",
    "draw_calibration",
    "pack",
    "preprocessing_of",
]
