"""Searching the coarsest grid: steps by sensitivity, rounding to the layers' inputs, and a search on real images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor, inf, log2

import numpy as np
import numpy.typing as npt
from torch import fx

from seedcnn.arrays import F32
from seedcnn.bundle import Preprocessing, grid_of_step
from seedcnn.bundle.integers import stored_size
from seedcnn.errors import DataError, ExportError
from seedcnn.evaluate import Predict, predict_logits
from seedcnn.export import OnnxModel
from seedcnn.export.bundles import LARGEST, OnGrid, divisor_step, is_weight, vector_grids
from seedcnn.pack.measuring import Runtime
from seedcnn.pack.memory import Activations, Inputs, Memory
from seedcnn.pack.paired import Drop, drop_between, margin_of, softness
from seedcnn.pack.rounding import Rounder
from seedcnn.pack.statistics import fisher_information, input_grams
from seedcnn.pack.stopwatch import Stopwatch

__all__ = ["Candidate", "Search", "search_grids"]

_PIXELS = 128 * 128  # a larger image counts as several, since it has more places for a layer to look at
_INFORMED, _ROUNDED = (32, 64), (192, 512)  # least and most images: Fisher information, statistics of the inputs
_COARSEST, _FINEST, _PER_OCTAVE = 2, -10, 4  # powers of two of the weights' typical size
_FINER = 16  # per-channel tensors get finer steps: they are small, and rounded to the nearest
_FIRST = 128  # images before a candidate is first judged; then twice as many, and so on
_SURE = 2.0  # standard errors between a drop and the bound that end a candidate before all images are answered
_PRECISE = 0.2  # of the bound: an error this small ends a candidate, too
_CERTAIN = 4.0  # standard errors of the counted drop, which is looked at again and again
_GUESS = 0.02  # nats of loss by rounding to the nearest, where a search begins
_FARTHEST = 10  # places between one candidate and the next
_GUIDED = 5  # candidates that follow the drop; further ones halve what is left


@dataclass(frozen=True, eq=False)
class Search:
    """Options of a search for the grid.

    Args:
        images, labels: uint8 [N, H, W, 3] and int64 [N], calibration images; do not use test images.
        max_drop: largest accepted accuracy drop in percentage points. The drop on the calibration images plus its
            standard error must stay within it, so that too few images lead to a finer grid rather than to a bad one.
        distinct: number of images that are no copies of others, which come first; None for all.

    Raises:
        ValueError: if there is no image, or not one label for each.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    max_drop: float = 0.2
    distinct: int | None = None

    def __post_init__(self) -> None:
        if not len(self.images) or len(self.images) != len(self.labels):
            raise ValueError(
                f"`images` holds {len(self.images)} calibration images and `labels` {len(self.labels)}; "
                "a search needs at least one image, and a label for each"
            )


@dataclass(frozen=True)
class Candidate:
    """One grid that was tried.

    Attributes:
        accepted: whether its drop is accepted; a search takes the coarsest accepted candidate.
        step: geometric mean of the steps, before those of per-channel tensors are made finer.
        weight_bytes: coded bytes of the weights.
        bits_per_weight: the same in bits for each weight.
        drop: accuracy lost on the images that were answered, in percentage points, smoothed as in
            :class:`seedcnn.pack.paired.Drop`; all accuracy if a logit is NaN.
        error: standard error of ``drop``; at least that of a single image, since no loss among few images says little.
        lost: accuracy lost, counted; it has the standard error ``lost_error``.
        agreement: share of the images that keep their top class, in percent.
        n: number of calibration images that were answered: a candidate that is clearly good or bad needs few.
        distinct: number of all calibration images that are no copies of others.
    """

    accepted: bool
    step: float
    weight_bytes: int
    bits_per_weight: float
    drop: float
    error: float
    lost: float
    lost_error: float
    agreement: float
    n: int
    distinct: int


