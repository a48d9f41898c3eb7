"""COCO's numbers through faster-coco-eval, and the same accumulation over resampled pictures."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from seedcnn.data.dense.detection_set import DetectionSet
from seedcnn.evaluate.detections import Flat
from seedcnn.evaluate.resampling import Interval, interval

__all__ = ["MOST", "coco_numbers"]

MOST = 100
"""Detections that count in a picture for each class."""

_log = logging.getLogger(__name__)
_Values = list[float | None]
# name: (precision or recall, IoU threshold or None for the mean of all, area, index of the number of detections)
_NUMBERS = {
    "AP": ("precision", None, 0, 2),
    "AP50": ("precision", 0, 0, 2),
    "AP75": ("precision", 5, 0, 2),
    "APs": ("precision", None, 1, 2),
    "APm": ("precision", None, 2, 2),
    "APl": ("precision", None, 3, 2),
    "AR1": ("recall", None, 0, 0),
    "AR10": ("recall", None, 0, 1),
    "AR100": ("recall", None, 0, 2),
    "ARs": ("recall", None, 1, 2),
    "ARm": ("recall", None, 2, 2),
    "ARl": ("recall", None, 3, 2),
}


def coco_numbers(
    truth: DetectionSet, found: Flat, drawn: npt.NDArray[np.int64]
) -> tuple[dict[str, float | None], tuple[_Values, _Values], dict[str, Interval]]:
    """The twelve numbers, AP and AP50 by class, and intervals of AP and AP50.

    Args:
        truth: the set.
        found: checked detections.
        drawn: int64 [resamples, pictures], indices of pictures; no rows for no intervals.

    Raises:
        ValueError: if two pictures of the set have one id.
    """
    if len(np.unique(truth.image_ids)) < len(truth):
        raise ValueError("`truth` has a picture twice; each may be there once")
    gt, dt = _truth(truth), _found(truth, found)
    result = _evaluator(gt, dt)
    result.evaluate()
    result.accumulate()
    numbers = {}
    for name, (what, threshold, area, most) in _NUMBERS.items():
        values = np.asarray(result.eval[what])[..., area, most]
        numbers[name] = _mean(values if threshold is None else values[threshold])
    precision = np.asarray(result.eval["precision"])[:, :, :, 0, 2]
    classes = range(len(truth.classes))
    by_class = [_mean(precision[:, :, label]) for label in classes]
    by_class_50 = [_mean(precision[0, :, label]) for label in classes]
    return numbers, (by_class, by_class_50), _intervals(gt, dt, truth, drawn) if len(drawn) else {}


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    """The mean over what is defined; -1 means undefined."""
    values = values[values > -1]
    return float(values.mean()) if values.size else None


def _coco(truth: DetectionSet, annotations: list[dict[str, Any]]) -> Any:
    from faster_coco_eval import COCO

    heights, widths = truth.sizes[:, 0].tolist(), truth.sizes[:, 1].tolist()
    images = zip(truth.image_ids.tolist(), heights, widths, strict=True)
    coco = COCO(print_function=_log.debug)
    coco.dataset = {
        "images": [{"id": each, "height": height, "width": width} for each, height, width in images],
        "categories": [{"id": label, "name": name} for label, name in enumerate(truth.classes, 1)],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def _boxes(boxes: npt.NDArray[Any]) -> list[list[float]]:
    corners = boxes.astype(np.float64)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).tolist()


def _truth(truth: DetectionSet) -> Any:
    owner = truth.image_ids[np.repeat(np.arange(len(truth)), np.diff(truth.offsets))]
    columns = (owner, truth.labels + 1, truth.areas, truth.crowd.astype(np.int64))
    rows = zip(_boxes(truth.boxes), *(column.tolist() for column in columns), strict=True)
    # Numbered again, because ids of several files may clash.
    annotations = [
        {"id": n, "image_id": image, "category_id": label, "bbox": box, "area": area, "iscrowd": crowd}
        for n, (box, image, label, area, crowd) in enumerate(rows, 1)
    ]
    return _coco(truth, annotations)


def _found(truth: DetectionSet, found: Flat) -> Any:
    areas = np.prod(found.boxes[:, 2:] - found.boxes[:, :2], axis=1)
    columns = (truth.image_ids[found.pictures], found.labels + 1, areas, found.scores)
    rows = zip(_boxes(found.boxes), *(column.tolist() for column in columns), strict=True)
    annotations = [
        {"id": n, "image_id": image, "category_id": label, "bbox": box, "area": area, "score": score, "iscrowd": 0}
        for n, (box, image, label, area, score) in enumerate(rows, 1)
    ]
    return _coco(truth, annotations)


def _evaluator(gt: Any, dt: Any, *, apart: bool = False) -> Any:
    from faster_coco_eval import COCOeval_faster

    return COCOeval_faster(gt, dt, "bbox", print_function=_log.debug, separate_eval=apart)


def _intervals(gt: Any, dt: Any, truth: DetectionSet, drawn: npt.NDArray[np.int64]) -> dict[str, Interval]:
    """Match once, for all areas and 100 detections, and accumulate again over each resample."""
    result = _evaluator(gt, dt, apart=True)
    result.params.areaRng, result.params.areaRngLbl = result.params.areaRng[:1], result.params.areaRngLbl[:1]
    result.params.maxDets = [MOST]
    result.evaluate()
    order = np.argsort(truth.image_ids)  # pictures as they are evaluated
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    used = _used(gt, dt, truth)
    found = [_resampled(result, used, np.bincount(indices, minlength=len(truth))) for indices in place[drawn]]
    measured = _resampled(result, used, np.ones(len(truth), np.int64))
    names = enumerate(("AP", "AP50"))
    return {name: interval([each[i] for each in found], measured[i]) for i, name in names}


def _used(gt: Any, dt: Any, truth: DetectionSet) -> list[npt.NDArray[np.int64]]:
    """For each class the pictures with an object or a detection of it, as places in the order of ids."""
    ids = np.sort(truth.image_ids)
    used: list[set[int]] = [set() for _ in truth.classes]
    for coco in (gt, dt):
        for each in coco.dataset["annotations"]:
            used[each["category_id"] - 1].add(each["image_id"])
    return [np.searchsorted(ids, np.array(sorted(each), np.int64)) for each in used]


def _resampled(result: Any, used: Sequence[npt.NDArray[np.int64]], times: npt.NDArray[np.int64]) -> tuple[float, float]:
    """AP and AP50 over pictures that count ``times`` each; NaN if no class has an object."""
    from faster_coco_eval.faster_eval_api_cpp import COCOevalAccumulate

    matches, pictures = result._evalImgs_cpp, len(times)
    means = []
    for label, places in enumerate(used):
        chosen = np.repeat(places, times[places]).tolist()
        if not chosen:
            continue
        params = copy.copy(result._paramsEval)
        params.catIds, params.imgIds = params.catIds[label : label + 1], list(range(len(chosen)))
        part = COCOevalAccumulate(params, [matches[label * pictures + place] for place in chosen])
        precision = np.asarray(part["precision"])[:, :, 0, 0, 0]
        if (precision > -1).any():
            means.append((precision.mean(), precision[0].mean()))
    if not means:
        return float("nan"), float("nan")
    ap, ap50 = np.mean(means, axis=0).tolist()
    return ap, ap50
