"""The answer on the first screen: which model to take, and why, in sentences made from the measured numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from seedcnn.evaluate.answers import Answers
from seedcnn.evaluate.report.blocks import minus
from seedcnn.evaluate.report.rows import Measured, ModelRow

__all__ = ["advice"]

_ERRORS = 2.0  # a difference of fewer standard errors counts as none
_LISTED = 4  # other models that get a sentence of their own


@dataclass(frozen=True)
class _Difference:
    """Points by which one model is above another, and the standard error, None if it is not known."""

    points: float
    error: float | None

    @property
    def sure(self) -> bool:
        return abs(self.points) > _ERRORS * (self.error or 0.0)

    def __str__(self) -> str:
        error = "" if self.error is None else f" ± {self.error:.2f}"
        return f"{minus(self.points)}{error} points{'' if self.sure else ' (within the error)'}"


@dataclass(frozen=True)
class _Cost:
    """A cost that was measured for all models: its name, and its value and spread by model."""

    words: str
    values: Mapping[str, Measured]

    def ratio(self, model: ModelRow, base: ModelRow) -> float:
        return self.values[model.name].value / self.values[base.name].value

    def lower(self, model: ModelRow, base: ModelRow) -> bool:
        """Whether the model costs less, by more than the spread."""
        ours, theirs = self.values[model.name], self.values[base.name]
        return theirs.value - ours.value > math.hypot(ours.spread or 0.0, theirs.spread or 0.0)

    def say(self, model: ModelRow, base: ModelRow) -> str:
        if self.lower(model, base) or self.lower(base, model):
            return f"{self.ratio(model, base):.2f} of the {self.words}"
        return f"the same {self.words} within the spread" if self.ratio(model, base) != 1 else f"the same {self.words}"


def _costs(rows: Sequence[ModelRow]) -> list[_Cost]:
    """The costs that were measured for all models; parameters and MACs count only where nothing else was measured."""

    def of(words: str, values: Sequence[float | Measured | None]) -> list[_Cost]:
        known = [value if isinstance(value, Measured) else Measured(value) for value in values if value is not None]
        if len(known) < len(rows) or not all(value.value > 0 for value in known):
            return []
        return [_Cost(words, dict(zip((row.name for row in rows), known, strict=True)))]

    measured = of("bundle bytes", [row.bundle_bytes for row in rows]) + of("latency", [row.latency_ms for row in rows])
    return measured or of("parameters", [row.parameters for row in rows]) + of("MACs", [row.macs for row in rows])


class _Comparison:
    """All models beside each other; ``training`` is the standard deviation between trainings, in points."""

    def __init__(self, rows: Sequence[ModelRow], answers: Mapping[str, Answers], training: float) -> None:
        self.rows, self.costs, self._answers, self._training = rows, _costs(rows), answers, training
        self.best = max(rows, key=lambda row: row.accuracy.value)
        self.level = [row for row in rows if not self.worse(row, self.best)]
        beaten = {row.name for row in rows if self.beaten_by(row) is not None}
        worth = [row for row in rows if row.name not in beaten] or list(rows)
        self.pick = min([row for row in self.level if row in worth] or [self.best], key=self._price)
        self.cheapest = min(worth, key=self._price)

    def _price(self, row: ModelRow) -> tuple[float, float]:
        """Geometric mean of the costs; the more accurate one among equals."""
        logs = [math.log(cost.values[row.name].value) for cost in self.costs]
        return sum(logs), -row.accuracy.value

    def _between(self, ours: Measured, theirs: Measured, error: float | None = None) -> _Difference:
        if error is None and ours.spread is not None and theirs.spread is not None:
            error = math.hypot(ours.spread, theirs.spread)
        known = None if error is None else math.hypot(error, self._training * math.sqrt(2))
        return _Difference(ours.value - theirs.value, known)

    def clean(self, row: ModelRow, other: ModelRow) -> _Difference:
        """Points above the other; of models that answered the same images the error is that of where they differ."""
        both = row is not other and row.name in self._answers and other.name in self._answers
        error = self._answers[row.name].less(self._answers[other.name]).standard_error if both else None
        return self._between(row.accuracy, other.accuracy, error)

    def corrupted(self, row: ModelRow, other: ModelRow) -> _Difference | None:
        if row.corrupted is None or other.corrupted is None:
            return None
        return self._between(row.corrupted, other.corrupted)

    def worse(self, row: ModelRow, other: ModelRow) -> bool:
        """Whether a model is less accurate than another, clean or corrupted, by more than the error."""
        found = (self.clean(row, other), self.corrupted(row, other))
        return any(each is not None and each.points < 0 and each.sure for each in found)

    def beaten_by(self, row: ModelRow) -> ModelRow | None:
        """The plain model that is as good as this seeded one, and no dearer; None if there is none."""
        if not row.seeded or not self.costs:
            return None
        plain = [other for other in self.rows if other.seeded is False and not self.worse(other, row)]
        return next((other for other in plain if not any(cost.lower(row, other) for cost in self.costs)), None)

    def shares(self, row: ModelRow, base: ModelRow) -> str:
        return " and ".join(cost.say(row, base) for cost in self.costs)

    def first(self) -> str:
        """The model to take, and why."""
        pick, best, cheapest = self.pick, self.best, self.cheapest
        accuracy = _accuracy(pick)
        if not self.costs:
            near = [row.name for row in self.level if row is not pick]
            rest = f"{_listing(near)} within the error of it" if near else "no other comes within the error"
            return f"Take {pick.name}: {accuracy}, the most accurate; {rest}. No cost was measured."
        why = (
            ", the most accurate"
            if pick is best
            else f", within the error of the best, {best.name} ({best.accuracy.value:.2f} %)"
        )
        if pick is cheapest:
            costs = "it costs least" if pick is best else f"it takes {self.shares(pick, best)} of {best.name}"
            return f"Take {pick.name}: {accuracy}{why}, and {costs}."
        words = " and ".join(cost.words for cost in self.costs)
        return (
            f"Take {pick.name} if accuracy comes first: {accuracy}{why}. Take {cheapest.name} if {words} come first: "
            f"it takes {self.shares(cheapest, pick)}, at {self.points(cheapest)}."
        )

    def points(self, row: ModelRow) -> str:
        """The accuracy of a model beside the pick."""
        corrupted = self.corrupted(row, self.pick)
        said = f"{self.clean(row, self.pick)}"
        return said if corrupted is None else f"{said} and, corrupted, {corrupted}"

    def other(self, row: ModelRow) -> str:
        """One of the others beside the pick."""
        plain = self.beaten_by(row)
        verdict = "" if plain is None else f"; it does not pay: {plain.name}, without seeds, is as good and no dearer"
        costs = f"; {self.shares(row, self.pick)}" if self.costs else ""
        return f"{row.name} beside {self.pick.name}: {self.points(row)}{costs}{verdict}."


def _accuracy(row: ModelRow) -> str:
    spread = "" if row.accuracy.spread is None else f" ± {row.accuracy.spread:.2f}"
    return f"{row.accuracy.value:.2f}{spread} %"


def _listing(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"{names[0]} is"
    return f"{', '.join(names[:-1])} and {names[-1]} are"


def advice(
    rows: Sequence[ModelRow], answers: Mapping[str, Answers] | None = None, *, training: float = 0.0
) -> list[str]:
    """Say which model to take, and why: the first sentence names it, the others compare the rest with it.

    The candidates are the models that are not less accurate than the most accurate one, clean and corrupted, by more
    than two standard errors. A model with seeds is none if a plain one is as good and costs no more. Of the candidates
    the one with the lowest costs is taken: the geometric mean of bundle bytes and latency, where all models have them,
    otherwise of parameters and MACs. If another model costs less than that, it is named too.

    Args:
        rows: the models.
        answers: to the same clean images by model; the error of a difference is then that of the images on which two
            models differ.
        training: standard deviation of the accuracy between trainings, in points, if it is known.

    Returns:
        Sentences, the last one about the errors; none for a single model.
    """
    if len(rows) < 2:
        return []
    found = _Comparison(rows, answers or {}, training)
    others = sorted(
        (row for row in rows if row not in (found.pick, found.cheapest)), key=lambda row: -row.accuracy.value
    )
    said = [found.first(), *(found.other(row) for row in others[:_LISTED])]
    if len(others) > _LISTED:
        said.append(f"The table has the other {len(others) - _LISTED}.")
    errors = "± is the standard error over the images" + (
        f" and over trainings, which differ by {training:g} points (standard deviation)." if training else "."
    )
    errors += " A difference of less than two of them counts as none."
    return [*said, errors if training else f"{errors} Another training of the same network can differ by more."]
