"""COCO's masks: run lengths as lists and as text, and polygons.

The text is that of COCO's ``maskApi.c`` (``rleFrString``): five bits a character, differences to the run before the
last from the fourth run on. Masks are stored by columns. Polygons are drawn by faster-coco-eval, which has that code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from seedcnn.arrays import U8

__all__ = ["decode", "mask_of", "runs_of", "runs_to_text"]

_LONGEST = 13  # characters of one number: 65 bits


def runs_of(rle: object, height: int, width: int) -> list[int]:
    """The run lengths of a mask, zeros first.

    Args:
        rle: {"size": [height, width], "counts": list of integers, text or bytes}.
        height, width: of the picture.

    Raises:
        ValueError: if it is not of that form, has another size, or its runs do not add up; the message is the end of
            a sentence.
    """
    if not isinstance(rle, dict) or "counts" not in rle or "size" not in rle:
        raise ValueError("has a mask that is no RLE; it must have counts and size")
    if list(rle["size"]) != [height, width]:
        raise ValueError(f"has an RLE of size {rle['size']}; its picture has [{height}, {width}]")
    counts = rle["counts"]
    if isinstance(counts, (str, bytes)):
        runs = _of_text(counts.encode() if isinstance(counts, str) else counts)
    elif isinstance(counts, list) and all(isinstance(run, int) and not isinstance(run, bool) for run in counts):
        runs = counts
    else:
        raise ValueError("has an RLE whose counts are neither text nor integers")
    if any(run < 0 for run in runs):
        raise ValueError(f"has an RLE with the run {min(runs)}; runs must not be negative")
    if (total := sum(runs)) != height * width:
        raise ValueError(f"has an RLE whose runs add up to {total}; its picture has {height * width} pixels")
    return runs


def _of_text(text: bytes) -> list[int]:
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = character - 48
        if not 0 <= bits < 64 or shift >= 5 * _LONGEST:
            raise ValueError("has an RLE whose text is damaged")
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("has an RLE whose text ends within a number")
    return runs


def runs_to_text(runs: Sequence[int]) -> str:
    """The text of run lengths, as COCO's files hold it."""
    text = []
    for index, run in enumerate(runs):
        value = int(run) - (int(runs[index - 2]) if index > 2 else 0)
        more = True
        while more:
            bits, value = value & 0x1F, value >> 5
            more = value != (-1 if bits & 0x10 else 0)
            text.append(chr(48 + bits + (0x20 if more else 0)))
    return "".join(text)


def decode(runs: Sequence[int], height: int, width: int) -> U8:
    """The mask of checked run lengths, uint8 [height, width] of 0 and 1."""
    values = np.arange(len(runs), dtype=np.uint8) & 1
    flat = np.repeat(values, np.asarray(runs, np.int64))
    return np.ascontiguousarray(flat.reshape(width, height).T)


def mask_of(segmentation: Any, height: int, width: int) -> U8:
    """The mask of an annotation: polygons or RLE.

    Returns:
        uint8 [height, width] of 0 and 1.

    Raises:
        ValueError: if it is neither, or not well-formed; the message is the end of a sentence.
    """
    if isinstance(segmentation, dict):
        return decode(runs_of(segmentation, height, width), height, width)
    polygons = _polygons(segmentation)
    from faster_coco_eval import mask  # takes a while, and most sets have boxes only

    drawn = mask.decode(mask.merge(mask.frPyObjects(polygons, height, width)))
    return np.asarray(drawn, np.uint8)


def _polygons(segmentation: Any) -> list[list[float]]:
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("has no segmentation; it must have polygons or an RLE")
    for each in segmentation:
        good = isinstance(each, list) and len(each) >= 6 and len(each) % 2 == 0
        if not good or any(isinstance(n, bool) or not isinstance(n, (int, float)) for n in each):
            raise ValueError("has a polygon that is no list of three points or more, x1, y1, x2, y2, ...")
        if not all(map(math.isfinite, each)) or max(map(abs, each)) > 1e5:
            raise ValueError("has a polygon with a number that is not finite, or beyond 100,000")
    return [[float(n) for n in each] for each in segmentation]
