"""The models of an evaluation, and its results."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from seedcnn.data.sets.named import NamedTest
from seedcnn.evaluate.accuracies import Accuracy, Predict, flip_averaging
from seedcnn.evaluate.answers import Answers, Difference
from seedcnn.evaluate.papers import PaperRow
from seedcnn.evaluate.robustness_runs import CSV_COLUMNS, SeededRobustness
from seedcnn.evaluate.styles import StyleTable

__all__ = ["Evaluated", "Opened", "short_names"]

_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Opened:
    """A model, ready to answer.

    Attributes:
        predict: uint8 [N, H, W, 3] to logits [N, classes].
        digest: a text that changes with the model and with its preprocessing.
        kind: the kind of model in a word, such as "bundle".
        module: the torch network, for models that have one.
        published: the model and method of a network of the papers, such as ("resnet18_cifar", "groupnl"), whose rows
            are then shown with it; None for any other network.
        file_bytes: size of the file that is shipped, for a bundle.
        seen: corruptions of a kind that was part of its training, which tables mark; () where nothing is known of it.
    """

    predict: Predict
    digest: str
    kind: str
    module: nn.Module | None = None
    published: tuple[str, str] | None = None
    file_bytes: int | None = None
    seen: tuple[str, ...] = ()

    def flip_averaged(self) -> Opened:
        """The model that averages its answers to an image and to its mirror image, which its kind and digest say.

        The papers' rows are of single answers, so none belongs to it.
        """
        predict, kind = flip_averaging(self.predict), f"{self.kind}, flip-averaged"
        return replace(self, predict=predict, digest=f"{self.digest}, flip-averaged", kind=kind, published=None)


@dataclass(frozen=True, eq=False)
class Evaluated:
    """The results of an evaluation, by model; measurements that were not requested are empty.

    Attributes:
        data: the test set.
        answers: answers to the images without corruption.
        corrupted: accuracy under corruption.
        styles: accuracy by style.
        papers: rows of the papers' tables for the same network, method and images.
    """

    data: NamedTest
    answers: Mapping[str, Answers]
    corrupted: Mapping[str, SeededRobustness]
    styles: Mapping[str, StyleTable]
    papers: Mapping[str, Sequence[PaperRow]]

    @property
    def clean(self) -> dict[str, Accuracy]:
        """Accuracy without corruption."""
        return {name: found.accuracy for name, found in self.answers.items()}

    @property
    def differences(self) -> dict[str, Difference]:
        """The accuracy of every other model less that of the first one, image by image."""
        (_, first), *others = self.answers.items()
        return {name: found.less(first) for name, found in others}

    def renamed(self, names: Mapping[str, str]) -> Evaluated:
        """The same results under other names of the models.

        Args:
            names: of all models, new by old.
        """

        def named(found: Mapping[str, _T]) -> dict[str, _T]:
            return {names[old]: each for old, each in found.items()}

        corrupted, styles, papers = named(self.corrupted), named(self.styles), named(self.papers)
        return Evaluated(self.data, named(self.answers), corrupted, styles, papers)

    def to_csv(self) -> str:
        """The accuracies under corruption as CSV, one number for each line: the model, then ``CSV_COLUMNS``."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["model", *CSV_COLUMNS])
        for name, result in self.corrupted.items():
            writer.writerows([name, *row] for table in result.tables for row in table.csv_rows())
        return text.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """All numbers by model, ready for JSON."""
        rows: dict[str, Any] = {}
        differences = self.differences
        for name, found in self.answers.items():
            about = found.to_dict()
            row: dict[str, Any] = {"clean": about.pop("top1"), "clean_top5": about.pop("top5"), **about}
            if name in differences:
                row["difference"] = asdict(differences[name])
            if name in self.corrupted:
                row["corrupted"] = self.corrupted[name].to_dict()
            if name in self.styles:
                row["styles"] = self.styles[name].to_dict()
            row["papers"] = [paper.to_dict() for paper in self.papers.get(name, ())]
            rows[name] = row
        return rows


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Names for tables: paths without the directories that all of them share; others stay as they are.

    Paths stay as they are, too, if two names would become the same.
    """
    paths = [name for name in names if not name.startswith("timm:")]
    parents = {str(Path(name).parent) for name in paths}
    if not paths or len({Path(name).is_absolute() for name in paths}) > 1:
        return {name: name for name in names}
    common = os.path.commonpath(parents)
    short = {name: os.path.relpath(name, common) if name in paths else name for name in names}
    return short if len(set(short.values())) == len(names) else {name: name for name in names}
