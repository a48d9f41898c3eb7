"""Training a network for its bundle: the price of a bit that meets a bound on bytes or on lost accuracy."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from seedcnn.data.sets.named import FOLDER
from seedcnn.data.sets.own import load_folder
from seedcnn.errors import ConfigError, ExportError
from seedcnn.evaluate import accuracy, torch_predictor
from seedcnn.export import BundleInfo
from seedcnn.messages import Say
from seedcnn.networks.opening import Trained, open_checkpoint
from seedcnn.networks.packing import request_for
from seedcnn.pack import PackRequest, PackResult, calibration_order, pack
from seedcnn.pack.request import SEARCHED_DROP
from seedcnn.train import (
    Checkpoint,
    FolderData,
    TrainConfig,
    TrainData,
    TrainProgress,
    load_checkpoint,
    load_training_data,
    train,
)
from seedcnn.train.own import own_data
from seedcnn.train.rate_config import RateConfig

__all__ = ["Goal", "Tuned", "seek_price", "tune", "tuned_config"]

_START = 0.3  # the first price
_LEAST, _MOST = 0.01, 40.0  # prices
_CANDIDATES = 6
_NEAR = 0.97  # of the bytes asked for
_CLOSE = 1.3  # ratio of two prices between which there is nothing to look for
_CHECKED = 5000  # training images that the loss is measured on
_LR = 0.01  # of norms and biases
_KEPT = (
    *("model", "model_options", "convert", "overrides", "plan", "batch_size", "drop_last", "label_smoothing"),
    *("augment", "flip", "channels_last", "seed", "data", "preprocessing", "val", "hold_out", "fraction"),
    *("data_seed", "input_size", "rand_augment", "random_erasing", "mixup", "cutmix", "drop_path"),
    *("precision", "deterministic", "noise", "lowpass"),
)


def tuned_config(config: TrainConfig, start: str | Path, epochs: int, weight: float) -> TrainConfig:
    """The config by which a network goes on on the grid: its own data and augmentation, Adam, and a linear decay.

    Args:
        config: of the network.
        start: its checkpoint.
        epochs: to train.
        weight: price of a bit, see :class:`seedcnn.train.rate_config.RateConfig`.
    """
    kept = {name: getattr(config, name) for name in _KEPT}
    if kept["precision"] == "fp16":
        kept["precision"] = "fp32"
    return TrainConfig(
        **kept,
        epochs=epochs,
        lr=_LR,
        optimizer="adam",
        weight_decay=0.0,
        schedule="linear",
        warmup_epochs=0.0,
        init_from=str(start),
        rate=RateConfig(weight),
    )


@dataclass(frozen=True)
class Goal:
    """The bound that a tuned bundle keeps to: at most ``most_bytes`` bytes, or at most ``max_drop`` points lost."""

    most_bytes: int | None = None
    max_drop: float | None = None

    def __post_init__(self) -> None:
        if (self.most_bytes is None) == (self.max_drop is None):
            raise ConfigError("give either a number of bytes or a drop of the accuracy to tune for")
        if self.most_bytes is not None and self.most_bytes < 1:
            raise ConfigError(f"`bytes` is {self.most_bytes}; it must be at least 1")
        if self.max_drop is not None and not 0 <= self.max_drop <= 100:
            raise ConfigError(f"`max_accuracy_drop` is {self.max_drop}; it must be in 0 to 100 points")

    def met(self, found: Tuned) -> bool:
        """Whether a network keeps to it; the standard error of the drop counts as lost."""
        if self.most_bytes is not None:
            return found.size <= self.most_bytes
        assert self.max_drop is not None
        return found.drop + found.error <= self.max_drop


@dataclass(frozen=True)
class Tuned:
    """A network that was trained for one price: bytes of its bundle, points lost on training images, standard error."""

    weight: float
    size: int
    drop: float
    error: float


def seek_price(goal: Goal, measure: Callable[[float], Tuned]) -> Tuned:
    """Find the price that just meets a goal, in at most six trials.

    More bits are better and cost more bytes, so bytes fall and lost points grow with the price.

    Raises:
        ExportError: if no price meets the goal; with the best that was found.
    """
    tried: list[Tuned] = []
    weight: float | None = _START
    while weight is not None and len(tried) < _CANDIDATES:
        tried.append(measure(weight))
        weight = _next(goal, tried)
    good = [each for each in tried if goal.met(each)]
    if not good:
        by_bytes = goal.most_bytes is not None
        least = min(tried, key=lambda each: each.size if by_bytes else each.drop)
        asked = f"{goal.most_bytes:,} bytes" if by_bytes else f"{goal.max_drop:g} points"
        raise ExportError(
            f"no price of bits keeps to {asked}: the least was {least.size:,} bytes with {least.drop:.2f} ± "
            f"{least.error:.2f} points lost on training images, at a price of {least.weight:.3g}; tune for more epochs"
            f"{', or take a narrower network' if by_bytes else ''}"
        )
    return max(good, key=lambda each: each.size) if goal.most_bytes is not None else min(good, key=lambda e: e.size)


def _next(goal: Goal, tried: list[Tuned]) -> float | None:
    """The next price; None if the bound is met closely, or prices are at an end."""
    by_bytes = goal.most_bytes is not None
    # A price is too low if its bundle is too large, or if it loses less than it may.
    low = [each.weight for each in tried if goal.met(each) != by_bytes]
    high = [each.weight for each in tried if goal.met(each) == by_bytes]
    if goal.most_bytes is not None and any(_NEAR * goal.most_bytes <= each.size <= goal.most_bytes for each in tried):
        return None
    if not low or not high:
        weight = _beyond(goal, tried, up=not high)
        return weight if _LEAST <= weight <= _MOST else None
    if (ratio := min(high) / max(low)) < (1.02 if by_bytes else _CLOSE):
        return None
    if not by_bytes:
        return max(low) * math.sqrt(ratio)
    assert goal.most_bytes is not None
    below = next(each for each in tried if each.weight == max(low))
    above = next(each for each in tried if each.weight == min(high))
    share = math.log(below.size / (0.985 * goal.most_bytes)) / math.log(below.size / above.size)
    return max(low) * ratio ** min(0.9, max(0.1, share))


def _beyond(goal: Goal, tried: list[Tuned], *, up: bool) -> float:
    """A price beyond all that were tried."""
    last = max(tried, key=lambda each: each.weight) if up else min(tried, key=lambda each: each.weight)
    if goal.most_bytes is None:
        return last.weight * (2.0 if up else 0.5)
    # Bytes fall about as the root of the price.
    factor = (last.size / (0.985 * goal.most_bytes)) ** 2
    return last.weight * (min(8.0, max(1.2, factor)) if up else max(1 / 8, min(1 / 1.2, factor)))


def _training_data(saved: Checkpoint, say: Say | None) -> TrainData | FolderData:
    """The images that a network was trained on."""
    kind, _, where = saved.source.partition(":")
    if saved.config.data == FOLDER:
        if kind != FOLDER or saved.preprocessing is None:
            raise ConfigError("the checkpoint does not say where its pictures are, so it cannot be tuned")
        own = load_folder(Path(where), preprocessing=saved.preprocessing, val=saved.config.val, progress=say)
        if own.classes != saved.labels:
            raise ConfigError(f"{where} has other classes than the checkpoint was trained on")
        return own_data(own)
    return load_training_data(saved.config, Path(where) if where else None, progress=say)


class _Tuning:
    """The trials of one network, each kept as a checkpoint of its own."""

    def __init__(self, path: Path, epochs: int, request: PackRequest, say: Say | None) -> None:
        self.path, self.epochs, self.request, self.say = path, epochs, request, say
        self.saved, self.found = load_checkpoint(path), open_checkpoint(path)
        self.data = _training_data(self.saved, say)
        if isinstance(self.data, FolderData):
            raise ConfigError("--tune works on images in memory, not on the files of imagenet")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
        self.place = path.with_name(f"{path.stem}.tuned-{digest}")
        picked = calibration_order(self.data.labels, min(_CHECKED, len(self.data.labels)))
        self.images, self.labels = self.data.images[picked], self.data.labels[picked]
        self.right = self._right(self.found.module)

    def _right(self, network: nn.Module) -> npt.NDArray[np.bool_]:
        return accuracy(torch_predictor(network, self.data.mean, self.data.std), self.images, self.labels).correct

    def checkpoint(self, weight: float) -> Path:
        """Where the network of a price is kept."""
        return self.place / f"price-{weight:.4g}-{self.epochs}.ckpt"

    def measure(self, weight: float) -> Tuned:
        """Train for a price, or take what is there, and measure."""
        weight = float(f"{weight:.4g}")
        config = tuned_config(self.saved.config, self.path.absolute(), self.epochs, weight)
        shown = TrainProgress(f"price {weight:.3g}", config.epochs, 0, quiet=self.say is None)
        network, state = train(config, self.data, self.checkpoint(weight), resume=True, progress=shown)
        size = len(self._packed(network, state).data)
        lost = 100.0 * self.right - 100.0 * self._right(network)
        error = float(max(lost.std() / len(lost) ** 0.5, 100.0 / len(lost)))
        found = Tuned(weight, size, float(lost.mean()), error)
        if self.say is not None:
            self.say(
                f"a price of {weight:.3g} a bit: {size:,} bytes, {found.drop:+.2f} ± {error:.2f} points lost on "
                f"{len(lost):,} training images"
            )
        return found

    def _packed(self, network: nn.Module, state: Checkpoint) -> PackResult:
        """A bundle of the network, measured on few images."""
        info = BundleInfo(
            self.found.name,
            self.request.family,
            self.request.release,
            self.data.preprocessing,
            self.saved.labels or [f"class {i}" for i in range(int(self.data.labels.max()) + 1)],
        )
        few = self.images[:64], self.labels[:64]
        how = self.request
        return pack(
            network,
            info,
            *few,
            grid_steps=state.steps,
            adaptable=how.adaptable,
            target=how.target,
            compression=how.compression,
            memory=how.memory,
        )


def tune(
    path: str | Path,
    request: PackRequest,
    *,
    epochs: int,
    most_bytes: int | None = None,
    progress: Say | None = None,
) -> tuple[PackResult, Path]:
    """Train a checkpoint's network on the grid until its bundle keeps to a bound, and pack it.

    Each trial starts from the checkpoint and trains for ``epochs``; it is kept beside the checkpoint, so an interrupted
    search goes on. The loss is measured on training images, which all networks have seen, and in the end on the test
    images, against the network before.

    Args:
        path: of the checkpoint; its training images must be where they were.
        request: of the release; its ``max_accuracy_drop`` is the bound if ``most_bytes`` is None.
        epochs: of a trial.
        most_bytes: largest bundle, in bytes.
        progress: told about each trial.

    Returns:
        The packed network, and its checkpoint.

    Raises:
        ConfigError: if options contradict each other, or the training images are gone.
        TrainingError: if the checkpoint is damaged.
        ExportError: if nothing keeps to the bound, or the bundle surely loses more on the test images.
    """
    if epochs < 1:
        raise ConfigError(f"`tune` is {epochs}; it must be at least 1 epoch")
    if request.parent is not None or request.step is not None or request.quantizes:
        name = "parent" if request.parent is not None else "step" if request.step is not None else "int8"
        remedy = "leave it out" if name == "step" else "pack the tuned checkpoint with it"
        raise ConfigError(f"`{name}` contradicts `tune`, which finds grids of its own; {remedy}")
    drop = request.max_accuracy_drop
    goal = Goal(most_bytes, None if most_bytes is not None else SEARCHED_DROP if drop is None else drop)
    work = _Tuning(Path(path), epochs, request, progress)
    best = seek_price(goal, work.measure)
    checkpoint = work.checkpoint(best.weight)
    found: Trained = open_checkpoint(checkpoint)
    about = request_for(replace(request, max_accuracy_drop=None), work.found)
    result = about.pack(
        found.module,
        found.name,
        progress,
        trained_on=work.found.trained_on,
        grid_steps=found.grid_steps,
        original=work.found.module,
    )
    if most_bytes is not None and len(result.data) > most_bytes:
        raise ExportError(f"the bundle has {len(result.data):,} bytes, more than {most_bytes:,}; ask for a few less")
    if drop is not None and result.drop - 2 * result.drop_error > drop:
        raise ExportError(
            f"the price that keeps to {drop:g} points on training images costs {result.drop:.2f} ± "
            f"{result.drop_error:.2f} points on the {result.before.n:,} test images: ask for less, or train longer"
        )
    return result, checkpoint
