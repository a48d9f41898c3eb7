"""The request that ``seedcnn plan`` makes, and its work: load, plan, measure beside the plain alternatives."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seedcnn.cli._arguments import default, refuse_without_effect
from seedcnn.errors import ConfigError, PluginError, TrainingError
from seedcnn.messages import steps

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import numpy.typing as npt
    from torch import nn

    from seedcnn.plan import Budget, Calibration, Comparison, Plan

__all__ = [
    "CalibrationRequest",
    "Measuring",
    "PlanRequest",
    "budget_of",
    "calibration_of",
    "checkpoint_of",
    "measuring_of",
]

Size = tuple[int, int, int]
Rule = tuple[tuple[float, ...], tuple[float, ...]]
_SHORT = {"ort": "onnxruntime"}


def budget_of(latency: float | None, size: float | None, macs: float | None) -> Budget:
    """The one budget that was given; ``ConfigError`` for none or several."""
    from seedcnn.plan import Budget

    named = {"latency": latency, "bytes": size, "macs": macs}
    given = {name: value for name, value in named.items() if value is not None}
    if len(given) != 1:
        found = ", ".join(f"--budget-{name}" for name in given) or "none"
        raise ConfigError(f"give one of --budget-latency, --budget-bytes and --budget-macs; found: {found}")
    name, limit = next(iter(given.items()))
    if not 0 < limit < float("inf"):
        raise ConfigError(f"--budget-{name} {limit:g}: it must be a positive number")
    return Budget(name, limit)


@dataclass(frozen=True)
class Measuring:
    """How latencies are measured.

    Attributes:
        runtime: of :data:`seedcnn.evaluate.runners.RUNNERS`.
        rounds: measured calls of each form; None for up to 100, fewer for slow layers.
        threads: threads of the runtime, and of torch.
        wanted: whether latencies are measured at all.
    """

    runtime: str
    rounds: int | None
    threads: int
    wanted: bool

    def quiet(self) -> None:
        """Prepare this process for measuring, or only set its threads."""
        import torch

        from seedcnn.evaluate.benchmark import quiet_process

        if self.wanted:
            quiet_process(self.threads)
        else:
            torch.set_num_threads(self.threads)


def measuring_of(budget: Budget, latency: bool, runtime: str | None, rounds: int | None, threads: int) -> Measuring:
    """The options of latency, or their defaults; ``ConfigError`` for one that has no effect."""
    if budget.of == "latency" and not latency:
        raise ConfigError("--no-latency contradicts --budget-latency, for which latency is measured")
    if not latency:
        refuse_without_effect({"--runtime": runtime, "--rounds": rounds}, "with --no-latency")
    name = default(runtime, "onnxruntime")
    return Measuring(_SHORT.get(name, name), rounds, threads, latency)


@dataclass(frozen=True, eq=False)
class _Images:
    """Training images uint8 [N, H, W, 3], their labels, the number of classes, and mean and standard deviation."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    classes: int
    rule: Rule


@dataclass(frozen=True)
class CalibrationRequest:
    """A trained network, and the training images on which its sensitivities are measured.

    Attributes:
        checkpoint: the weights, of ``seedcnn train``; for a network of timm also a file of timm.
        data: NAME or NAME:DIRECTORY of the set.
        count: number of images.
        steps: steps that fit each form to the layer it would replace.
    """

    checkpoint: Path
    data: str
    count: int
    steps: int

    def images(self, say: Callable[[str], None]) -> _Images:
        """The images, with the classes in their proportions."""
        from seedcnn.data.pictures.folder import CenterCrop, ImageFolder
        from seedcnn.data.sets.named import DATA_SETS, FOLDER, load_train, random_choice

        name, _, where = self.data.partition(":")
        if name not in DATA_SETS and (name == FOLDER or Path(self.data).exists()):
            return self._own_images(say)
        found = load_train(name, where or None, progress=say)
        some = found.train.take(random_choice(len(found.train.labels), self.count))
        if isinstance(some, ImageFolder):
            some = some.load(CenterCrop(224, 256))
        return _Images(some.images, some.labels, len(some.classes), (found.mean, found.std))

    def _own_images(self, say: Callable[[str], None]) -> _Images:
        """Pictures of one's own, by the rule that the checkpoint keeps."""
        from seedcnn.data.sets.named import FOLDER, random_choice
        from seedcnn.data.sets.own import load_folder
        from seedcnn.train import load_checkpoint

        trained_on = load_checkpoint(self.checkpoint).trained_on
        if trained_on is None:
            raise ConfigError(
                f"--data {self.data}: {self.checkpoint} does not say by which rule pictures become inputs"
            )
        rule = trained_on.preprocessing
        place = self.data.removeprefix(f"{FOLDER}:")
        own = load_folder(place, preprocessing=rule, val=trained_on.val, progress=say)
        trained_on.check(own.classes, place)
        some = own.train.take(random_choice(len(own.train), self.count))
        return _Images(some.images, some.labels, len(some.classes), (rule.mean, rule.std))

    def calibration(self, found: _Images, rule: Rule, size: Size) -> Calibration:
        """The images as the network takes them; ``ConfigError`` if they have another size."""
        import torch

        from seedcnn.data.transforms import normalize
        from seedcnn.plan import Calibration

        height, width, channels = found.images.shape[1:]
        if (channels, height, width) != size:
            planned = "x".join(map(str, size))
            raise ConfigError(
                f"--data {self.data} has images of {channels}x{height}x{width}; the network is planned for {planned}: "
                f"give --input {channels}x{height}x{width}, or other data"
            )
        images = normalize(torch.from_numpy(found.images.transpose(0, 3, 1, 2).copy()), *rule)
        return Calibration(images, torch.from_numpy(found.labels.astype("int64")), fit_steps=self.steps)

    def network(self, name: str, found: _Images) -> tuple[nn.Module, dict[str, Any], Rule]:
        """The network of the checkpoint, its options, and the mean and standard deviation of its input."""
        from seedcnn.models import list_models
        from seedcnn.train import load_model

        try:
            model, saved = load_model(self.checkpoint)
        except PluginError:
            raise
        except TrainingError:
            if name in list_models() or not self.checkpoint.is_file():
                raise
            from seedcnn.models.timm_registry import trained_timm_model

            theirs = trained_timm_model(name, self.checkpoint, num_classes=found.classes)
            return theirs.module, {"num_classes": found.classes}, (theirs.mean, theirs.std)
        if saved.config.model != name:
            raise ConfigError(f"--checkpoint {self.checkpoint} is a {saved.config.model}, not a {name}")
        if saved.config.convert is not None:
            raise ConfigError(
                f"--checkpoint {self.checkpoint} is converted already; a plan starts from a vanilla network"
            )
        return model, dict(saved.config.model_options), found.rule


