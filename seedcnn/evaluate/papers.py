"""Accuracies that the GroupNL and MonoCNN papers print, under our names, to compare with measured ones."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from seedcnn.convert import METHODS
from seedcnn.data.corruptions import CORRUPTIONS, GROUPS
from seedcnn.errors import ConfigError, DataError, did_you_mean

__all__ = ["DATASETS", "UNSTATED", "PaperRow", "PaperTable", "paper_rows", "paper_tables"]

DATASETS = ("cifar10", "cifar100", "gtsrb", "cifar10-c", "icons50")
"""The data sets of the rows."""

UNSTATED = "unstated"
"""The ``model`` of rows whose paper does not name the network (MonoCNN, Tables 7 and 8)."""

_VANILLA = "vanilla"
_GROUP_SIZES = {group: sum(c.group == group for c in CORRUPTIONS.values()) for group in GROUPS}


@dataclass(frozen=True)
class PaperRow:
    """One row of a paper's table.

    Attributes:
        table: for example "Table 7(a)".
        paper: "GroupNL" or "MonoCNN".
        dataset: one of :data:`DATASETS`.
        model: a name of ``create_model``, or :data:`UNSTATED`.
        method: "vanilla", or a key of ``seedcnn.convert.config.METHODS``.
        values: top-1 accuracies in percent, as printed. "top1" for clean images; "Noise", "Blur", "Weather",
            "Digital" and "mean" for CIFAR-10-C; "apple", "facebook", "google", "samsung" (the style held out) and
            "mean" for Icons-50.
        note: the setting, and known oddities of the numbers.
        spread: the number that the paper prints after a plus-minus sign, by the same keys, in points; empty where it
            prints none. The note says what varied.
    """

    table: str
    paper: str
    dataset: str
    model: str
    method: str
    values: Mapping[str, float]
    note: str = ""
    spread: Mapping[str, float] = field(default_factory=dict)

    def recomputed_means(self) -> dict[str, float]:
        """Both averages of a CIFAR-10-C row from its group values, in percent; empty for other rows.

        The papers print one or the other as "mean" (see ``note``). The keys are those of ``RobustnessTable.figures``:
        "mean_over_groups", and "mean_over_corruptions", which weights each group by its number of corruptions.
        """
        if not set(_GROUP_SIZES) <= set(self.values):
            return {}
        groups = {group: self.values[group] for group in _GROUP_SIZES}
        weighted = sum(size * groups[group] for group, size in _GROUP_SIZES.items())
        return {
            "mean_over_corruptions": weighted / sum(_GROUP_SIZES.values()),
            "mean_over_groups": sum(groups.values()) / len(groups),
        }

    def to_dict(self) -> dict[str, Any]:
        """All attributes and the recomputed means, ready for JSON."""
        return {
            "table": self.table,
            "paper": self.paper,
            "dataset": self.dataset,
            "model": self.model,
            "method": self.method,
            "values": dict(self.values),
            "spread": dict(self.spread),
            "note": self.note,
            **self.recomputed_means(),
        }


@dataclass(frozen=True)
class PaperTable:
    """A table of a paper: which one, and its rows in the paper's order."""

    paper: str
    table: str
    rows: tuple[PaperRow, ...]


def paper_tables() -> tuple[PaperTable, ...]:
    """All tables in the package: GroupNL 1, 6, 7 and 8, MonoCNN 1, 7 and 8 (accuracies only).

    Raises:
        DataError: if the file in the package is damaged.
    """
    text = resources.files("seedcnn.evaluate").joinpath("paper_rows.json").read_text("utf-8")
    try:
        return tuple(_table(each) for each in json.loads(text)["tables"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"paper_rows.json in the package seedcnn.evaluate cannot be read ({type(error).__name__}: {error}); "
            "reinstall the package"
        ) from error


def _table(content: Mapping[str, Any]) -> PaperTable:
    paper, table = content["paper"], content["table"]
    rows = [
        PaperRow(
            table,
            paper,
            row["dataset"],
            row["model"],
            row["method"],
            row["values"],
            " ".join(filter(None, (content["note"], row.get("note")))),
            row.get("spread", {}),
        )
        for row in content["rows"]
    ]
    return PaperTable(paper, table, tuple(rows))


def paper_rows(dataset: str, model: str | None = None, method: str | None = None) -> list[PaperRow]:
    """The printed rows of a network, in the order of the papers and tables.

    Args:
        dataset: one of :data:`DATASETS`.
        model: a name of ``create_model``, or :data:`UNSTATED`; None for all.
        method: "vanilla" or a key of ``METHODS``; None for all.

    Returns:
        The rows, possibly none. A network may have several: GroupNL prints ResNet-101 on CIFAR-10 in Tables 1 and 6.
        With a ``model``, rows of an unstated network are left out.

    Raises:
        ConfigError: if a name is unknown; near names are listed.
    """
    from seedcnn.models.registry import list_models  # not at the top: it imports timm, which takes seconds

    _check("data set", dataset, DATASETS)
    if model is not None:
        _check("model", model, [*list_models("classification"), UNSTATED])
    if method is not None:
        _check("method", method, [_VANILLA, *METHODS])
    rows = [row for table in paper_tables() for row in table.rows if row.dataset == dataset]
    return [row for row in rows if model in (None, row.model) and method in (None, row.method)]


def _check(what: str, name: str, known: Iterable[str]) -> None:
    names = list(known)
    if name not in names:
        hint = did_you_mean(name, names)
        raise ConfigError(f"unknown {what} {name!r}; {hint}known: {', '.join(names)}")
