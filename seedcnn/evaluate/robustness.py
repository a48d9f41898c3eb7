"""Accuracy under common corruptions, generated on the fly: no corrupted data set is downloaded or stored."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from seedcnn.data.corruptions import CORRUPTIONS, GROUPS, SEVERITIES, corrupt
from seedcnn.errors import DataError
from seedcnn.evaluate.accuracy import Predict, check_labels, correct_mask, predict_logits

__all__ = ["RobustnessTable", "robustness", "robustness_many"]

Progress = Callable[[int, int], None]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


@dataclass(frozen=True)
class RobustnessTable:
    """Top-1 accuracies under corruption, raw, and the two averages in use.

    Attributes:
        accuracies: by corruption, one number in percent per severity.
        severities: the severities, in the order of the numbers.
        n: pictures behind each number.
        constants, seed: as given to ``corrupt``.
        standard_error: of ``mean_over_corruptions`` for new pictures, in percentage points: the spread over pictures
            of their share of right answers. It does not cover another draw of the noise or another training. None
            for a single picture.
    """

    accuracies: Mapping[str, tuple[float, ...]]
    severities: tuple[int, ...]
    n: int
    constants: str
    seed: int
    standard_error: float | None

    @property
    def corruption_means(self) -> dict[str, float]:
        """Mean over the severities, by corruption."""
        return {name: _mean(row) for name, row in self.accuracies.items()}

    @property
    def group_means(self) -> dict[str, float]:
        """Mean over a group's corruptions, for the groups that are present."""
        means = self.corruption_means
        members = {group: [means[name] for name in means if CORRUPTIONS[name].group == group] for group in GROUPS}
        return {group: _mean(values) for group, values in members.items() if values}

    @property
    def mean_over_corruptions(self) -> float:
        """Each corruption counts once."""
        return _mean(list(self.corruption_means.values()))

    @property
    def mean_over_groups(self) -> float:
        """Each group counts once: the papers' "mean", where they do not use the other one."""
        return _mean(list(self.group_means.values()))

    @property
    def severity_means(self) -> dict[int, float]:
        """Mean over the corruptions, by severity."""
        columns = zip(*self.accuracies.values(), strict=True)
        return {severity: _mean(column) for severity, column in zip(self.severities, columns, strict=True)}

    def to_dict(self) -> dict[str, Any]:
        """Raw numbers, averages and conditions, ready for JSON."""
        return {
            "accuracies": {name: list(row) for name, row in self.accuracies.items()},
            "severities": list(self.severities),
            "groups": {name: CORRUPTIONS[name].group for name in self.accuracies},
            "corruption_means": self.corruption_means,
            "group_means": self.group_means,
            "mean_over_corruptions": self.mean_over_corruptions,
            "mean_over_groups": self.mean_over_groups,
            "standard_error": self.standard_error,
            "n": self.n,
            "constants": self.constants,
            "seed": self.seed,
        }

    def to_csv(self) -> str:
        """One line per corruption and severity: corruption,group,severity,accuracy,n."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["corruption", "group", "severity", "accuracy", "n"])
        for name, row in self.accuracies.items():
            for severity, value in zip(self.severities, row, strict=True):
                writer.writerow([name, CORRUPTIONS[name].group, severity, f"{value:.4f}", self.n])
        return text.getvalue()


def _check_lists(corruptions: Sequence[str], severities: Sequence[int]) -> None:
    for what, values, known in (("corruptions", corruptions, CORRUPTIONS), ("severities", severities, SEVERITIES)):
        if isinstance(values, str) or not values or len(set(values)) != len(values):
            raise ValueError(f"`{what}` (={values!r}) must be a sequence of at least one, none twice")
        for value in values:
            if value not in known:
                raise ValueError(f"`{what}` holds {value!r}; known: {', '.join(map(str, known))}")


def robustness_many(
    predictors: Mapping[str, Predict],
    images: npt.NDArray[np.uint8],
    labels: npt.ArrayLike,
    *,
    corruptions: Sequence[str] = tuple(CORRUPTIONS),
    severities: Sequence[int] = SEVERITIES,
    constants: str = "cifar",
    seed: int = 0,
    batch_size: int = 500,
    max_images: int | None = None,
    frost_dir: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, RobustnessTable]:
    """Accuracy of several models on the same corrupted pictures; each batch is corrupted once and then forgotten.

    Args:
        predictors: by model name, uint8 [n, H, W, 3] to logits [n, classes].
        images: uint8 [N, H, W, 3].
        labels: N integers.
        corruptions: keys of ``seedcnn.data.corruptions.CORRUPTIONS``.
        severities: of 1 to 5.
        constants: "cifar" or "imagenet".
        seed: of the random corruptions; a picture's index in ``images`` is its address.
        batch_size: pictures corrupted and judged at a time; the result does not depend on it.
        max_images: use only the first so many pictures; None uses all.
        frost_dir: see :func:`seedcnn.data.corruptions.corrupt`.
        progress: called after each corrupted batch with (corrupted pictures done, in total).

    Returns:
        One table per model, in the order of ``predictors``.

    Raises:
        ValueError: if an argument has a wrong type, shape or value.
        DataError: if logits hold NaN or a label is out of range, naming the model, the corruption and the picture; or
            if frost is asked for and its pictures cannot be had.
    """
    _check_lists(corruptions, severities)
    if not predictors:
        raise ValueError("`predictors` is empty; at least one model is needed")
    if batch_size < 1:
        raise ValueError(f"`batch_size` (={batch_size}) must be at least 1")
    if max_images is not None and max_images < 1:
        raise ValueError(f"`max_images` (={max_images}) must be at least 1")
    checked = check_labels(images, labels)[:max_images]
    images = images[:max_images]
    if not len(images):
        raise ValueError("`images` is empty; at least one picture is needed")
    conditions = _Conditions(tuple(corruptions), tuple(severities), constants, seed, frost_dir)
    return _measure(predictors, images, checked, conditions, batch_size, progress)


@dataclass(frozen=True)
class _Conditions:
    corruptions: tuple[str, ...]
    severities: tuple[int, ...]
    constants: str
    seed: int
    frost_dir: Path | None


def _measure(
    predictors: Mapping[str, Predict],
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    at: _Conditions,
    batch_size: int,
    progress: Progress | None,
) -> dict[str, RobustnessTable]:
    n = len(images)
    cells = [(name, severity) for name in at.corruptions for severity in at.severities]
    right = {model: dict.fromkeys(cells, 0) for model in predictors}
    per_picture = {model: np.zeros(n, np.int64) for model in predictors}
    done = 0
    for start in range(0, n, batch_size):
        where = np.arange(start, min(start + batch_size, n))
        for name, severity in cells:
            batch = corrupt(
                images[where],
                name,
                severity,
                constants=at.constants,
                seed=at.seed,
                indices=where,
                frost_dir=at.frost_dir,
            )
            for model, predict in predictors.items():
                try:
                    logits = predict_logits(predict, batch, batch_size, first=start)
                    correct = correct_mask(logits, labels[where], first=start)
                except DataError as error:
                    raise DataError(f"model {model!r} under {name} {severity}: {error}") from error
                right[model][name, severity] += int(correct.sum())
                per_picture[model][where] += correct
            done += len(where)
            if progress is not None:
                progress(done, n * len(cells))
    tables = {}
    for model in predictors:
        rows = {name: tuple(100 * right[model][name, s] / n for s in at.severities) for name in at.corruptions}
        shares = per_picture[model] / len(cells)
        spread = 100 * float(shares.std(ddof=1)) / n**0.5 if n > 1 else None
        tables[model] = RobustnessTable(rows, at.severities, n, at.constants, at.seed, spread)
    return tables


def robustness(
    predict: Predict,
    images: npt.NDArray[np.uint8],
    labels: npt.ArrayLike,
    *,
    corruptions: Sequence[str] = tuple(CORRUPTIONS),
    severities: Sequence[int] = SEVERITIES,
    constants: str = "cifar",
    seed: int = 0,
    batch_size: int = 500,
    max_images: int | None = None,
    frost_dir: Path | None = None,
    progress: Progress | None = None,
) -> RobustnessTable:
    """Accuracy of one model under corruption; arguments and errors as for ``robustness_many``."""
    return robustness_many(
        {"model": predict},
        images,
        labels,
        corruptions=corruptions,
        severities=severities,
        constants=constants,
        seed=seed,
        batch_size=batch_size,
        max_images=max_images,
        frost_dir=frost_dir,
        progress=progress,
    )["model"]
