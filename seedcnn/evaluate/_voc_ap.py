"""PASCAL VOC's AP at an IoU of .5, by the rule of 2007 and that of 2010 (``VOCevaldet.m``, ``VOCap.m``)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from seedcnn.data.dense.detection_set import DetectionSet
from seedcnn.evaluate.detections import Flat
from seedcnn.evaluate.resampling import Interval, interval

__all__ = ["overlaps", "voc_ap50"]

_OVERLAP = 0.5
_FALSE, _TRUE, _IGNORED = 0, 1, 2


def overlaps(box: npt.NDArray[np.float64], boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """IoU of one box [4] with others [n, 4], float64 [n].

    Boxes are edges, so that it is VOC's rule for pixels that count from 1, of which both ends are inside.
    """
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    common = np.prod(np.maximum(sides, 0), axis=1)
    whole = np.prod(box[2:] - box[:2]) + np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    return common / (whole - common)


def voc_ap50(
    truth: DetectionSet, found: Flat, drawn: npt.NDArray[np.int64], *, eleven: bool
) -> tuple[list[float | None], dict[str, float | None], dict[str, Interval]]:
    """AP50 by class, its mean, and the interval of the mean.

    Args:
        truth: the set.
        found: checked detections.
        drawn: int64 [resamples, pictures], indices of pictures; no rows for no interval.
        eleven: the rule of 2007.
    """
    owner = np.repeat(np.arange(len(truth)), np.diff(truth.offsets))
    skip = truth.difficult | truth.crowd
    matched, wanted = [], []
    for label in range(len(truth.classes)):
        mine = truth.labels == label
        matched.append(_matched(truth, found, label, owner, mine, skip))
        wanted.append(np.bincount(owner[mine & ~skip], minlength=len(truth)))
    once = np.ones(len(truth), np.int64)
    by_class = [_ap(*pair, once, eleven) for pair in zip(matched, wanted, strict=True)]
    means = []
    for indices in drawn:
        times = np.bincount(indices, minlength=len(truth))
        means.append(_mean([_ap(*pair, times, eleven) for pair in zip(matched, wanted, strict=True)]))
    mean = _mean(by_class)
    spread = interval([_or_nan(each) for each in means], _or_nan(mean))
    return by_class, {"AP50": mean}, {"AP50": spread}


def _mean(values: list[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _matched(
    truth: DetectionSet,
    found: Flat,
    label: int,
    owner: npt.NDArray[np.int64],
    mine: npt.NDArray[np.bool_],
    skip: npt.NDArray[np.bool_],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pictures of a class's detections by falling score, and whether each is false, true or ignored."""
    chosen = np.flatnonzero(found.labels == label)
    chosen = chosen[np.argsort(-found.scores[chosen], kind="stable")]
    rows = np.flatnonzero(mine)
    starts = np.searchsorted(owner[rows], np.arange(len(truth) + 1))
    taken = np.zeros(len(truth.labels), np.bool_)
    boxes = truth.boxes.astype(np.float64)
    verdicts = np.zeros(len(chosen), np.int64)
    for n, (at, picture) in enumerate(zip(chosen.tolist(), found.pictures[chosen].tolist(), strict=True)):
        candidates = rows[starts[picture] : starts[picture + 1]]
        if not len(candidates):
            continue
        shares = overlaps(found.boxes[at], boxes[candidates])
        best = int(shares.argmax())
        row = candidates[best]
        if shares[best] < _OVERLAP:
            continue
        if skip[row]:
            verdicts[n] = _IGNORED
        elif not taken[row]:
            verdicts[n], taken[row] = _TRUE, True
    return found.pictures[chosen], verdicts


def _ap(
    matched: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    wanted: npt.NDArray[np.int64],
    times: npt.NDArray[np.int64],
    eleven: bool,
) -> float | None:
    """AP of a class whose pictures count ``times`` each; None if it has no object."""
    pictures, verdicts = matched
    total = int(wanted @ times)
    if not total:
        return None
    weights = times[pictures]
    hits = np.cumsum(weights * (verdicts == _TRUE))
    seen = hits + np.cumsum(weights * (verdicts == _FALSE))
    hits, seen = hits[seen > 0], seen[seen > 0]
    best = np.maximum.accumulate((hits / seen)[::-1])[::-1]  # the best precision at this recall or a higher one
    if eleven:
        # In integers: a recall of 3 in 10 reaches 0.3.
        firsts = [np.flatnonzero(10 * hits >= point * total)[:1] for point in range(11)]
        return sum(float(best[first[0]]) for first in firsts if len(first)) / 11
    return float((np.diff(hits, prepend=0) * best).sum() / total)
