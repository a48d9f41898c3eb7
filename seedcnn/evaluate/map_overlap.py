"""Mean intersection over union of index maps, by class, with pixel accuracy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from seedcnn import html
from seedcnn.data.dense.segmentation_set import IGNORE, SegmentationSet
from seedcnn.errors import DataError
from seedcnn.evaluate.resampling import Interval, interval, resamples
from seedcnn.messages import counted

__all__ = ["MeanIoU", "mean_iou"]

_MOST = 254  # classes, so that 255 stays free


@dataclass(frozen=True, eq=False)
class MeanIoU:
    """A measured mean IoU; all numbers are shares of 1.

    Attributes:
        miou: mean over the classes that truth or prediction holds; pixels of all pictures count alike.
        by_class: IoU by class; None for a class that neither truth nor prediction holds, which is left out of the mean.
        pixel_accuracy: share of pixels with the right class.
        confusion: int64 [classes, classes], pixels by class of the truth (row) and of the prediction (column).
        pictures, pixels: how many count; ignored pixels do not.
        interval: 95 % interval of ``miou`` over pictures; None without a bootstrap.
        notes: sentences about what is left out.
    """

    miou: float
    by_class: Mapping[str, float | None]
    pixel_accuracy: float
    confusion: npt.NDArray[np.int64]
    pictures: int
    pixels: int
    interval: Interval | None = None
    notes: tuple[str, ...] = ()

    def _sentence(self) -> str:
        spread = "" if self.interval is None else " [{:.1f}, {:.1f}]".format(*(100 * each for each in self.interval))
        accuracy = f"pixel accuracy {100 * self.pixel_accuracy:.1f}"
        return f"mIoU {100 * self.miou:.1f}{spread}, {accuracy}, {counted(self.pictures, 'picture')}"

    def __repr__(self) -> str:
        return f"MeanIoU({self._sentence()})"

    def _repr_html_(self) -> str:
        """The numbers in a sentence, as a notebook shows it."""
        return html.paragraph(self._sentence())


def mean_iou(
    truth: SegmentationSet | Iterable[npt.ArrayLike],
    predictions: Iterable[npt.ArrayLike],
    *,
    classes: Sequence[str] | None = None,
    num_classes: int | None = None,
    ignore: int = IGNORE,
    bootstrap: int = 0,
    seed: int = 0,
) -> MeanIoU:
    """Measure index maps, picture by picture (Everingham et al., 2010, section 4.3; the rule of VOC and Cityscapes).

    IoU of a class = true positives / (true positives + false positives + false negatives), in pixels of all pictures.

    Args:
        truth: a set, whose maps are read one by one, or maps: integers [h, w].
        predictions: maps of the same sizes in the same order, integers [h, w] of classes; at pixels that the truth
            ignores anything may stand.
        classes: the names by index; those of the set if ``truth`` is one.
        num_classes: of the network; it must be the number of ``classes``. None does not check it.
        ignore: index of pixels of the truth that do not count.
        bootstrap: number of resamples of pictures for the interval; 0 for none.
        seed: of the bootstrap, in [0, 2**64).

    Raises:
        ValueError: if an argument is out of range, or the numbers of maps differ.
        DataError: if a map has another size than its truth or an unknown index, if no pixel counts, or ``num_classes``
            is not that of the data; the message names picture, value and rule.
    """
    names = _names(truth, classes, num_classes)
    resamples(1, bootstrap, seed)  # only checks the two
    counts = []
    for index, (each, found, where) in enumerate(_pairs(truth, predictions)):
        counts.append(_confusion(each, found, len(names), ignore, where or f"picture {index}"))
    if not counts:
        raise ValueError("`truth` has no picture; one at least is needed")
    # By picture: pixels that are right, of the truth, and of the prediction.
    right, of_truth, of_found = (
        np.stack(part) for part in zip(*((c.diagonal(), c.sum(1), c.sum(0)) for c in counts), strict=True)
    )
    confusion = np.stack(counts).sum(0)
    if not confusion.sum():
        raise DataError(f"no pixel of {counted(len(counts), 'picture')} counts; the truth ignores all of them")
    shares = _shares(right.sum(0), of_truth.sum(0), of_found.sum(0))
    by_class = {name: None if np.isnan(share) else float(share) for name, share in zip(names, shares, strict=True)}
    spread = None
    if bootstrap:
        drawn = resamples(len(counts), bootstrap, seed)
        times = np.stack([np.bincount(row, minlength=len(counts)) for row in drawn])
        means = [_mean(_shares(*row)) for row in zip(times @ right, times @ of_truth, times @ of_found, strict=True)]
        spread = interval(means, _mean(shares))
    left = [name for name, share in by_class.items() if share is None]
    notes = (f"neither truth nor prediction holds {', '.join(left)}; the mean is over the others",) if left else ()
    accuracy = float(np.trace(confusion) / confusion.sum())
    pixels = int(confusion.sum())
    return MeanIoU(_mean(shares), by_class, accuracy, confusion, len(counts), pixels, spread, notes)


def _names(truth: object, classes: Sequence[str] | None, num_classes: int | None) -> tuple[str, ...]:
    if isinstance(truth, SegmentationSet):
        if classes is not None and tuple(classes) != truth.classes:
            raise ValueError(f"`classes` (={tuple(classes)}) are not those of `truth`, {truth.classes}")
        classes = truth.classes
    if classes is None or not 1 <= len(classes) <= _MOST or len(set(classes)) < len(classes):
        raise ValueError(f"`classes` (={classes}) must be 1 to {_MOST} different names")
    if num_classes is not None and num_classes != len(classes):
        raise DataError(
            f"the network has {num_classes} classes and the data have {len(classes)}; they must be the same"
        )
    return tuple(classes)


def _pairs(
    truth: SegmentationSet | Iterable[npt.ArrayLike], predictions: Iterable[npt.ArrayLike]
) -> Iterator[tuple[npt.NDArray[np.generic], npt.NDArray[np.generic], str]]:
    """Maps of truth and prediction, and the name of the picture where it has one."""
    maps: Iterable[tuple[npt.ArrayLike, str]]
    if isinstance(truth, SegmentationSet):
        maps = ((truth.index_map(index), str(truth.files[index])) for index in range(len(truth)))
    else:
        maps = ((each, "") for each in truth)
    missing = object()
    others = iter(predictions)
    count = 0
    for each, name in maps:
        found = next(others, missing)
        if found is missing:
            raise ValueError(f"`predictions` has {count} maps and `truth` more; they must be the same number")
        count += 1
        yield np.asarray(each), np.asarray(found), name
    if next(others, missing) is not missing:
        raise ValueError(f"`predictions` has more maps than `truth`, which has {count}; they must be the same number")


def _confusion(
    truth: npt.NDArray[np.generic], found: npt.NDArray[np.generic], n: int, ignore: int, where: str
) -> npt.NDArray[np.int64]:
    for what, each in (("truth", truth), ("prediction", found)):
        if each.dtype.kind not in "iu" or each.ndim != 2:
            raise DataError(f"the {what} of {where} is {each.dtype} {each.shape}; it must be integers [h, w]")
    if truth.shape != found.shape:
        raise DataError(
            f"the prediction of {where} has {found.shape[1]} x {found.shape[0]} pixels; its truth has "
            f"{truth.shape[1]} x {truth.shape[0]}"
        )
    counts = truth != ignore
    pair = [each[counts].astype(np.int64) for each in (truth, found)]
    for what, each in zip(("truth", "prediction"), pair, strict=True):
        bad = (each < 0) | (each >= n)
        if bad.any():
            raise DataError(
                f"the {what} of {where} has the index {each[bad.argmax()]}; there are {n} classes, 0 to {n - 1}"
            )
    return np.bincount(n * pair[0] + pair[1], minlength=n * n).reshape(n, n)


def _shares(
    right: npt.NDArray[np.int64], of_truth: npt.NDArray[np.int64], of_found: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    union = of_truth + of_found - right
    return np.where(union > 0, right / np.maximum(union, 1), np.nan)


def _mean(shares: npt.NDArray[np.float64]) -> float:
    defined = shares[~np.isnan(shares)]
    return float(defined.mean()) if len(defined) else float("nan")
