"""The models of an evaluation, and its results."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from seedcnn.data.sets.named import NamedTest
from seedcnn.evaluate.accuracies import Accuracy, Predict
from seedcnn.evaluate.papers import PaperRow
from seedcnn.evaluate.robustness_runs import CSV_COLUMNS, SeededRobustness
from seedcnn.evaluate.styles import StyleTable

__all__ = ["Evaluated", "Opened"]


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
    """

    predict: Predict
    digest: str
    kind: str
    module: nn.Module | None = None
    published: tuple[str, str] | None = None
    file_bytes: int | None = None


@dataclass(frozen=True, eq=False)
class Evaluated:
    """The results of an evaluation, by model; measurements that were not requested are empty.

    Attributes:
        data: the test set.
        clean: accuracy without corruption.
        corrupted: accuracy under corruption.
        styles: accuracy by style.
        papers: rows of the papers' tables for the same network, method and images.
    """

    data: NamedTest
    clean: Mapping[str, Accuracy]
    corrupted: Mapping[str, SeededRobustness]
    styles: Mapping[str, StyleTable]
    papers: Mapping[str, Sequence[PaperRow]]

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
        for name, clean in self.clean.items():
            row: dict[str, Any] = {"clean": clean.top1, "clean_top5": clean.top5, "n": clean.n}
            if name in self.corrupted:
                row["corrupted"] = self.corrupted[name].to_dict()
            if name in self.styles:
                row["styles"] = self.styles[name].to_dict()
            row["papers"] = [paper.to_dict() for paper in self.papers.get(name, ())]
            rows[name] = row
        return rows
