"""The loops of a robustness evaluation over models, images and corruptions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from seedcnn import __version__
from seedcnn.data.corruptions import CORRUPTIONS, corrupt
from seedcnn.data.sets.official import OfficialFiles
from seedcnn.errors import DataError
from seedcnn.evaluate._robustness_table import RobustnessTable, SeededRobustness
from seedcnn.evaluate.accuracies import Predict, correct_mask, predict_logits
from seedcnn.evaluate.record import CLEAN, EvaluationRecord, pictures_digest

__all__ = ["Evaluation", "Progress", "measure"]

Bools = npt.NDArray[np.bool_]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Evaluation:
    """The models, the images, and the corruptions to measure them under."""

    predictors: Mapping[str, Predict]
    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    severities: tuple[int, ...]
    constants: str
    batch_size: int
    frost_dir: Path | None
    files: OfficialFiles | None

    @property
    def origin(self) -> str:
        """Where the corrupted images come from: the constants that generate them, or published files."""
        return self.constants if self.files is None else "published files"

    def _ask(self, images: npt.NDArray[np.uint8], where: npt.NDArray[np.int64], told: str) -> Iterator[Bools]:
        first = int(where[0])
        for model, predict in self.predictors.items():
            try:
                logits = predict_logits(predict, images, self.batch_size, first=first)
                yield correct_mask(logits, self.labels[where], first=first)
            except DataError as error:
                raise DataError(f"model {model!r} {told}: {error}") from error

    def _batches(self) -> Iterator[npt.NDArray[np.int64]]:
        for start in range(0, len(self.images), self.batch_size):
            yield np.arange(start, min(start + self.batch_size, len(self.images)))

    def _batch(self, name: str, severity: int, seed: int, where: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        if self.files is None:
            fresh, given = self.images[where], self.constants
            return corrupt(fresh, name, severity, constants=given, seed=seed, indices=where, frost_dir=self.frost_dir)
        batch = self.files.pick(name, severity, where)
        if batch.dtype != np.uint8 or batch.shape != (len(where), *self.images.shape[1:]):
            raise DataError(
                f"{name} {severity} of {self.files.source} is {batch.dtype} {batch.shape} for {len(where)} images; "
                f"it must be uint8, {self.images.shape[1:]} for each image, as the clean ones"
            )
        return batch

    def clean(self) -> dict[str, Bools]:
        """Bool [1, n] by model: which images it classifies correctly without corruption."""
        right = {model: np.zeros((1, len(self.images)), bool) for model in self.predictors}
        for where in self._batches():
            answers = self._ask(self.images[where], where, "on clean images")
            for row, answer in zip(right.values(), answers, strict=True):
                row[0, where] = answer
        return right

    def corrupted(self, name: str, seed: int, done: Callable[[int], None]) -> dict[str, Bools]:
        """Bool [severities, n] by model: the same under one corruption; ``done`` is called with numbers of images."""
        right = {model: np.zeros((len(self.severities), len(self.images)), bool) for model in self.predictors}
        for where in self._batches():
            for index, severity in enumerate(self.severities):
                batch = self._batch(name, severity, seed, where)
                answers = self._ask(batch, where, f"under {name} {severity}")
                for rows, answer in zip(right.values(), answers, strict=True):
                    rows[index, where] = answer
                done(len(where))
        return right

    def record(self, path: Path, digests: Mapping[str, str] | None, seeds: Sequence[int]) -> EvaluationRecord:
        """The record of this evaluation: its conditions, and the answers of an earlier run."""
        if digests is None or set(digests) != set(self.predictors):
            raise ValueError(
                f"`digests` (={digests!r}) must give the digest of each model, {', '.join(self.predictors)}, "
                "so that a record can tell whether it is of these models"
            )
        conditions = {
            "seedcnn": __version__,
            "models": {model: digests[model] for model in self.predictors},
            "images": {"n": len(self.images), "sha256": pictures_digest(self.images, self.labels)},
            "constants": self.origin,
            **({} if self.files is None else {"files": self.files.source}),
            "severities": list(self.severities),
            "seeds": list(seeds),
        }
        return EvaluationRecord(path, conditions, len(self.severities), len(self.images))


def _table(
    model: str, seed: int, at: Evaluation, clean: Mapping[str, Bools], right: Mapping[str, Mapping[str, Bools]]
) -> RobustnessTable:
    n = len(at.images)
    kept = {name: answers[model] for name, answers in right.items()}
    rows = {name: tuple((100 * mask.sum(axis=1) / n).tolist()) for name, mask in kept.items()}
    shares = np.mean([mask.mean(axis=0) for mask in kept.values()], axis=0)
    spread = 100 * float(shares.std(ddof=1)) / n**0.5 if n > 1 else None
    share = 100 * int(clean[model].sum()) / n
    return RobustnessTable(rows, at.severities, n, at.origin, seed, spread, share, kept, clean[model][0])


def measure(
    at: Evaluation,
    corruptions: Sequence[str],
    seeds: Sequence[int],
    record: EvaluationRecord | None,
    progress: Progress | None,
) -> dict[str, SeededRobustness]:
    """Measure clean images, then corruption by corruption, skipping whatever the record holds."""
    each = len(at.images) * len(at.severities)
    finished, total = 0, each * len(corruptions) * len(seeds)

    def done(images: int) -> None:
        nonlocal finished
        finished += images
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
            elif seed != seeds[0] and CORRUPTIONS[name].draw is None:  # not random: the same for every seed
                found = right[seeds[0]][name]
                done(each)
            else:
                found = at.corrupted(name, seed, done)
                if record is not None:
                    record.put(seed, name, found)
            right[seed][name] = found
    return {m: SeededRobustness(tuple(_table(m, s, at, clean, right[s]) for s in seeds)) for m in at.predictors}
