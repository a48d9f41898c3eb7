"""Average precision of boxes: COCO's twelve numbers through faster-coco-eval, and PASCAL VOC's AP50 by both rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from seedcnn import html
from seedcnn.data.dense.detection_set import DetectionSet
from seedcnn.evaluate._coco_ap import MOST, coco_numbers
from seedcnn.evaluate._voc_ap import voc_ap50
from seedcnn.evaluate.detections import Detections, Flat, flat
from seedcnn.evaluate.resampling import Interval, resamples
from seedcnn.messages import counted

__all__ = ["RULES", "AveragePrecision", "average_precision"]

RULES = ("coco", "voc2007", "voc2010")
"""COCO's; VOC's mean over 11 recalls (to 2009); VOC's area under the curve (from 2010)."""


@dataclass(frozen=True, eq=False)
class AveragePrecision:
    """A measured average precision; all numbers are shares of 1, None where there is no truth to find.

    Attributes:
        rule: one of :data:`RULES`.
        numbers: by name. COCO: AP (mean over IoU .5 to .95), AP50, AP75, APs, APm, APl (areas below 32 x 32, to
            96 x 96, above), AR1, AR10, AR100 (detections a picture), ARs, ARm, ARl. VOC: AP50.
        by_class: AP (COCO) or AP50 (VOC) by class.
        by_class_50: AP50 by class.
        intervals: 95 % intervals by name (AP and AP50, or AP50), over pictures; empty without a bootstrap.
        pictures, objects, detections: how many there are; objects that do not count (crowds, VOC's difficult) are not
            in it.
        notes: sentences about what is left out of the numbers.
    """

    rule: str
    numbers: Mapping[str, float | None]
    by_class: Mapping[str, float | None]
    by_class_50: Mapping[str, float | None]
    pictures: int
    objects: int
    detections: int
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def _sentence(self) -> str:
        shown = []
        for name in ("AP", "AP50"):
            if name in self.numbers:
                value = self.numbers[name]
                spread = self.intervals.get(name)
                between = f" [{100 * spread[0]:.1f}, {100 * spread[1]:.1f}]" if spread else ""
                shown.append(f"{name} " + ("-" if value is None else f"{100 * value:.1f}{between}"))
        return f"{', '.join(shown)} ({self.rule}), {counted(self.pictures, 'picture')}"

    def __repr__(self) -> str:
        return f"AveragePrecision({self._sentence()})"

    def _repr_html_(self) -> str:
        """The numbers in a sentence, as a notebook shows it."""
        return html.paragraph(self._sentence())


def average_precision(
    truth: DetectionSet,
    detections: Sequence[Detections],
    *,
    rule: str = "coco",
    num_classes: int | None = None,
    bootstrap: int = 0,
    seed: int = 0,
) -> AveragePrecision:
    """Measure detections against the boxes of a set.

    COCO's rule (Lin et al., 2014; ``cocoapi``): the 100 detections of a picture and class with the highest scores, ten
    IoU thresholds, precision at 101 recalls; detections on a crowd do not count. Difficult objects count like others.
    VOC's rules (Everingham et al., 2010, section 4.2; devkits of 2007 and 2010): IoU of at least .5 with the object of
    the largest overlap; difficult objects and crowds, and detections on them, do not count. Of equal scores the
    earlier detection comes first.

    Args:
        truth: pictures with boxes.
        detections: one for each picture of ``truth``, in its order; see :class:`Detections`. None at all is fine.
        rule: one of :data:`RULES`.
        num_classes: of the network; it must be that of ``truth``. None does not check it.
        bootstrap: number of resamples of pictures for the intervals; 0 for none.
        seed: of the bootstrap, in [0, 2**64).

    Raises:
        ValueError: if an argument is out of range, or there is not one ``Detections`` for each picture.
        DataError: if a box or a score is not finite, a box is reversed, a label is not a class of ``truth``, or
            ``num_classes`` is not that of ``truth``; the message names picture, detection, value and rule.
    """
    if rule not in RULES:
        raise ValueError(f"`rule` (={rule!r}) must be one of {', '.join(RULES)}")
    if not len(truth):
        raise ValueError("`truth` has no picture; one at least is needed")
    found = flat(truth, detections, num_classes)
    drawn = resamples(len(truth), bootstrap, seed)
    if rule == "coco":
        numbers, table, intervals = coco_numbers(truth, found, drawn)
        by_class, by_class_50 = table
        counts = ~truth.crowd
    else:
        by_class_50, numbers, intervals = voc_ap50(truth, found, drawn, eleven=rule == "voc2007")
        by_class = by_class_50
        counts = ~(truth.crowd | truth.difficult)
    return AveragePrecision(
        rule,
        numbers,
        dict(zip(truth.classes, by_class, strict=True)),
        dict(zip(truth.classes, by_class_50, strict=True)),
        len(truth),
        int(counts.sum()),
        len(found.scores),
        intervals if bootstrap else {},
        tuple(_notes(truth, found, by_class, counts, rule)),
    )


def _notes(
    truth: DetectionSet, found: Flat, by_class: Sequence[float | None], counts: np.ndarray, rule: str
) -> list[str]:
    notes = []
    absent = [name for name, value in zip(truth.classes, by_class, strict=True) if value is None]
    if absent:
        shown = ", ".join(absent[:5]) + (f" and {len(absent) - 5} more" if len(absent) > 5 else "")
        notes.append(f"{len(absent)} of {len(truth.classes)} classes have no object and are left out: {shown}")
    if not len(found.scores):
        notes.append("there is no detection at all")
    if rule == "coco":
        owner = np.repeat(np.arange(len(truth)), np.diff(truth.offsets))
        objects = np.bincount((owner * len(truth.classes) + truth.labels)[counts], minlength=1)
        if (over := objects > MOST).any():
            pictures = np.unique(np.flatnonzero(over) // len(truth.classes))
            notes.append(
                f"{counted(len(pictures), 'picture')} with more than {MOST} objects of a class (at most "
                f"{objects.max()}): COCO counts {MOST} detections a picture and class, so not all of them can be found"
            )
        if truth.difficult.any():
            notes.append(f"{int(truth.difficult.sum())} difficult objects count like others by COCO's rule")
    return notes
