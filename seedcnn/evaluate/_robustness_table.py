"""The results of a robustness evaluation: one table for each seed, and a summary over seeds and images."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from seedcnn import html
from seedcnn.data.corruptions import CORRUPTIONS, GROUPS, SEVERITIES
from seedcnn.evaluate._mce import FIGURES, figures
from seedcnn.messages import counted

__all__ = ["CSV_COLUMNS", "MARK", "RobustnessTable", "SeededRobustness", "Summary", "footnote"]

Bools = npt.NDArray[np.bool_]
MARK = " *"
"""After the accuracy under a corruption that was part of the training."""
CSV_COLUMNS = ("measure", "corruption", "group", "severity", "value", "n", "seed")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def footnote(seen: Collection[Sequence[str]]) -> str:
    """A sentence about :data:`MARK`, for tables with these corruptions seen in training; "" if there are none."""
    names = {name for each in seen for name in each}
    noise = {name for name in names if CORRUPTIONS[name].group == "Noise"}
    kinds = (["noise"] if noise else []) + [name for name in CORRUPTIONS if name in names - noise]
    return f"* {', '.join(kinds)} seen in training; the averages contain such rows." if kinds else ""


@dataclass(frozen=True)
class RobustnessTable:
    """Top-1 accuracies under corruption, and their averages.

    Attributes:
        accuracies: by corruption, one number in percent for each severity.
        severities: the severities, in the order of the numbers.
        n: number of images behind each accuracy.
        constants, seed: as given to ``corrupt``; ``constants`` is "published files" for images that were not generated.
        standard_error: of ``mean_over_corruptions`` for new images, in percentage points, from the spread over images
            of their share of right answers. It covers neither another draw of the noise nor another training. None
            for a single image.
        clean: accuracy in percent on the same images without corruption; None if not measured.
        right: by corruption, bool [severities, n], which images were classified correctly; None if not kept.
        clean_right: bool [n], the same without corruption.
        seen: those of the corruptions whose kind was part of the training; they say less about other corruptions, and
            the averages hold them.
    """

    accuracies: Mapping[str, tuple[float, ...]]
    severities: tuple[int, ...]
    n: int
    constants: str
    seed: int
    standard_error: float | None
    clean: float | None = None
    right: Mapping[str, Bools] | None = field(default=None, compare=False, repr=False)
    clean_right: Bools | None = field(default=None, compare=False, repr=False)
    seen: tuple[str, ...] = ()

    def marked(self, seen: Collection[str]) -> RobustnessTable:
        """The same table that says which corruptions were part of the training; names that it lacks are left out."""
        return replace(self, seen=tuple(name for name in self.accuracies if name in seen))

    @property
    def corruption_means(self) -> dict[str, float]:
        """Mean over the severities, by corruption."""
        return {name: _mean(row) for name, row in self.accuracies.items()}

    @property
    def group_means(self) -> dict[str, float]:
        """Mean over a group's corruptions, for the groups of which some were measured."""
        means = self.corruption_means
        members = {group: [means[name] for name in means if CORRUPTIONS[name].group == group] for group in GROUPS}
        return {group: _mean(values) for group, values in members.items() if values}

    @property
    def mean_over_corruptions(self) -> float:
        """Mean accuracy in which each corruption counts once."""
        return _mean(list(self.corruption_means.values()))

    @property
    def mean_over_groups(self) -> float:
        """Mean accuracy in which each group counts once. The papers print this or the other mean as "mean"."""
        return _mean(list(self.group_means.values()))

    @property
    def severity_means(self) -> dict[int, float]:
        """Mean over the corruptions, by severity."""
        columns = zip(*self.accuracies.values(), strict=True)
        return {severity: _mean(column) for severity, column in zip(self.severities, columns, strict=True)}

    @property
    def figures(self) -> dict[str, float | None]:
        """Both plain means, the mean corruption error, mCE and relative mCE over the standard 15 and over all 19.

        The errors are None unless each of their corruptions was measured at all five severities, since a number over a
        subset would be mistaken for the whole; relative mCE is also None without ``clean``. For the definitions, see
        :func:`seedcnn.evaluate._mce.figures`.
        """
        return figures(self.corruption_means, self.clean, complete=set(self.severities) == set(SEVERITIES))

    def image_scores(self) -> dict[str, npt.NDArray[np.float64]] | None:
        """Each figure as float64 [n], one number for each image, whose mean is the figure; None without ``right``.

        Figures that are None are left out.
        """
        if self.right is None:
            return None
        means = {name: 100 * self.right[name].mean(axis=0) for name in self.accuracies}
        clean = None if self.clean_right is None else 100.0 * self.clean_right
        scores = figures(means, clean, complete=set(self.severities) == set(SEVERITIES))
        return {name: score for name, score in scores.items() if score is not None}

    def to_dict(self) -> dict[str, Any]:
        """Raw numbers, averages and conditions, ready for JSON."""
        return {
            "accuracies": {name: list(row) for name, row in self.accuracies.items()},
            "severities": list(self.severities),
            "groups": {name: CORRUPTIONS[name].group for name in self.accuracies},
            "corruption_means": self.corruption_means,
            "group_means": self.group_means,
            **self.figures,
            "clean": self.clean,
            "standard_error": self.standard_error,
            "n": self.n,
            "constants": self.constants,
            "seed": self.seed,
            "seen_in_training": list(self.seen),
        }

    def _about(self) -> str:
        error = "" if self.standard_error is None else f" ± {self.standard_error:.2f}"
        clean = "" if self.clean is None else f", clean {self.clean:.2f} %"
        return (
            f"{self.mean_over_corruptions:.2f}{error} % under {counted(len(self.accuracies), 'corruption')} at "
            f"{len(self.severities)} severities{clean}, n={self.n:,}"
        )

    def __repr__(self) -> str:
        return f"RobustnessTable({self._about()}, constants={self.constants!r}, seed={self.seed})"

    def _repr_html_(self) -> str:
        """Accuracy by corruption and severity, and the averages, as a notebook shows them."""
        heads = ("corruption", "group", *(f"severity {each}" for each in self.severities), "mean")
        means = self.corruption_means
        rows = [
            (
                name + MARK * (name in self.seen),
                CORRUPTIONS[name].group,
                *(f"{value:.2f}" for value in row),
                f"{means[name]:.2f}",
            )
            for name, row in self.accuracies.items()
        ]
        by_severity = (f"{value:.2f}" for value in self.severity_means.values())
        rows.append(("mean", "", *by_severity, f"{self.mean_over_corruptions:.2f}"))
        known = [(name, f"{value:.2f}") for name, value in self.figures.items() if value is not None]
        about = html.paragraph(f"Top-1 accuracy in percent: {self._about()}")
        note = html.paragraph(footnote({self.seen})) if self.seen else ""
        return f"{about}{html.table(heads, rows)}{note}{html.table(('figure', ''), known)}"

    def csv_rows(self) -> list[list[Any]]:
        """The rows of :meth:`to_csv`, without the header."""
        rows: list[list[Any]] = []
        if self.clean is not None:
            rows.append(["accuracy", "none", "", 0, f"{self.clean:.4f}", self.n, self.seed])
        for name, row in self.accuracies.items():
            for severity, value in zip(self.severities, row, strict=True):
                rows.append(["accuracy", name, CORRUPTIONS[name].group, severity, f"{value:.4f}", self.n, self.seed])
        for name, figure in self.figures.items():
            rows.append([name, "", "", "", "" if figure is None else f"{figure:.4f}", self.n, self.seed])
        return rows

    def to_csv(self) -> str:
        """One row for each corruption and severity (clean accuracy has severity 0), and one for each figure.

        The columns are measure, corruption, group, severity, value, n, seed; a figure that is None has no value.
        """
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([CSV_COLUMNS, *self.csv_rows()])
        return text.getvalue()


