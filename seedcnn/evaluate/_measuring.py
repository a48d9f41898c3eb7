"""The loops of a robustness evaluation over models, images and corruptions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from seedcnn import __version__
from seedcnn.data.corruptions import CORRUPTIONS, corrupt
from seedcnn.data.sets.official import OfficialFiles
from seedcnn.errors import DataError, ProcessError
from seedcnn.evaluate._robustness_table import RobustnessTable, SeededRobustness
from seedcnn.evaluate.accuracies import Predict, correct_mask, predict_logits
from seedcnn.evaluate.record import CLEAN, EvaluationRecord, pictures_digest
from seedcnn.messages import Say, steps
from seedcnn.processes import Processes

__all__ = ["Evaluation", "check_same", "measure"]

Bools = npt.NDArray[np.bool_]


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
    processes: Processes

    @property
    def origin(self) -> str:
        """Where the corrupted images come from: the constants that generate them, or published files."""
        return self.constants if self.files is None else "published files"

    def _ask(self, images: npt.NDArray[np.uint8], where: npt.NDArray[np.int64], told: str) -> list[Bools]:
        """Which images each model classifies correctly, bool [n] each."""
        first, right = int(where[0]), []
        for model, predict in self.predictors.items():
            try:
                logits = predict_logits(predict, images, self.batch_size, first=first)
                right.append(correct_mask(logits, self.labels[where], first=first))
            except DataError as error:
                raise DataError(f"model {model!r} {told}: {error}") from error
        return right

    def _batches(self) -> list[npt.NDArray[np.int64]]:
        starts = range(0, len(self.images), self.batch_size)
        return [np.arange(start, min(start + self.batch_size, len(self.images))) for start in starts]

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

    def clean(self, progress: Say | None) -> dict[str, Bools]:
        """Bool [1, n] by model: which images it classifies correctly without corruption."""
        batches = self._batches()
        with steps(progress, "the same images, clean", len(self.images)) as advance:
            answers = self.processes.share(
                [len(where) for where in batches],
                lambda piece: self._ask(self.images[batches[piece]], batches[piece], "on clean images"),
                lambda amount, _: advance(amount),
            )
        return {model: np.concatenate(each)[None] for model, each in self._by_model(answers)}

    def corrupted(self, name: str, seed: int, done: Callable[[int, str], None]) -> dict[str, Bools]:
        """Bool [severities, n] by model: the same under one corruption; ``done`` gets numbers of images and a note."""
        pieces = [(where, severity) for where in self._batches() for severity in self.severities]

        def answer(piece: int) -> list[Bools]:
            where, severity = pieces[piece]
            return self._ask(self._batch(name, severity, seed, where), where, f"under {name} {severity}")

        answers = self.processes.share(
            [len(where) for where, _ in pieces],
            answer,
            lambda amount, piece: done(amount, f"{name} {pieces[piece][1]}"),
        )
        count = len(self.severities)
        return {
            model: np.stack([np.concatenate(each[row::count]) for row in range(count)])
            for model, each in self._by_model(answers)
        }

    def _by_model(self, answers: Sequence[Sequence[Bools]]) -> list[tuple[str, list[Bools]]]:
        return [(model, [each[place] for each in answers]) for place, model in enumerate(self.predictors)]

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


def check_same(
    processes: Processes,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    digests: Mapping[str, str],
    progress: Say | None,
) -> None:
    """Refuse processes, perhaps on other machines, that would answer for other images or models than the first.

    Raises:
        ProcessError: naming the process and what differs.
    """
    if processes.world == 1:
        return
    with steps(progress, "comparing the processes"):
        told = processes.gather({"images and labels": pictures_digest(images, labels), **digests})
    for rank, other in enumerate(told):
        for name, digest in told[0].items():
            if other.get(name) != digest:
                raise ProcessError(f"process {rank} of {processes.world} has other data than process 0: {name} differ")


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
    progress: Say | None,
) -> dict[str, SeededRobustness]:
    """Measure clean images, then corruption by corruption, skipping whatever the record holds.

    Args:
        record: in the first process; None in the others, and without a record.
    """
    each = len(at.images) * len(at.severities)

    def kept(seed: int | None, name: str) -> dict[str, Bools] | None:
        return at.processes.from_first(lambda: None if record is None else record.get(seed, name))

    def keep(seed: int | None, name: str, found: Mapping[str, Bools]) -> None:
        at.processes.from_first(lambda: None if record is None else record.put(seed, name, found))

    clean = kept(None, CLEAN)
    if clean is None:
        clean = at.clean(progress)
        keep(None, CLEAN, clean)
    right: dict[int, dict[str, dict[str, Bools]]] = {seed: {} for seed in seeds}
    with steps(progress, "corrupted images", each * len(corruptions) * len(seeds)) as advance:
        for seed in seeds:
            for name in corruptions:
                found = kept(seed, name)
                if found is not None:
                    advance(each, name)
                elif seed != seeds[0] and CORRUPTIONS[name].draw is None:  # not random: the same for every seed
                    found = right[seeds[0]][name]
                    advance(each, name)
                else:
                    found = at.corrupted(name, seed, advance)
                    keep(seed, name, found)
                right[seed][name] = found
    return {m: SeededRobustness(tuple(_table(m, s, at, clean, right[s]) for s in seeds)) for m in at.predictors}
