"""The sections of the report on single classes and images: differences, accuracy by class, confusion, worst images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from seedcnn.data.image_set import ImageSet
from seedcnn.evaluate.answers import READABLE, Answers
from seedcnn.evaluate.report.blocks import Cell, Column, Line, Section, Table, minus
from seedcnn.evaluate.report.robustness import HEAT_STEPS
from seedcnn.evaluate.report.rows import Sample

__all__ = ["Confusion", "answer_sections", "worst_samples"]

_NO_IMAGE = Cell("no image", absent=True)


@dataclass(frozen=True)
class Confusion:
    """The classes that one model confuses: its name, a sentence, the matrix or a list of pairs, and a CSS class."""

    model: str
    about: str
    table: Table
    kind: str


def differences_section(answers: Mapping[str, Answers]) -> Section | None:
    """Every other model beside the first one, image by image; None for a single model."""
    (first, base), *others = answers.items()
    lines = []
    for name, found in others:
        less = found.less(base)
        counts = [Cell(f"{less.won:,}"), Cell(f"{less.lost:,}")]
        lines.append(Line(name, "", [Cell(f"{minus(less.points)} ± {less.standard_error:.2f}"), *counts]))
    if not lines:
        return None
    about = (
        f"Top-1 accuracy less that of {first}, in points, ± standard error. Both answer the same images, so the error "
        "is that of the images on which they differ."
    )
    columns = [Column("Difference"), Column("Only it is right", "images"), Column(f"Only {first} is right", "images")]
    return Section(about, Table("Model", columns, [lines], "figures"))


def _class_cell(found: Answers, label: int) -> Cell:
    row = found.by_class[label]
    if row.top1 is None:
        return _NO_IMAGE
    return Cell(f"{row.top1:.1f} ± {row.standard_error:.1f}")


def classes_section(answers: Mapping[str, Answers]) -> Section:
    """Accuracy by class, of many classes the worst ones of the first model."""
    first = next(iter(answers.values()))
    order = first.hardest()
    about = "Top-1 accuracy in percent, ± standard error, by true class."
    if len(order) < len(first.classes):
        about += f" The {len(order)} classes of {len(first.classes)} that the first model answers worst."
    rows = first.by_class
    lines = [
        Line(rows[label].name, f"n = {rows[label].n:,}", [_class_cell(each, label) for each in answers.values()])
        for label in order
    ]
    return Section(about, Table("Class", [Column(name) for name in answers], [lines], "figures"))


def _matrix(found: Answers) -> Table:
    counts = found.confusion
    totals = counts.sum(axis=1, keepdims=True)
    steps = np.minimum(counts * HEAT_STEPS // np.maximum(totals, 1), HEAT_STEPS - 1)
    lines = [
        Line(
            f"{label + 1} {name}",
            "",
            [Cell(str(count) if count else "", mark=f"h{step}") for count, step in zip(row, shades, strict=True)],
        )
        for label, (name, row, shades) in enumerate(zip(found.classes, counts.tolist(), steps.tolist(), strict=True))
    ]
    return Table("True class", [Column(str(label + 1)) for label in range(len(found.classes))], [lines], "heat matrix")


def _pairs(found: Answers) -> Table:
    lines = [Line(each.label, "", [Cell(each.answer), Cell(f"{each.count:,}")]) for each in found.confused(READABLE)]
    return Table("True class", [Column("Answer"), Column("Images")], [lines], "figures")


def confusions(answers: Mapping[str, Answers]) -> list[Confusion]:
    """For each model the matrix of true classes and answers; of more than 50 classes the pairs confused most often."""
    found = []
    for name, each in answers.items():
        if len(each.classes) <= READABLE:
            about = "Images by true class (row) and answer (column, numbered as the rows)."
            found.append(
                Confusion(name, f"{about} The stronger, the larger the share of the row.", _matrix(each), "box")
            )
        elif pairs := each.confused(READABLE):
            about = f"The {len(pairs)} pairs of true class and wrong answer that occur most often."
            found.append(Confusion(name, about, _pairs(each), "box fit"))
    return found


def answer_sections(answers: Mapping[str, Answers] | None) -> dict[str, Any]:
    """The sections by their names in the template; empty ones without answers."""
    if not answers:
        return {"differences": None, "classes": None, "confusions": []}
    return {
        "differences": differences_section(answers),
        "classes": classes_section(answers),
        "confusions": confusions(answers),
    }


def worst_samples(answers: Mapping[str, Answers], images: ImageSet, count: int = 20) -> list[Sample]:
    """The images whose true class gets the smallest share, on average over the models, of those a model gets wrong."""
    wrong = np.zeros(len(images), bool)
    shares = np.zeros(len(images))
    for each in answers.values():
        wrong |= ~each.accuracy.correct
        shares += each.of_labels / len(answers)
    order = [index for index in np.argsort(shares, kind="stable").tolist() if wrong[index]]
    return [_sample(answers, images, index) for index in order[:count]]


def _sample(answers: Mapping[str, Answers], images: ImageSet, index: int) -> Sample:
    rows = {name: each.answer(index) for name, each in answers.items()}
    first = next(iter(rows.values()))
    shares: Sequence[float] = [row.of_label for row in rows.values()]
    sure = f"{100 * sum(shares) / len(shares):.1f} % for the true class"
    caption = ", ".join(filter(None, (first.name, sure)))
    said = {name: row.answer for name, row in rows.items()}
    sureness = {name: f"{100 * row.confidence:.0f} %" for name, row in rows.items()}
    return Sample(images.images[index], first.label, caption, said, sureness)
