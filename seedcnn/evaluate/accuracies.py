"""Top-1 and top-5 accuracy of anything that turns images into logits: a torch module, an ONNX file, a bundle."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from seedcnn import html
from seedcnn.arrays import F32
from seedcnn.convert.given import evaluating, logits_of
from seedcnn.data.transforms import normalize
from seedcnn.errors import DataError
from seedcnn.messages import Advance
from seedcnn.processes import Processes

__all__ = [
    "Accuracy",
    "Predict",
    "accuracy",
    "accuracy_of_logits",
    "check_labels",
    "correct_mask",
    "flip_averaging",
    "predict_logits",
    "top_mask",
    "torch_predictor",
]

Predict = Callable[[npt.NDArray[np.uint8]], F32]
"""uint8 [N, H, W, 3] to float32 logits [N, classes]."""


@dataclass(frozen=True, eq=False)
class Accuracy:
    """A measured accuracy.

    Attributes:
        top1: in percent.
        n: number of images.
        standard_error: of ``top1`` as an estimate for new images, in percentage points (binomial).
        correct: bool [n], by image.
        top5: in percent; None where there are at most five classes, since top-5 accuracy is then always 100.
    """

    top1: float
    n: int
    standard_error: float
    correct: npt.NDArray[np.bool_]
    top5: float | None = None

    def __repr__(self) -> str:
        top5 = "" if self.top5 is None else f", top5={self.top5:.2f}"
        return f"Accuracy(top1={self.top1:.2f} ± {self.standard_error:.2f} %{top5}, n={self.n})"

    def _repr_html_(self) -> str:
        """The accuracy in a sentence, as a notebook shows it."""
        top5 = "" if self.top5 is None else f", top-5 {self.top5:.2f} %"
        return html.paragraph(
            f"Top-1 accuracy {self.top1:.2f} ± {self.standard_error:.2f} %{top5}, of {self.n:,} images"
        )


def flip_averaging(predict: Predict) -> Predict:
    """Average the logits of each image and of its mirror image, at twice the cost.

    It adds half a point to a point and a half on CIFAR-10, so a number that was measured with it must say so.
    """

    def answer(images: npt.NDArray[np.uint8]) -> F32:
        both = predict(images), predict(np.ascontiguousarray(images[:, :, ::-1]))
        return ((both[0] + both[1]) / 2).astype(np.float32)

    return answer


def _check_images(images: npt.NDArray[np.uint8], batch_size: int) -> None:
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(f"`images` is {images.dtype} {images.shape}; it must be uint8 [N, H, W, C]")
    if not len(images):
        raise ValueError("`images` is empty; at least one image is needed")
    if batch_size < 1:
        raise ValueError(f"`batch_size` (={batch_size}) must be at least 1")


def predict_logits(
    predict: Predict,
    images: npt.NDArray[np.uint8],
    batch_size: int = 500,
    *,
    first: int = 0,
    advance: Advance | None = None,
    processes: Processes | None = None,
) -> F32:
    """Logits of all images, computed batch by batch.

    Args:
        predict: uint8 [n, H, W, C] to floating-point logits [n, classes].
        images: uint8 [N, H, W, C], N >= 1.
        batch_size: images per call.
        first: index of ``images[0]`` in messages.
        advance: called after each batch with its number of images.
        processes: which share the batches; all of them call this function. None for this process alone.

    Returns:
        float32 [N, classes].

    Raises:
        ValueError: if the images or the batch size are not as above.
        DataError: if the model answers in another shape or type, or with NaN; the message names the first such image.
    """
    _check_images(images, batch_size)
    starts = range(0, len(images), batch_size)

    def answer(piece: int) -> F32:
        batch = images[starts[piece] : starts[piece] + batch_size]
        return _checked_logits(predict(batch), len(batch), first + starts[piece])

    sizes = [min(batch_size, len(images) - start) for start in starts]
    told = None if advance is None else lambda amount, _: advance(amount)
    answers = (processes or Processes()).share(sizes, answer, told)
    classes = answers[0].shape[1]
    for start, logits in zip(starts, answers, strict=True):
        if logits.shape[1] != classes:
            raise DataError(
                f"the model answers {logits.shape[1]} classes from image {first + start} on, but {classes} before"
            )
    return np.concatenate(answers)


def _checked_logits(answer: npt.ArrayLike, count: int, first: int) -> F32:
    """The answer to ``count`` images, the first of which has the index ``first``, as float32 [count, classes]."""
    logits = np.asarray(answer)
    if logits.ndim != 2 or len(logits) != count or logits.dtype.kind != "f" or not logits.shape[1]:
        raise DataError(
            f"for the {count} images from {first} the model answers {logits.dtype} {logits.shape}; "
            f"expected floating-point logits [{count}, classes]"
        )
    bad = np.isnan(logits).any(axis=1)
    if bad.any():
        raise DataError(f"the model's logits for image {first + int(bad.argmax())} hold NaN")
    return logits.astype(np.float32)


def check_labels(images: npt.NDArray[np.uint8], labels: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """The labels as int64 [N].

    Raises:
        ValueError: if they are not integers, or not one per image.
        DataError: if one is negative; the message names the first such image.
    """
    array = np.asarray(labels)
    if array.dtype.kind not in "iu" or array.shape != (len(images),):
        raise ValueError(f"`labels` is {array.dtype} {array.shape}; it must be integers [{len(images)}], one per image")
    array = array.astype(np.int64)
    if (array < 0).any():
        where = int((array < 0).argmax())
        raise DataError(f"the label of image {where} is {array[where]}; labels start at 0")
    return array


def correct_mask(
    logits: F32, labels: npt.NDArray[np.int64], num_classes: int | None = None, *, first: int = 0
) -> npt.NDArray[np.bool_]:
    """Which images are classified correctly, bool [N]; of equal logits the first counts.

    Args:
        logits: [N, classes].
        labels: int64 [N], not negative.
        num_classes: number of classes that the logits must have; None accepts any.
        first: index of ``labels[0]`` in messages.

    Raises:
        DataError: if a label has no logit, or the number of classes is not ``num_classes``.
    """
    classes = logits.shape[1]
    if num_classes is not None and classes != num_classes:
        raise DataError(f"the model answers {classes} classes; the data have {num_classes}")
    if labels.max() >= classes:
        where = int((labels >= classes).argmax())
        raise DataError(f"the label of image {first + where} is {labels[where]}; the model answers {classes} classes")
    return logits.argmax(axis=1) == labels


def top_mask(logits: F32, labels: npt.NDArray[np.int64], k: int) -> npt.NDArray[np.bool_]:
    """Whether the label's logit is among the ``k`` largest, bool [N]; of equal logits the first count.

    Args:
        logits: [N, classes].
        labels: int64 [N], each below the number of classes.
        k: at least 1.
    """
    own_N1 = np.take_along_axis(logits, labels[:, None], axis=1)
    earlier_NC = np.arange(logits.shape[1])[None, :] < labels[:, None]
    before_N = ((logits > own_N1) | ((logits == own_N1) & earlier_NC)).sum(axis=1)
    return before_N < k


def accuracy(
    predict: Predict,
    images: npt.NDArray[np.uint8],
    labels: npt.ArrayLike,
    *,
    batch_size: int = 500,
    num_classes: int | None = None,
    advance: Advance | None = None,
    processes: Processes | None = None,
) -> Accuracy:
    """Top-1 and top-5 accuracy.

    Args:
        predict: uint8 [n, H, W, C] to logits [n, classes].
        images: uint8 [N, H, W, C], N >= 1.
        labels: N integers in [0, classes).
        batch_size: images per call of ``predict``.
        num_classes: number of classes that the model must answer; None accepts any that covers the labels.
        advance, processes: as for :func:`predict_logits`.

    Raises:
        ValueError: if an argument has a wrong type or shape.
        DataError: if logits hold NaN (the message names the first image), a label is out of range, or the number of
            classes does not match.
    """
    _check_images(images, batch_size)
    checked = check_labels(images, labels)
    logits = predict_logits(predict, images, batch_size, advance=advance, processes=processes)
    return accuracy_of_logits(logits, checked, num_classes)


def accuracy_of_logits(logits: F32, labels: npt.NDArray[np.int64], num_classes: int | None = None) -> Accuracy:
    """Top-1 and top-5 accuracy of given logits.

    Args:
        logits: float32 [N, classes].
        labels: int64 [N], not negative.
        num_classes: number of classes that the logits must have; None accepts any that covers the labels.

    Raises:
        DataError: if a label has no logit, or the number of classes is not ``num_classes``.
    """
    correct = correct_mask(logits, labels, num_classes)
    share, n = float(correct.mean()), len(correct)
    top5 = 100 * float(top_mask(logits, labels, 5).mean()) if logits.shape[1] > 5 else None
    return Accuracy(100 * int(correct.sum()) / n, n, 100 * math.sqrt(share * (1 - share) / n), correct, top5)


def torch_predictor(model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> Predict:
    """Make a ``Predict`` from a torch module that takes normalised [N, C, H, W] images.

    Each call runs in eval mode under ``torch.inference_mode``, on the device and in the dtype of the model's first
    floating-point parameter, and leaves every submodule's training flag as it was.

    Args:
        model: a module whose output is logits [N, classes], or holds them (see
            :func:`seedcnn.convert.given.logits_entry`).
        mean, std: per channel, on the 0..1 scale (see ``seedcnn.data.transforms.normalize``).

    The predictor raises ``DataError`` for an output without logits.
    """
    mean, std = tuple(mean), tuple(std)

    def predict(images: npt.NDArray[np.uint8]) -> F32:
        parameter = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
        # torch warns about arrays that it cannot write to, such as memory maps.
        array = images if images.flags.writeable else images.copy()
        with evaluating(model):
            x_NCHW = torch.from_numpy(array).to(parameter.device).permute(0, 3, 1, 2)
            logits = logits_of(model(normalize(x_NCHW, mean, std, parameter.dtype)))
        return logits.float().cpu().numpy()

    return predict
