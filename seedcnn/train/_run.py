"""The part of a training run that one process does: its state and its epochs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from timm.data import Mixup
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn

from seedcnn.convert import low_passed
from seedcnn.data.sets.named import FOLDER
from seedcnn.errors import ConfigError, TrainingError
from seedcnn.messages import Say, shown
from seedcnn.models.own import is_own, sha256_of
from seedcnn.models.weights import load_state, load_weights
from seedcnn.processes import Processes
from seedcnn.sampling.theory import batches as reduced
from seedcnn.train._counts import Counts, NotFiniteError
from seedcnn.train._rated import Rated
from seedcnn.train._task import Classifier, data_parallel, make_task, outputs
from seedcnn.train.building import build_model
from seedcnn.train.checkpoint import Checkpoint, check_network_file, load_checkpoint, restore_model
from seedcnn.train.config import TrainConfig, differences
from seedcnn.train.data import FolderData, TrainData, open_batches
from seedcnn.train.distill import Distiller
from seedcnn.train.freezing import Frozen
from seedcnn.train.progress import TrainProgress
from seedcnn.train.randomness import capture, restore, seed_everything
from seedcnn.train.updates import Update
from seedcnn.train.whitening import whiten_stem_

__all__ = ["Run"]

_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@contextlib.contextmanager
def _statistics_of_one(model: nn.Module) -> Iterator[None]:
    """Let norms over a single value per channel use their running statistics: a batch of one image has none there."""
    changed: list[nn.Module] = []

    def look(norm: nn.Module, args: tuple[Tensor, ...]) -> None:
        if norm.training and args[0].numel() == args[0].shape[1]:
            changed.append(norm.eval())

    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    handles = [norm.register_forward_pre_hook(look) for norm in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for norm in changed:
            norm.train()


def _start_from(
    config: TrainConfig, classes: tuple[str, ...], say: Say
) -> tuple[Callable[[nn.Module], None] | None, bool]:
    """Read the weights to start from, of a checkpoint or else of a file of weights.

    Returns:
        What loads them; None if there are none; and whether they are of the network before its plan converts it.
    """
    path = config.init_from
    if not path:
        return None, False
    try:
        saved = load_checkpoint(path)
    except TrainingError as error:
        if "is not a checkpoint" not in str(error):
            raise
        state = load_state(path, say)
        return lambda network: load_weights(network, state, path, say), bool(config.plan)
    check_network_file(saved, path)
    if saved.config.lowpass != config.lowpass:
        say(f"{path} was trained with lowpass={saved.config.lowpass}, and goes on with lowpass={config.lowpass}")
    other = bool(saved.labels and classes and saved.labels != classes)
    unplanned = bool(config.plan) and saved.config.plan != config.plan
    return lambda network: load_weights(network, saved.weights, path, say, other_classes=other), unplanned


def _kept_steps(config: TrainConfig) -> dict[str, float]:
    """The steps of the checkpoint that the run starts from, if its weights stay."""
    if config.update != "norms" or not config.init_from:
        return {}
    try:
        return dict(load_checkpoint(config.init_from).steps)
    except TrainingError:
        return {}  # a file of weights


def _check_data(config: TrainConfig, data: TrainData | FolderData) -> None:
    if config.preprocessing is not None and config.preprocessing != data.preprocessing:
        raise ConfigError("preprocessing must be the rule that the data were decoded by")


def _foreign(config: TrainConfig, model: nn.Module) -> str | None:
    """Return a sentence if no checkpoint of the run can be opened, since the config builds another network.

    Raises:
        ConfigError: if the network has other low-pass filters, which a checkpoint knows by its config alone.
    """
    with torch.random.fork_rng(devices=[]):
        built = build_model(config)
    expected = {name: value.shape for name, value in built.state_dict().items()}
    found = {name: value.shape for name, value in model.state_dict().items()}
    different = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
    ours, theirs = low_passed(model), low_passed(built)
    if ours != theirs and (not different or not ours):
        raise ConfigError(
            f"lowpass (={config.lowpass!r}): the network that was given has low-pass filters before "
            f"{', '.join(ours) or 'no layer'}, its config puts them before {', '.join(theirs) or 'no layer'}; call "
            "lowpass_ on it as the config says"
        )
    if not different:
        return None
    listed = ", ".join(different[:5]) + (", ..." if len(different) > 5 else "")
    return (
        f"the network is not what its config builds ({config.model}), so the run's checkpoints will not open by "
        f"themselves: {len(different)} tensors are missing, new or of another shape: {listed}. Name the network's "
        "callable in the config instead: model='mynet.py:MyNet'"
    )


class Run:
    """Network, task, optimizer and data of one process.

    Attributes:
        model: the network without any wrapper.
        counts: number of batches of each epoch.
        notes: sentences about what the network starts from.
        steps: number of batches of an epoch over all images.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: TrainData | FolderData,
        processes: Processes,
        *,
        model: nn.Module | None,
        teacher: nn.Module | None,
        workers: int,
    ) -> None:
        self.config, self.processes, self.data = config, processes, data
        self.notes: list[str] = []
        _check_data(config, data)
        if config.input_size and data.size[1:] != (config.input_size, config.input_size):
            raise ConfigError(
                f"input_size (={config.input_size}) must be that of the data, {data.size[1]}x{data.size[2]}"
            )
        self.batches = open_batches(config, data, processes, workers)
        self.steps, self.counts = self.batches.steps, self._counts(self.batches.steps)
        self.sha256 = sha256_of(config.model) if is_own(config.model) else ""
        self.model = self._network(model)
        if model is not None and (sentence := _foreign(config, model)) is not None:
            self.notes.append(sentence)
        if (task := getattr(self.model, "task", "classification")) != "classification":
            raise ConfigError(f"{config.model} is a network for {task}; images with one label each cannot train it")
        classes = outputs(self.model, data.size)
        if config.data == FOLDER and classes != len(data.classes):
            names = f"{len(data.classes)} classes ({shown(', '.join(data.classes)):.200})"
            own = "the callable must take `num_classes`, or return a network of that many"
            rule = own if is_own(config.model) else "leave model_options.num_classes out"
            raise ConfigError(f"{config.model} has {classes} outputs, but the pictures have {names}; {rule}")
        if (largest := int(data.labels.max())) >= classes:
            raise ConfigError(f"the network has {classes} classes, but there is a label {largest}")
        self.mixup = self._mixup(classes)
        if config.update != "all" and model is None and not (config.init_from or config.pretrained):
            raise ConfigError(f"update (={config.update!r}) needs init_from or pretrained: what stays would be random")
        self.frozen = Frozen(self.model, config.update, data.size)
        self._make_task(data.size, teacher)
        if processes.rank:
            seed_everything(config.seed, processes.rank)

    def _counts(self, steps: int) -> list[int]:
        config = self.config
        if config.sampling is None:
            return [steps] * config.epochs
        try:
            return [reduced(steps, 1, ratio) for ratio in config.sampling.ratios(config.epochs)]
        except ValueError as error:
            raise ConfigError(f"sampling of {steps} batches of {config.batch_size} per epoch: {error}") from None

    def _network(self, model: nn.Module | None) -> nn.Module:
        config, device = self.config, self.processes.device
        seed_everything(config.seed)
        start, unplanned = _start_from(config, self.data.classes, self.notes.append)
        if model is None:
            network = build_model(config, pretrained=config.pretrained, start=start if unplanned else None)
        else:
            network = model
        if start is not None and not (unplanned and model is None):
            start(network)
        if config.whiten_stem:
            assert isinstance(self.data, TrainData)  # open_batches refuses files
            whiten_stem_(network, self.data.images, self.data.mean, self.data.std)
        if config.sync_bn:
            if device.type != "cuda":
                raise ConfigError("sync_bn needs GPUs: torch has no such norm on the CPU")
            network = convert_sync_batchnorm(network)
        self.layout = torch.channels_last if config.channels_last else torch.contiguous_format
        return network.to(device).to(memory_format=self.layout)

    def _mixup(self, classes: int) -> Mixup | None:
        config = self.config
        if not (config.mixup or config.cutmix):
            return None
        return Mixup(config.mixup, config.cutmix, label_smoothing=config.label_smoothing, num_classes=classes)

    def _make_task(self, size: tuple[int, int, int], teacher: nn.Module | None) -> None:
        config, processes = self.config, self.processes
        shown = data_parallel(self.model, processes.device) if config.strategy == "dp" else self.model
        self.task = make_task(config, shown, teacher, size)
        self._kept_steps = _kept_steps(config)
        self.rated = None if config.rate is None else Rated(config, self.model, self.batches, processes)
        self.update = self._update()
        compiled: Any = torch.compile(self.task) if config.compile else self.task
        self.called: Any = processes.wrap(compiled)

    def _update(self) -> Update:
        trained = self.model if isinstance(self.task, Classifier) else self.task
        grid = None if self.rated is None else self.rated.grid
        place = self.processes.world, self.processes.device
        return Update(self.config, self.model, trained, self.updates(self.steps), *place, grid)

    @property
    def network(self) -> nn.Module:
        """The network that the run returns: the moving average or the rounded network if there is one."""
        if self.rated is not None:
            return self.rated.network
        return self.model if self.update.ema is None else self.update.ema.module

    def updates(self, step: int) -> int:
        """Number of updates in the first ``step`` batches of an epoch."""
        return math.ceil(step / self.config.grad_accumulation)

    def checkpoint(
        self, epoch: int, history: list[dict[str, float]], step: int = 0, counts: Counts | None = None
    ) -> Checkpoint:
        """The state after ``epoch`` epochs and ``step`` batches. All processes must call it together."""
        states = self.processes.gather(capture(self.processes.device))
        model = self.model.state_dict()
        shipped = {} if self.network is self.model else self.network.state_dict()
        learned = {} if isinstance(self.task, Classifier) else self.task.state_dict()
        learned |= {} if self.rated is None else self.rated.state()
        return Checkpoint(
            self.config,
            epoch,
            model,
            self.update.tensors(),
            history,
            step=step,
            partial=counts.save() if counts else {},
            ema=shipped,
            task={name: value for name, value in learned.items() if not name.startswith("student.")},
            rng={str(rank): state for rank, state in enumerate(states)},
            world=self.processes.world,
            labels=self.data.classes,
            preprocessing=self.data.preprocessing,
            source=self.data.source,
            network_sha256=self.sha256,
            data_sha256=self.data.sha256,
            steps=self._kept_steps if self.rated is None else self.rated.grid.steps,
        )

    def restore(self, saved: Checkpoint, path: object) -> None:
        """Continue from a checkpoint.

        Raises:
            TrainingError: if it belongs to another config, number of processes or architecture.
        """
        if saved.config != self.config:
            differ = differences(saved.config, self.config).items()
            told = "; ".join(f"{name} is {theirs} there and {ours} here" for name, (theirs, ours) in differ)
            raise TrainingError(f"checkpoint {path} has another config ({told}); resume it with its own config")
        check_network_file(saved, str(path))
        pictures = self.data.sha256
        if saved.data_sha256 and (saved.data_sha256 != pictures or saved.labels != self.data.classes):
            raise TrainingError(
                f"checkpoint {path} was trained on other pictures than those of {self.data.source.partition(':')[2]} "
                f"(SHA-256 {saved.data_sha256[:12]}... there, {pictures[:12]}... here); to go on with them, train "
                f"{path} --data instead of resuming"
            )
        if saved.world != self.processes.world:
            raise TrainingError(
                f"checkpoint {path} is from a run with {saved.world} process{'es' * (saved.world > 1)}; this run has "
                f"{self.processes.world} and would see other batches, so resume it with the same number"
            )
        restore_model(self.model, saved.model, str(path))
        if self.network is not self.model:
            restore_model(self.network, saved.ema, str(path))
        if self.rated is not None:
            self.rated.load(saved.task, saved.steps)
            self.update = self._update()  # whose rates are in steps of the grid
        if saved.task:
            self.task.load_state_dict(saved.task, strict=False)
        self.update.restore(saved.optimizer)
        if saved.rng:
            restore(saved.rng[str(self.processes.rank)], self.processes.device)

    def loss(self, images: Tensor, labels: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and logits of a batch in the precision of the config, after mixup or cutmix if the config has them."""
        targets = labels
        if self.mixup is not None:
            images, targets = self.mixup(images, labels)
        precision = _PRECISIONS[self.config.precision]
        alone = _statistics_of_one(self.model) if len(images) == 1 else contextlib.nullcontext()
        with alone, torch.autocast(images.device.type, precision, enabled=precision is not torch.float32):
            loss, logits = self.called(images, targets, indices)
        return loss, logits

    def epoch(self, epoch: int, first: int, counts: Counts, shown: TrainProgress) -> Iterator[int]:
        """Train on the batches of an epoch from ``first`` on; after every update yield the number of batches done.

        Raises:
            NotFiniteError: in all processes, at the first loss that is not finite; the weights are those before it.
        """
        self.task.train()
        self.frozen.train()
        last, group = self.counts[epoch], self.config.grad_accumulation
        for step, (images, labels, indices) in enumerate(self.batches.epoch(epoch, first, last), first):
            together = min(group, last - step // group * group)  # the last update of an epoch may have fewer
            ends = (step + 1) % group == 0 or step + 1 == last
            self.update.schedule(epoch, step // group)
            if self.rated is not None:
                self.rated.grid.round_()
            with contextlib.nullcontext() if ends or self.processes.world == 1 else self.called.no_sync():
                loss, logits = self.loss(images, labels, indices)
                self._backward(loss / together if together > 1 else loss)
            mean, correct = self._told(loss.detach(), logits.detach(), labels)
            if not math.isfinite(mean):
                self.update.forget()
                raise self._not_finite(float(loss.detach()), indices, epoch, step)
            counts.add(mean, correct, len(labels) * self.processes.world)
            if ends:
                self.update.step()
            seen = counts.seen
            shown.step(epoch, counts.loss / seen, 100 * counts.correct / seen)
            if ends:
                yield step + 1
        if self.rated is not None:
            self.rated.settle(epoch, self.batches)

    def _backward(self, loss: Tensor) -> None:
        try:
            self.update.backward(loss)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if not is_own(self.config.model):
                raise
            raise TrainingError(f"{self.config.model} has no gradient: {' '.join(str(error).split())}") from error

    def _told(self, loss: Tensor, logits: Tensor, labels: Tensor) -> tuple[float, int]:
        """Mean loss and correct answers over the processes, with one reduction and one device wait per batch."""
        correct = (logits.argmax(1) == labels).sum()
        summed, right = self.processes.add(torch.stack((loss.double(), correct.double()))).tolist()
        return summed / self.processes.world, int(right)

    def _not_finite(self, loss: float, indices: Tensor, epoch: int, step: int) -> NotFiniteError:
        told = self.processes.gather((loss, indices.tolist()))
        bad = {rank: (value, pictures) for rank, (value, pictures) in enumerate(told) if not math.isfinite(value)}
        rank, (value, pictures) = next(iter(bad.items()))
        who = f" of process {rank}" if self.processes.world > 1 else ""
        text = (
            f"loss{who} is {value} in epoch {epoch + 1}, step {step + 1} of {self.counts[epoch]} (images "
            f"{pictures[:8]} and {max(0, len(pictures) - 8)} more)"
        )
        done = step - step % self.config.grad_accumulation
        return NotFiniteError(text, done, {rank: pictures for rank, (_, pictures) in bad.items()})

    def close(self) -> None:
        """Remove everything that the run attached to the network."""
        self.frozen.restore()
        if isinstance(self.task, Distiller):
            self.task.close()
        if self.config.compile:
            torch.compiler.reset()  # without it, the ninth network of a process would not be compiled
