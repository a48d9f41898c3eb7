"""Detections of a network, checked and put into columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from seedcnn.data.dense.detection_set import DetectionSet
from seedcnn.errors import DataError

__all__ = ["Detections", "Flat", "flat"]


class Detections(NamedTuple):
    """The boxes found in one picture; anything with these attributes will do.

    Attributes:
        boxes: floats [n, 4], x1, y1, x2, y2 in the picture's own pixels.
        labels: integers [n], indices into the classes, without a background.
        scores: floats [n], finite.
    """

    boxes: npt.ArrayLike
    labels: npt.ArrayLike
    scores: npt.ArrayLike


class Flat(NamedTuple):
    """All detections [n]: float64 [n, 4] boxes, int64 labels, float64 scores, int64 index of the picture."""

    boxes: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]
    pictures: npt.NDArray[np.int64]


def flat(truth: DetectionSet, detections: Sequence[Detections], num_classes: int | None) -> Flat:
    """Check detections against a set, and put them into columns.

    Raises:
        ValueError, DataError: as :func:`seedcnn.evaluate.box_precision.average_precision`.
    """
    classes = len(truth.classes)
    if num_classes is not None and num_classes != classes:
        raise DataError(f"the network has {num_classes} classes and the data have {classes}; they must be the same")
    if len(detections) != len(truth):
        raise ValueError(f"`detections` has {len(detections)} pictures and `truth` {len(truth)}; they must be the same")
    parts = [_columns(each, str(truth.files[index])) for index, each in enumerate(detections)]
    counts = [len(scores) for _, _, scores in parts]
    pictures = np.repeat(np.arange(len(truth)), counts)
    found = Flat(
        np.concatenate([boxes for boxes, _, _ in parts]),
        np.concatenate([labels for _, labels, _ in parts]),
        np.concatenate([scores for _, _, scores in parts]),
        pictures,
    )
    _check(found, truth, np.concatenate([[0], np.cumsum(counts)]))
    return found


def _columns(
    each: Detections, file: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    boxes, labels, scores = (np.asarray(values) for values in (each.boxes, each.labels, each.scores))
    n = len(scores) if scores.ndim else -1
    if not n and not boxes.size and not labels.size:
        return np.empty((0, 4)), np.empty(0, np.int64), np.empty(0)
    if scores.shape != (n,) or boxes.shape != (n, 4) or labels.shape != (n,):
        raise DataError(
            f"the detections of {file} have boxes {boxes.shape}, labels {labels.shape} and scores {scores.shape}; "
            "they must be [n, 4], [n] and [n]"
        )
    if labels.dtype.kind not in "iu" or boxes.dtype.kind not in "iuf" or scores.dtype.kind not in "iuf":
        raise DataError(
            f"the detections of {file} have {boxes.dtype} boxes, {labels.dtype} labels and {scores.dtype} scores; "
            "boxes and scores must be numbers, and labels integers"
        )
    return boxes.astype(np.float64), labels.astype(np.int64), scores.astype(np.float64)


def _check(found: Flat, truth: DetectionSet, starts: npt.NDArray[np.int64]) -> None:
    def refuse(bad: npt.NDArray[np.bool_], value: object, rule: str) -> None:
        if bad.any():
            at = int(bad.argmax())
            picture = int(found.pictures[at])
            shown = np.asarray(value)[at].tolist()
            raise DataError(f"detection {at - int(starts[picture])} of {truth.files[picture]} has {rule.format(shown)}")

    n = len(truth.classes)
    refuse(~np.isfinite(found.scores), found.scores, "the score {}; scores must be finite")
    infinite = np.asarray(~np.isfinite(found.boxes).all(axis=1))
    refuse(infinite, found.boxes, "the box {}; its numbers must be finite")
    x1, y1, x2, y2 = found.boxes.T
    refuse((x2 < x1) | (y2 < y1), found.boxes, "the reversed box {}; x1 must not be above x2, nor y1 above y2")
    outside = (found.labels < 0) | (found.labels >= n)
    refuse(outside, found.labels, f"the label {{}}; the data have {n} classes, 0 to {n - 1}")
