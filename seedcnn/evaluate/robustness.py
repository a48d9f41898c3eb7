"""Accuracy under common corruptions, generated on the fly: no corrupted data set is downloaded or stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np
import numpy.typing as npt

from seedcnn import __version__
from seedcnn.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from seedcnn.errors import DataError
from seedcnn.evaluate._mce import FIGURES
from seedcnn.evaluate._robustness_table import CSV_COLUMNS, RobustnessTable, SeededRobustness, Summary
from seedcnn.evaluate.accuracy import Predict, check_labels, correct_mask, predict_logits
from seedcnn.evaluate.record import CLEAN, EvaluationRecord, pictures_digest

__all__ = [
    "CSV_COLUMNS",
    "FIGURES",
    "RobustnessOptions",
    "RobustnessTable",
    "SeededRobustness",
    "Summary",
    "robustness",
    "robustness_many",
    "robustness_seeds",
]

Bools = npt.NDArray[np.bool_]
Progress = Callable[[int, int], None]


class RobustnessOptions(TypedDict, total=False):
    """Options of :func:`robustness_seeds`, which explains them."""

    corruptions: Sequence[str]
    severities: Sequence[int]
    constants: str
    batch_size: int
    max_images: int | None
    frost_dir: Path | None
    progress: Progress | None
    record: Path | None
    digests: Mapping[str, str] | None


def _check_lists(corruptions: Sequence[str], severities: Sequence[int], seeds: Sequence[int]) -> None:
    for what, values in (("corruptions", corruptions), ("severities", severities), ("seeds", seeds)):
        if isinstance(values, str) or not values or len(set(values)) != len(values):
            raise ValueError(f"`{what}` (={values!r}) must be a sequence of at least one, none twice")
    for what, values, known in (("corruptions", corruptions, CORRUPTIONS), ("severities", severities, SEVERITIES)):
        for value in values:
            if value not in known:
                raise ValueError(f"`{what}` holds {value!r}; known: {', '.join(map(str, known))}")


@dataclass(frozen=True)
class _Evaluation:
    """The models, the pictures, and what both are put through."""

    predictors: Mapping[str, Predict]
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    severities: tuple[int, ...]
    constants: str
    batch_size: int
    frost_dir: Path | None

    def _ask(self, pictures: npt.NDArray[np.uint8], where: npt.NDArray[np.int64], told: str) -> Iterator[Bools]:
        first = int(where[0])
        for model, predict in self.predictors.items():
            try:
                logits = predict_logits(predict, pictures, self.batch_size, first=first)
                yield correct_mask(logits, self.labels[where], first=first)
            except DataError as error:
                raise DataError(f"model {model!r} {told}: {error}") from error

    def _batches(self) -> Iterator[npt.NDArray[np.int64]]:
        for start in range(0, len(self.images), self.batch_size):
            yield np.arange(start, min(start + self.batch_size, len(self.images)))

    def clean(self) -> dict[str, Bools]:
        """Bool [1, n] by model: right without corruption."""
        right = {model: np.zeros((1, len(self.images)), bool) for model in self.predictors}
        for where in self._batches():
            answers = self._ask(self.images[where], where, "on clean pictures")
            for row, answer in zip(right.values(), answers, strict=True):
                row[0, where] = answer
        return right

    def corrupted(self, name: str, seed: int, done: Callable[[int], None]) -> dict[str, Bools]:
        """Bool [severities, n] by model: right under one corruption; ``done`` hears how many pictures were judged."""
        right = {model: np.zeros((len(self.severities), len(self.images)), bool) for model in self.predictors}
        for where in self._batches():
            for index, severity in enumerate(self.severities):
                batch = corrupt(
                    self.images[where],
                    name,
                    severity,
                    constants=self.constants,
                    seed=seed,
                    indices=where,
                    frost_dir=self.frost_dir,
                )
                answers = self._ask(batch, where, f"under {name} {severity}")
                for rows, answer in zip(right.values(), answers, strict=True):
                    rows[index, where] = answer
                done(len(where))
        return right

    def record(self, path: Path, digests: Mapping[str, str] | None, seeds: Sequence[int]) -> EvaluationRecord:
        if digests is None or set(digests) != set(self.predictors):
            raise ValueError(
                f"`digests` (={digests!r}) must give the digest of each model, {', '.join(self.predictors)}, "
                "so that a record can tell whether it is of these models"
            )
        conditions = {
            "seedcnn": __version__,
            "models": {model: digests[model] for model in self.predictors},
            "pictures": {"n": len(self.images), "sha256": pictures_digest(self.images, self.labels)},
            "constants": self.constants,
            "severities": list(self.severities),
            "seeds": list(seeds),
        }
        return EvaluationRecord(path, conditions, len(self.severities), len(self.images))


def _table(
    model: str, seed: int, at: _Evaluation, clean: Mapping[str, Bools], right: Mapping[str, Mapping[str, Bools]]
) -> RobustnessTable:
    n = len(at.images)
    kept = {name: answers[model] for name, answers in right.items()}
    rows = {name: tuple((100 * mask.sum(axis=1) / n).tolist()) for name, mask in kept.items()}
    shares = np.mean([mask.mean(axis=0) for mask in kept.values()], axis=0)
    spread = 100 * float(shares.std(ddof=1)) / n**0.5 if n > 1 else None
    share = 100 * int(clean[model].sum()) / n
    return RobustnessTable(rows, at.severities, n, at.constants, seed, spread, share, kept, clean[model][0])


def _measure(
    at: _Evaluation,
    corruptions: Sequence[str],
    seeds: Sequence[int],
    record: EvaluationRecord | None,
    progress: Progress | None,
) -> dict[str, SeededRobustness]:
    each = len(at.images) * len(at.severities)
    finished, total = 0, each * len(corruptions) * len(seeds)

    def done(pictures: int) -> None:
        nonlocal finished
        finished += pictures
        if progress is not None:
            progress(finished, total)

    clean = record.get(None, CLEAN) if record is not None else None
    if clean is None:
        clean = at.clean()
        if record is not None:
            record.put(None, CLEAN, clean)
    right: dict[int, dict[str, dict[str, Bools]]] = {seed: {} for seed in seeds}
    for seed in seeds:
        for name in corruptions:
            found = record.get(seed, name) if record is not None else None
            if found is not None:
                done(each)
            elif seed != seeds[0] and CORRUPTIONS[name].draw is None:  # nothing random: the same for every seed
                found = right[seeds[0]][name]
                done(each)
            else:
                found = at.corrupted(name, seed, done)
                if record is not None:
                    record.put(seed, name, found)
            right[seed][name] = found
    return {m: SeededRobustness(tuple(_table(m, s, at, clean, right[s]) for s in seeds)) for m in at.predictors}


def robustness_seeds(
    predictors: Mapping[str, Predict],
    images: npt.NDArray[np.uint8],
    labels: npt.ArrayLike,
    *,
    seeds: Sequence[int] = (0,),
    corruptions: Sequence[str] = tuple(CORRUPTIONS),
    severities: Sequence[int] = SEVERITIES,
    constants: str = "cifar",
    batch_size: int = 500,
    max_images: int | None = None,
    frost_dir: Path | None = None,
    progress: Progress | None = None,
    record: Path | None = None,
    digests: Mapping[str, str] | None = None,
) -> dict[str, SeededRobustness]:
    """Accuracy of several models on the same corrupted pictures; each batch is corrupted once and then forgotten.

    Args:
        predictors: by model name, uint8 [n, H, W, 3] to logits [n, classes].
        images: uint8 [N, H, W, 3].
        labels: N integers.
        seeds: of the random corruptions; a picture's index in ``images`` is its address.
        corruptions: keys of ``seedcnn.data.corruptions.CORRUPTIONS``.
        severities: of 1 to 5.
        constants: "cifar" or "imagenet".
        batch_size: pictures corrupted and judged at a time; the result does not depend on it.
        max_images: use only the first so many pictures; None uses all.
        frost_dir: see :func:`seedcnn.data.corruptions.corrupt`.
        progress: called after each corrupted batch, or corruption found in the record, with (corrupted pictures done,
            in total).
        record: a file to keep every answer in, written after each corruption. If it is there, what it holds is not
            measured again.
        digests: by model name, a text that changes with the model, such as the SHA-256 of its file; with ``record``.

    Returns:
        One result per model, in the order of ``predictors``, with one table per seed.

    Raises:
        ValueError: if an argument has a wrong type, shape or value.
        DataError: if logits hold NaN or a label is out of range, naming the model, the corruption and the picture; if
            frost is asked for and its pictures cannot be had; if the record is damaged, cannot be written, or was made
            with other models, pictures, seeds, severities, constants or another version of seedcnn (named).
    """
    _check_lists(corruptions, severities, seeds)
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
    for name in corruptions:  # a wrong argument or missing frost is told now, not after an hour
        for seed in seeds:
            corrupt(images[:0], name, severities[0], constants=constants, seed=seed, frost_dir=frost_dir)
    at = _Evaluation(predictors, images, checked, tuple(severities), constants, batch_size, frost_dir)
    kept = None if record is None else at.record(record, digests, seeds)
    return _measure(at, corruptions, seeds, kept, progress)


def robustness_many(
    predictors: Mapping[str, Predict],
    images: npt.NDArray[np.uint8],
    labels: npt.ArrayLike,
    *,
    seed: int = 0,
    **options: Unpack[RobustnessOptions],
) -> dict[str, RobustnessTable]:
    """One table per model for one seed; arguments, options and errors as for :func:`robustness_seeds`."""
    found = robustness_seeds(predictors, images, labels, seeds=(seed,), **options)
    return {model: result.tables[0] for model, result in found.items()}


def robustness(
    predict: Predict,
    images: npt.NDArray[np.uint8],
    labels: npt.ArrayLike,
    *,
    seed: int = 0,
    **options: Unpack[RobustnessOptions],
) -> RobustnessTable:
    """The table of one model, named "model"; arguments, options and errors as for :func:`robustness_seeds`."""
    return robustness_many({"model": predict}, images, labels, seed=seed, **options)["model"]