class _Answers:
    """The calibration images in a fixed random order, and the answers without rounding as far as they are needed."""

    def __init__(self, search: Search, exact: Predict, at_once: int) -> None:
        distinct = len(search.images) if search.distinct is None else search.distinct
        rng = np.random.default_rng(0)
        order = [rng.permutation(distinct), distinct + rng.permutation(len(search.images) - distinct)]
        self._order, self._search = np.concatenate(order), search
        self._exact, self.at_once = exact, at_once
        self._margins: npt.NDArray[np.float64] = np.empty(0)
        self._classes: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self.total, self.soft = len(search.images), 0.0
        self.labels = search.labels[self._order]

    def ask(self, predict: Predict, start: int, end: int) -> F32:
        """The logits of the images from ``start`` to ``end`` of the order."""
        return predict_logits(predict, self._search.images[self._order[start:end]], self.at_once)

    def exact(self, end: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Margins and classes of the first ``end`` images without rounding."""
        if (start := len(self._margins)) < end:
            logits = self.ask(self._exact, start, end)
            self._margins = np.concatenate([self._margins, margin_of(logits, self.labels[start:end])])
            self._classes = np.concatenate([self._classes, logits.argmax(1)])
            self.soft = self.soft or softness(self._margins)
        return self._margins[:end], self._classes[:end]

    def looks(self) -> list[int]:
        """Numbers of answered images after which a candidate is judged."""
        found = []
        look = _FIRST
        while look < self.total:
            found.append(look)
            look *= 2
        return [*found, self.total]


class _Trials:
    """The common part of all candidates: statistics of the layers' inputs, and the answers without rounding."""

    def __init__(
        self,
        folded: fx.GraphModule,
        exported: OnnxModel,
        rule: Preprocessing,
        search: Search,
        runtime: Runtime,
        compression: str,
        memory: Memory,
        watch: Stopwatch,
    ) -> None:
        self._exported, self._search, self._compression = exported, search, compression
        self._limits = {name: divisor_step(exported.tensors[name]) for name in exported.divisors}
        self._weights = {
            name: values
            for name, values in exported.tensors.items()
            if is_weight(values.shape) and np.abs(values).max() <= LARGEST * self._limits.get(name, inf)
        }
        if not self._weights:
            raise ExportError("the network has no weights to put on a grid")
        self._vectors = vector_grids(exported.tensors, exported.divisors)
        sizes = Activations.of(folded, rule.shape)
        inputs = Inputs(search.images, rule)
        layers = {name: folded.get_parameter(name).detach() for name in self._weights}
        with watch("sensitivity of the weights"):
            some, at_once = inputs.spread(_count(_INFORMED, rule)), memory.at_once(sizes.backward, most=16)
            self._fisher = fisher_information(folded, some, layers, other=self._vectors, at_once=at_once)
        some, at_once = inputs.spread(_count(_ROUNDED, rule)), memory.at_once(sizes.forward)
        with watch("statistics of the layers' inputs") as advance:
            self._rounder = Rounder(layers, input_grams(folded, layers, some, memory, min(64, at_once), advance))
        self._count = sum(values.size for values in self._weights.values())
        self._predict = runtime.graph_predictor(exported, rule)
        self.answers = _Answers(search, self._predict(_expanded(exported, self._vectors)), at_once)

    @property
    def typical(self) -> float:
        """Root mean square of the weights: the unit of the steps."""
        squares = sum(float(np.square(values, dtype=np.float64).sum()) for values in self._weights.values())
        return (squares / self._count) ** 0.5

    @property
    def guess(self) -> float:
        """A step that may just be accepted."""
        return self._fisher.step_for(_GUESS)

    def grids(self, step: float) -> dict[str, OnGrid]:
        """Grids whose steps have the geometric mean ``step`` over the weights, with the weights' integers."""
        found, shares = {}, self._fisher.shares
        for name, finest in self._vectors.items():
            coarse = min(2.0 ** round(log2(step * shares[name] / _FINER)), self._limits.get(name, inf))
            found[name] = OnGrid(grid_of_step(max(finest.grid.step, 2.0 ** floor(log2(coarse)))))
        for name, values in self._weights.items():
            least = float(np.abs(values).max()) / LARGEST  # so that the integers fit 16 bits
            grid = grid_of_step(min(max(step * shares[name], least), self._limits.get(name, inf)))
            found[name] = OnGrid(grid, self._rounder.integers(name, grid.step))
        return found

    def measure(self, step: float, grids: Mapping[str, OnGrid]) -> Candidate:
        """Code the weights on these grids and ask the graph with them, until it is clear what it loses."""
        size = stored_size([self._integers(name, grids[name]) for name in self._weights], self._compression)
        distinct = self.answers.total if self._search.distinct is None else self._search.distinct
        facts = (step, size, 8 * size / self._count)
        predict = self._predict(_expanded(self._exported, grids))
        margins: npt.NDArray[np.float64] = np.empty(0)
        same = 0
        for look in self.answers.looks():
            start = len(margins)
            exact, classes = self.answers.exact(look)
            try:
                logits = self.answers.ask(predict, start, look)
            except DataError:  # a logit is NaN
                lost = 100 * float((classes == self.answers.labels[:look]).mean())
                return Candidate(False, *facts, lost, 0.0, lost, 0.0, 0.0, look, distinct)
            margins = np.concatenate([margins, margin_of(logits, self.answers.labels[start:look])])
            same += int((logits.argmax(1) == classes[start:]).sum())
            right = classes == self.answers.labels[:look]
            found = drop_between(exact, margins, self.answers.soft, right)
            accepted = _judged(found, self._search.max_drop, look == self.answers.total)
            if accepted is not None:
                break
        error = max(found.error, found.least_error)
        counted = (found.lost, found.lost_error, 100 * same / found.n)
        return Candidate(bool(accepted), *facts, found.drop, error, *counted, found.n, distinct)

    @staticmethod
    def _integers(name: str, place: OnGrid) -> npt.NDArray[np.int16]:
        if place.integers is None:
            raise ValueError(f"`grids` give {name} no integers")
        return place.integers


def _judged(found: Drop, most: float, last: bool) -> bool | None:
    """Whether a drop is accepted; None if more images must tell."""
    if found.lost - _CERTAIN * found.lost_error > most:  # whatever the soft drop says
        return False
    if last or max(found.error, found.least_error) <= _PRECISE * most:
        return found.drop + max(found.error, found.least_error) <= most
    if found.drop - _SURE * found.error > most:
        return False
    return True if found.drop + max(_SURE * found.error, found.least_error) <= most else None


def _count(bounds: tuple[int, int], rule: Preprocessing) -> int:
    """A number of images between two bounds: the fewer, the larger they are."""
    least, most = bounds
    return max(least, min(most, most * _PIXELS // (rule.height * rule.width)))


def search_grids(
    folded: fx.GraphModule,
    exported: OnnxModel,
    rule: Preprocessing,
    search: Search,
    runtime: Runtime,
    compression: str = "entropy",
    memory: Memory | None = None,
    watch: Stopwatch | None = None,
) -> tuple[dict[str, OnGrid], tuple[Candidate, ...]]:
    """The coarsest grids whose accuracy drop on the calibration images, plus its standard error, is accepted.

    The steps of the weights keep the proportion of :func:`seedcnn.pack.statistics.fisher_information`; those of
    per-channel tensors are a sixteenth as large, rounded to a power of two. Candidates lie a quarter of an octave
    apart, and their accuracy is that of the exported graph in ``runtime``. The search assumes that a coarser grid loses
    more, by the square of its step as long as that is little: so it goes from candidate to candidate.

    A candidate is judged after 128 images, then after twice as many, and so on. It ends as soon as its drop is two
    standard errors from ``max_drop``, or its error is a fifth of that, or all images are answered.

    Args:
        memory: a limit for the memory of this process; None for the default.
        watch: told about each candidate.

    Returns:
        The grids by tensor, with the weights' integers, and the candidates tried, finest first.

    Raises:
        ExportError: if even the finest grid loses more than ``max_drop``, or the network has no weight.
        ConfigError: if the memory does not hold the activations of one image.
    """
    memory, watch = Memory.of(None) if memory is None else memory, Stopwatch() if watch is None else watch
    trials = _Trials(folded, exported, rule, search, runtime, compression, memory, watch)
    unit = trials.typical
    tried: dict[int, Candidate] = {}
    best: dict[str, OnGrid] = {}
    low, high = _FINEST * _PER_OCTAVE - 1, _COARSEST * _PER_OCTAVE  # accepted and rejected, as far as is known
    place = round(_PER_OCTAVE * log2(max(trials.guess, 1e-30) / unit))
    try:
        with watch("searching the grid") as advance:
            while high - low > 1:
                place = max(low + 1, min(high - 1, place))
                step = unit * 2.0 ** (place / _PER_OCTAVE)
                grids = trials.grids(step)
                found = tried[place] = trials.measure(step, grids)
                low, high, best = (place, high, grids) if found.accepted else (low, place, best)
                watch.say(_told(found))
                advance()
                place = _next(place, found, search.max_drop) if len(tried) < _GUIDED else (low + high) // 2
    except KeyboardInterrupt:
        watch.say(_interrupted(tried.get(low)))
        raise
    if low not in tried:
        found = tried[low + 1]
        raise ExportError(
            f"even a grid step of {found.step:g} costs {found.drop:.2f} points (standard error {found.error:.2f}) on "
            f"{found.n} calibration images; at most {search.max_drop} is accepted: use more images, a step, or float32"
        )
    return best, tuple(tried[place] for place in sorted(tried))


def _next(place: int, found: Candidate, most: float) -> int:
    """Where the drop would just be accepted, if it grows by the square of the step."""
    goal = max(most - 100.0 / max(found.n, 1000), most / 3, 1e-3)
    farther = 2 * log2(goal / max(found.drop, goal * 2.0**-_FARTHEST))
    moved = floor(max(-_FARTHEST, min(_FARTHEST, farther * _PER_OCTAVE / 4)))
    return place + (max(1, moved) if found.accepted else min(-1, moved))


def _told(found: Candidate) -> str:
    verdict = "accepted" if found.accepted else "loses too much"
    return (
        f"grid step {found.step:.3g}: {found.weight_bytes:,} bytes of weights, {found.drop:+.2f} ± {found.error:.2f} "
        f"points lost on {found.n:,} images: {verdict}"
    )


def _interrupted(best: Candidate | None) -> str:
    if best is None:
        return "interrupted before a grid was accepted"
    return f"interrupted; the best grid so far has a step of {best.step:.3g}: {best.weight_bytes:,} bytes of weights"


def _expanded(exported: OnnxModel, grids: Mapping[str, OnGrid]) -> dict[str, F32]:
    """The tensors of the graph as a device would expand them."""
    found = {}
    for name, values in exported.tensors.items():
        place = grids.get(name)
        if place is None:
            found[name] = values
        else:
            whole = np.rint(values / place.grid.step) if place.integers is None else place.integers
            found[name] = whole.astype(np.float32) * np.float32(place.grid.step)
    return found
