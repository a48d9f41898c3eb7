"""The rules for boxes: (x1, y1, x2, y2) in pixels, edges not centres, so that a whole picture is (0, 0, w, h)."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["SLACK", "box_problem", "clipped", "numbers"]

SLACK = 0.05
"""Pixels by which a box may leave its picture and is cut to it: COCO rounds its boxes to hundredths."""


def numbers(values: object, count: int) -> list[float] | None:
    """The values as floats; None if they are not ``count`` numbers."""
    if not isinstance(values, (list, tuple)) or len(values) != count:
        return None
    if any(isinstance(each, bool) or not isinstance(each, (int, float)) for each in values):
        return None
    try:
        return [float(each) for each in values]
    except OverflowError:  # an integer beyond the range of floats
        return [math.inf] * count


def box_problem(box: Sequence[float], height: int, width: int) -> str:
    """Say what is wrong with a box, as the end of a sentence; "" if it is good.

    Args:
        box: x1, y1, x2, y2.
        height, width: of the picture, in pixels.
    """
    x1, y1, x2, y2 = box
    shown = "({})".format(", ".join(f"{each:g}" for each in box))
    if not all(map(math.isfinite, box)):
        return f"has the box {shown}; its numbers must be finite"
    if x2 < x1 or y2 < y1:
        return f"has the reversed box {shown}; x1 must be below x2, and y1 below y2"
    if x2 == x1 or y2 == y1:
        return f"has the empty box {shown}; its sides must be longer than 0"
    if min(x1, y1) < -SLACK or x2 > width + SLACK or y2 > height + SLACK:
        return f"has the box {shown}; it must lie in its picture, {width} x {height} pixels"
    x1, y1, x2, y2 = clipped(box, height, width)
    if x2 <= x1 or y2 <= y1:
        return f"has the box {shown}, of which nothing lies in its picture, {width} x {height} pixels"
    return ""


def clipped(box: Sequence[float], height: int, width: int) -> tuple[float, float, float, float]:
    """The part of a box in its picture."""
    x1, y1, x2, y2 = box
    return max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