def checkpoint_of(model: str) -> tuple[str, Size | None, str | None]:
    """Name, input size and data of a checkpoint that was given as the model; the size and data are None if unknown."""
    from seedcnn.train import load_checkpoint

    saved = load_checkpoint(model)
    rule = saved.preprocessing
    return saved.config.model, None if rule is None else rule.shape, saved.source or None


def calibration_of(
    checkpoint: Path | None, data: str | None, count: int | None, steps: int | None
) -> CalibrationRequest | None:
    """The options of calibration, or their defaults; None without a checkpoint, which the others need."""
    if checkpoint is None:
        refuse_without_effect({"--data": data, "--pictures": count, "--steps": steps}, "without --checkpoint")
        return None
    return CalibrationRequest(checkpoint, default(data, "cifar10"), default(count, 256), default(steps, 20))


@dataclass(frozen=True)
class PlanRequest:
    """One run of ``seedcnn plan``.

    Attributes:
        model: name of the network.
        size: channels, height, width of an image; None for the network's own.
        budget: the most that the converted network may cost.
        measuring: how latencies are measured.
        calibration: the trained network, or None for a stand-in of the sensitivities.
        forms: names of the forms to choose from, None for all.
        multiple, step, seed: see :func:`seedcnn.plan.plan`.
        say: is shown the progress and the remarks.
    """

    model: str
    size: Size | None
    budget: Budget
    measuring: Measuring
    calibration: CalibrationRequest | None
    forms: list[str] | None
    multiple: int
    step: float | None
    seed: int
    say: Callable[[str], None] = field(repr=False)

    def run(self) -> tuple[Plan, Comparison]:
        """The plan, and the converted network measured beside the vanilla and the narrowed one.

        Raises:
            ConfigError: if a name does not exist, the parts do not fit together, or the budget cannot be met.
        """
        from seedcnn.models.opening import network
        from seedcnn.plan import compare

        options: dict[str, Any] = {}
        calibration = None
        if (asked := self.calibration) is None:
            vanilla, size = network(self.model, self.size)
        else:
            images = asked.images(self.say)
            vanilla, options, rule = asked.network(self.model, images)
            size = self.size or network(self.model, weights=False)[1]
            calibration = asked.calibration(images, rule, size)
        self.measuring.quiet()
        found = self._plan(vanilla, size, calibration)
        beside = self._beside(found, options)
        how: dict[str, Any] = {"rounds": self.measuring.rounds, "threads": self.measuring.threads, "say": self.say}
        return found, compare(found, vanilla, beside=beside, latency=self.measuring.wanted, **how)

    def _plan(self, vanilla: nn.Module, size: Size, calibration: Calibration | None) -> Plan:
        from seedcnn.plan import plan

        try:
            return plan(
                vanilla,
                self.budget,
                input_size=size,
                runtime=self.measuring.runtime,
                forms=self.forms,
                calibration=calibration,
                multiple=self.multiple,
                rounds=self.measuring.rounds,
                threads=self.measuring.threads,
                step=self.step,
                seed=self.seed,
                latency=self.measuring.wanted,
                say=self.say,
            )
        except ValueError as error:
            raise ConfigError(str(error)) from None

    def _beside(self, found: Plan, options: dict[str, Any]) -> dict[str, nn.Module]:
        """The vanilla network narrowed to the plan's MACs, where it can be."""
        from seedcnn.plan import narrowed_network

        if found.keeps_everything:
            return {}
        if found.predicted.macs >= found.vanilla.macs:
            self.say("no narrowed network to compare with: the plan saves no MACs")
            return {}
        try:
            with steps(self.say, "narrowing the vanilla network"):
                label, network, macs = narrowed_network(self.model, found.predicted.macs, found.input_size, **options)
        except ConfigError as error:
            self.say(f"no narrowed network to compare with: {error}")
            return {}
        return {f"{label} ({macs / found.predicted.macs:.2f} of the plan's MACs)": network}
