"""Pack a trained network: fold, export, code, and measure what that did to its accuracy; as float32 or int8."""

from __future__ import annotations

from seedcnn.pack.int8 import Int8, Int8Result, draw_calibration
from seedcnn.pack.packing import DEFAULT_STEP, PackResult, pack, preprocessing_of

__all__ = ["DEFAULT_STEP", "Int8", "Int8Result", "PackResult", "draw_calibration", "pack", "preprocessing_of"]