@dataclass(frozen=True)
class Summary:
    """A figure over seeds.

    Attributes:
        mean: over the seeds.
        std: standard deviation over the seeds (n - 1), which tells how other draws of the corruptions would differ;
            None for a single seed.
        interval: confidence interval of the mean for new images, from percentiles of a bootstrap over images. It covers
            neither another draw of the corruptions nor another training. None for a single image, or where the answers
            by image were not kept.
    """

    mean: float
    std: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class SeededRobustness:
    """The tables of one model, one for each seed of the corruptions.

    Raises:
        ValueError: if there is no table, two tables have the same seed, or tables differ in more than their seed.
    """

    tables: tuple[RobustnessTable, ...]

    def __post_init__(self) -> None:
        if not self.tables:
            raise ValueError("`tables` is empty; at least one is needed")
        alike = {(tuple(t.accuracies), t.severities, t.n, t.constants, t.clean) for t in self.tables}
        if len(alike) > 1:
            raise ValueError("`tables` differ in corruptions, severities, images or constants; only seeds may differ")
        if len({table.seed for table in self.tables}) < len(self.tables):
            raise ValueError(
                f"`tables` has the seeds {[table.seed for table in self.tables]}; each may occur only once"
            )

    @property
    def seen(self) -> tuple[str, ...]:
        """The corruptions whose kind was part of the training."""
        return self.tables[0].seen

    def marked(self, seen: Collection[str]) -> SeededRobustness:
        """The same tables that say which corruptions were part of the training."""
        return SeededRobustness(tuple(table.marked(seen) for table in self.tables))

    def told_mean(self, name: str, digits: int = 2) -> str:
        """:meth:`corruption_mean` as text, with :data:`MARK` if the corruption was part of the training."""
        return f"{self.corruption_mean(name):.{digits}f}{MARK * (name in self.seen)}"

    def corruption_mean(self, name: str) -> float:
        """Mean accuracy over severities and seeds, in percent."""
        return _mean([table.corruption_means[name] for table in self.tables])

    def summary(self, *, draws: int = 1000, seed: int = 0, level: float = 0.95) -> dict[str, Summary | None]:
        """Mean, spread and interval of each figure; None where the figure is None.

        Args:
            draws: number of bootstrap samples.
            seed: of the bootstrap; the same images are drawn for every model and figure.
            level: share of the samples inside the interval.

        Raises:
            ValueError: if ``draws`` is below 2 or ``level`` is not between 0 and 1.
        """
        if draws < 2:
            raise ValueError(f"`draws` (={draws}) must be at least 2")
        if not 0 < level < 1:
            raise ValueError(f"`level` (={level}) must be between 0 and 1")
        by_table = [table.figures for table in self.tables]
        intervals = self._intervals(draws, seed, level)
        found: dict[str, Summary | None] = {}
        for name in FIGURES:
            values = [value for row in by_table if (value := row[name]) is not None]
            spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
            found[name] = Summary(_mean(values), spread, intervals.get(name)) if values else None
        return found

    def _intervals(self, draws: int, seed: int, level: float) -> dict[str, tuple[float, float]]:
        by_table = [scores for table in self.tables if (scores := table.image_scores()) is not None]
        n = self.tables[0].n
        if len(by_table) < len(self.tables) or n < 2:
            return {}
        names = list(by_table[0])
        # One row for each image, averaged over seeds: a draw of images keeps all its answers together.
        scores_NF = np.stack([np.mean([row[name] for row in by_table], axis=0) for name in names], axis=1)
        rng = np.random.default_rng(seed)
        counts = (np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(draws))
        means_DF = np.stack([count_N @ scores_NF / n for count_N in counts])
        low_F, high_F = np.quantile(means_DF, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return {name: (float(low_F[i]), float(high_F[i])) for i, name in enumerate(names)}

    def to_dict(self) -> dict[str, Any]:
        """The summary of the figures and the raw tables, ready for JSON."""
        summaries = {
            name: None if s is None else {"mean": s.mean, "std": s.std, "interval_95": s.interval and list(s.interval)}
            for name, s in self.summary().items()
        }
        return {
            "n": self.tables[0].n,
            "seeds": [table.seed for table in self.tables],
            "figures": summaries,
            "tables": [table.to_dict() for table in self.tables],
        }
