"""A model's answers to labelled images: by class, classes confused, the worst answers, and beside another model."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from seedcnn import html
from seedcnn.arrays import F32
from seedcnn.data.image_set import ImageSet
from seedcnn.evaluate.accuracies import Accuracy, Predict, accuracy_of_logits, check_labels, predict_logits
from seedcnn.messages import Advance
from seedcnn.processes import Processes

__all__ = ["READABLE", "Answer", "Answers", "ClassAccuracy", "Confused", "Difference", "ask"]

READABLE = 50
"""Classes of a matrix or a list that can be read."""


@dataclass(frozen=True)
class ClassAccuracy:
    """The accuracy of one class.

    Attributes:
        name: of the class.
        n: number of its images.
        top1: percent of them that are answered correctly; None without an image.
        standard_error: of ``top1`` for new images of the class, in percentage points: binomial, after half an image
            more was answered correctly and half an image wrongly (Jeffreys), since few images prove nothing.
        answered: number of images of any class that are answered with this one.
    """

    name: str
    n: int
    top1: float | None
    standard_error: float | None
    answered: int


@dataclass(frozen=True)
class Confused:
    """Two classes of which one is answered for the other: the true class, the answer, and the number of images."""

    label: str
    answer: str
    count: int


@dataclass(frozen=True)
class Answer:
    """The answer to one image.

    Attributes:
        index: of the image in its set.
        name: path of the image in its data set; "" if images have no names.
        label: the true class.
        answer: the class answered.
        confidence: softmax of the answer, 0 to 1.
        of_label: softmax of the true class.
    """

    index: int
    name: str
    label: str
    answer: str
    confidence: float
    of_label: float


@dataclass(frozen=True)
class Difference:
    """Two models compared image by image.

    Attributes:
        points: accuracy of the first less that of the second, in percentage points.
        standard_error: of ``points`` for new images; at least that of one image on which they differ. Both models saw
            the same images, so it is smaller than that of two accuracies measured apart.
        won, lost: number of images that only the first, and only the second, answers correctly.
    """

    points: float
    standard_error: float
    won: int
    lost: int


@dataclass(frozen=True, eq=False)
class Answers:
    """A model's answers to labelled images. In a notebook it shows itself as a table.

    Attributes:
        logits: float32 [N, classes].
        labels: int64 [N].
        classes: the class names, by label.
        names: strings [N], paths of the images; None if they have no names.

    Raises:
        DataError: if the number of classes does not match.
    """

    logits: F32
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    names: npt.NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        accuracy_of_logits(self.logits, self.labels, len(self.classes))

    @cached_property
    def accuracy(self) -> Accuracy:
        """Top-1 and top-5 accuracy over all images."""
        return accuracy_of_logits(self.logits, self.labels, len(self.classes))

    @property
    def top1(self) -> float:
        """Top-1 accuracy in percent."""
        return self.accuracy.top1

    @property
    def standard_error(self) -> float:
        """Standard error of ``top1`` for new images, in percentage points."""
        return self.accuracy.standard_error

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.labels)

    @cached_property
    def answered(self) -> npt.NDArray[np.int64]:
        """The classes answered, int64 [N]; of equal logits the first counts."""
        return self.logits.argmax(axis=1).astype(np.int64)

    @cached_property
    def confusion(self) -> npt.NDArray[np.int64]:
        """Number of images by true class (rows) and class answered (columns), int64 [classes, classes]."""
        count = len(self.classes)
        places = self.labels * count + self.answered
        return np.bincount(places, minlength=count**2).reshape(count, count).astype(np.int64)

    @cached_property
    def by_class(self) -> tuple[ClassAccuracy, ...]:
        """The accuracy of each class, in the order of the labels."""
        counts, right, answered = self.confusion.sum(axis=1), self.confusion.diagonal(), self.confusion.sum(axis=0)
        found = []
        for name, n, hits, said in zip(self.classes, counts.tolist(), right.tolist(), answered.tolist(), strict=True):
            share = (hits + 0.5) / (n + 1)
            error = 100 * math.sqrt(share * (1 - share) / n) if n else None
            found.append(ClassAccuracy(name, n, 100 * hits / n if n else None, error, said))
        return tuple(found)

    def hardest(self, count: int = READABLE) -> list[int]:
        """The labels of all classes, in order; of more than ``count`` those that are answered worst, worst first."""
        if len(self.classes) <= count:
            return list(range(len(self.classes)))
        accuracies = [(row.top1, label) for label, row in enumerate(self.by_class) if row.top1 is not None]
        return [label for _, label in sorted(accuracies)[:count]]

    def confused(self, count: int = 20) -> tuple[Confused, ...]:
        """The pairs of classes that are taken for each other most often, at most ``count``, largest first."""
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:count]
        pairs = [divmod(place, len(self.classes)) for place in order.tolist()]
        return tuple(
            Confused(self.classes[true], self.classes[said], int(wrong[true, said]))
            for true, said in pairs
            if wrong[true, said]
        )

    @cached_property
    def _probabilities(self) -> npt.NDArray[np.float64]:
        """Softmax of the logits, float64 [N, classes]; infinite logits share the whole."""
        logits = self.logits.astype(np.float64)
        largest = logits.max(axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):
            powers = np.exp(np.where(logits == largest, 0.0, logits - largest))
        return powers / powers.sum(axis=1, keepdims=True)

    @cached_property
    def of_labels(self) -> npt.NDArray[np.float64]:
        """Softmax of the true class by image, float64 [N], 0 to 1."""
        return np.take_along_axis(self._probabilities, self.labels[:, None], axis=1)[:, 0]

    def worst(self, count: int = 20) -> tuple[Answer, ...]:
        """The wrong answers that give the true class the smallest share, at most ``count``, worst first."""
        order = [i for i in np.argsort(self.of_labels, kind="stable").tolist() if self.answered[i] != self.labels[i]]
        return tuple(self.answer(index) for index in order[:count])

    def answer(self, index: int) -> Answer:
        """The answer to one image."""
        label, said = int(self.labels[index]), int(self.answered[index])
        shares = self._probabilities[index]
        name = "" if self.names is None else str(self.names[index])
        return Answer(index, name, self.classes[label], self.classes[said], float(shares[said]), float(shares[label]))

    def less(self, other: Answers) -> Difference:
        """Compare with another model's answers to the same images.

        Raises:
            ValueError: if the images are not the same: their number or their labels differ.
        """
        if not np.array_equal(self.labels, other.labels):
            raise ValueError(f"`other` answers {other.n} images with other labels; both must answer the same images")
        ours, theirs = self.accuracy.correct, other.accuracy.correct
        gained = 100.0 * ours - 100.0 * theirs
        error = max(float(gained.std()) / math.sqrt(self.n), 100.0 / self.n)
        return Difference(float(gained.mean()), error, int((ours & ~theirs).sum()), int((theirs & ~ours).sum()))

    def to_dict(self) -> dict[str, Any]:
        """Accuracy, by class, and the classes confused, ready for JSON; the whole matrix for at most 50 classes."""
        by_class = {
            each.name: {"n": each.n, "top1": each.top1, "standard_error": each.standard_error} for each in self.by_class
        }
        return {
            "top1": self.top1,
            "top5": self.accuracy.top5,
            "n": self.n,
            "standard_error": self.standard_error,
            "by_class": by_class,
            "confused": [asdict(each) for each in self.confused(READABLE)],
            "worst": [asdict(each) for each in self.worst()],
            **({"confusion": self.confusion.tolist()} if len(self.classes) <= READABLE else {}),
        }

    def __repr__(self) -> str:
        return f"Answers(top1={self.top1:.2f} ± {self.standard_error:.2f} %, n={self.n}, classes={len(self.classes)})"

    def _repr_html_(self) -> str:
        """The accuracy of each class and its most frequent wrong answer, as a notebook shows it."""
        wrong = {each.label: each for each in reversed(self.confused(len(self.classes) ** 2))}
        rows = []
        for each in [self.by_class[label] for label in self.hardest()]:
            accuracy = "no image" if each.top1 is None else f"{each.top1:.1f} ± {each.standard_error:.1f}"
            taken = wrong.get(each.name)
            often = "" if taken is None else f"{taken.answer} ({taken.count})"
            rows.append((each.name, each.n, accuracy, often))
        rest = len(self.classes) - len(rows)
        about = html.paragraph(f"Top-1 accuracy {self.top1:.2f} ± {self.standard_error:.2f} % of {self.n:,} images")
        classes = html.table(("class", "images", "accuracy, %", "most often taken for"), rows)
        return about + classes + (html.paragraph(f"and {rest} classes more") if rest > 0 else "")


def ask(
    predict: Predict,
    images: ImageSet,
    *,
    batch_size: int = 500,
    advance: Advance | None = None,
    processes: Processes | None = None,
) -> Answers:
    """Ask a model about all images of a set.

    Args:
        predict: uint8 [n, H, W, C] to logits [n, classes].
        images: at least one.
        batch_size: images per call of ``predict``.
        advance, processes: as for :func:`seedcnn.evaluate.accuracies.predict_logits`.

    Raises:
        ValueError: if there is no image.
        DataError: if logits hold NaN (the message names the first image), or the number of classes does not match.
    """
    labels = check_labels(images.images, images.labels)
    logits = predict_logits(predict, images.images, batch_size, advance=advance, processes=processes)
    return Answers(logits, labels, images.classes, images.names)
