"""Accuracy by style: how well a network classifies images in a style that it never saw in training (Icons-50)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from seedcnn.arrays import F32
from seedcnn.errors import did_you_mean
from seedcnn.evaluate.accuracies import (
    Accuracy,
    Predict,
    accuracy_of_logits,
    check_labels,
    correct_mask,
    predict_logits,
)

__all__ = ["StyleTable", "accuracy_by_style", "style_table"]


@dataclass(frozen=True, eq=False)
class StyleTable:
    """Accuracies by style.

    In the papers' protocol, a network of its own is trained for each held-out style, and the mean over four styles is a
    mean over four networks. For that, build the table from their accuracies:
    ``StyleTable({"apple": ..., ...}, ("apple", ...))``.

    Attributes:
        accuracies: accuracies by style.
        held_out: the styles that the network was not trained on.

    Raises:
        ValueError: if there is no style, or ``held_out`` names an unknown style or one twice.
    """

    accuracies: Mapping[str, Accuracy]
    held_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "held_out", _checked(self.held_out, self.accuracies))

    @property
    def mean_held_out(self) -> float | None:
        """Mean top-1 accuracy over the held-out styles in percent; None if no style was held out.

        Each style counts once, however many images it has, as in Table 8 of GroupNL and of MonoCNN.
        """
        if not self.held_out:
            return None
        return sum(self.accuracies[style].top1 for style in self.held_out) / len(self.held_out)

    @property
    def standard_error(self) -> float | None:
        """Standard error of ``mean_held_out`` for new images of these styles, in points; None if no style was held out.

        It covers neither other styles nor another training.
        """
        if not self.held_out:
            return None
        return math.hypot(*(self.accuracies[style].standard_error for style in self.held_out)) / len(self.held_out)

    def to_dict(self) -> dict[str, Any]:
        """The numbers of each style and their mean, ready for JSON."""
        accuracies = {
            style: {"top1": each.top1, "top5": each.top5, "n": each.n, "standard_error": each.standard_error}
            for style, each in self.accuracies.items()
        }
        return {
            "accuracies": accuracies,
            "held_out": list(self.held_out),
            "mean_held_out": self.mean_held_out,
            "standard_error": self.standard_error,
        }


def _checked(held_out: Sequence[str], styles: Iterable[str]) -> tuple[str, ...]:
    known = list(styles)
    if not known:
        raise ValueError("`accuracies` is empty; at least one style is needed")
    if isinstance(held_out, str):
        raise ValueError(f"`held_out` (={held_out!r}) must be a sequence of styles, not a string")
    for style in held_out:
        if style not in known:
            hint = did_you_mean(style, known)
            raise ValueError(f"`held_out` holds {style!r}; {hint}the styles are {', '.join(known)}")
    if len(set(held_out)) != len(held_out):
        raise ValueError(f"`held_out` (={tuple(held_out)!r}) must not name a style twice")
    return tuple(held_out)


def accuracy_by_style(
    predict: Predict,
    images: npt.NDArray[np.uint8],
    labels: npt.ArrayLike,
    styles: npt.ArrayLike,
    *,
    held_out: Sequence[str] = (),
    batch_size: int = 500,
    num_classes: int | None = None,
) -> StyleTable:
    """Accuracy for each style, from one pass over the images.

    Args:
        predict: uint8 [n, H, W, C] to logits [n, classes].
        images: uint8 [N, H, W, C], N >= 1.
        labels: N integers in [0, classes).
        styles: N strings, the style of each image, as ``ImageSet.styles``.
        held_out: the styles that the network was not trained on.
        batch_size: images per call of ``predict``.
        num_classes: number of classes that the model must answer; None accepts any that covers the labels.

    Returns:
        The table, styles in alphabetical order.

    Raises:
        ValueError: if an argument has a wrong type or shape, or ``held_out`` names a style that no image has (the
            message lists similar ones) or one twice; this is checked before anything is computed.
        DataError: if logits hold NaN (the message names the first image), a label is out of range, or the number of
            classes does not match.
    """
    names, _ = _by_style(styles, len(images))
    if names:
        held_out = _checked(held_out, names)
    checked = check_labels(images, labels)
    logits = predict_logits(predict, images, batch_size)
    correct_mask(logits, checked, num_classes)  # so that an error gives an image's index in the set, not in its style
    return style_table(logits, checked, styles, held_out=held_out, num_classes=num_classes)


def _by_style(styles: npt.ArrayLike, count: int) -> tuple[list[str], npt.NDArray[np.int64]]:
    """The styles in alphabetical order, and the place of each image's style among them."""
    column = np.asarray(styles)
    if column.dtype.kind != "U" or column.shape != (count,):
        raise ValueError(
            f"`styles` is {column.dtype} {column.shape}; it must hold one string for each image, ({count},)"
        )
    names, which = np.unique(column, return_inverse=True)
    return names.tolist(), which


def style_table(
    logits: F32,
    labels: npt.NDArray[np.int64],
    styles: npt.ArrayLike,
    *,
    held_out: Sequence[str] = (),
    num_classes: int | None = None,
) -> StyleTable:
    """Accuracy for each style, from logits.

    Args:
        logits: float32 [N, classes].
        labels: int64 [N], not negative.
        styles, held_out, num_classes: as for :func:`accuracy_by_style`.

    Raises:
        ValueError, DataError: as :func:`accuracy_by_style`.
    """
    names, which = _by_style(styles, len(labels))
    accuracies = {
        style: accuracy_of_logits(logits[which == rank], labels[which == rank], num_classes)
        for rank, style in enumerate(names)
    }
    return StyleTable(accuracies, _checked(held_out, names))
