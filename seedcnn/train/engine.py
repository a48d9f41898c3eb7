"""The training loop."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import Tensor, nn
from torch.nn import functional as F

from seedcnn.data.transforms import normalize, random_crop_flip
from seedcnn.errors import ConfigError, TrainingError
from seedcnn.train.checkpoint import Checkpoint, load_checkpoint, restore_model, save_checkpoint
from seedcnn.train.config import TrainConfig, build_model
from seedcnn.train.progress import TrainProgress

__all__ = ["TrainData", "train"]


@dataclass(frozen=True, eq=False)
class TrainData:
    """Training pictures: uint8 [N, H, W, 3], labels int64 [N], mean and standard deviation per channel (0..1)."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def _schedule(config: TrainConfig, optimizer: torch.optim.Optimizer, steps: int) -> Scheduler:
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched=config.schedule,
        num_epochs=config.epochs,
        warmup_lr=config.warmup_lr,
        min_lr=config.min_lr,
        warmup_epochs=config.warmup_epochs,  # type: ignore[arg-type]  # timm multiplies it by the steps of an epoch
        warmup_prefix=False,
        step_on_epochs=False,
        updates_per_epoch=steps,
    )
    if scheduler is None:
        raise ConfigError(f"timm has no schedule {config.schedule!r}")
    return scheduler


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{index}.{name}": value if isinstance(value, Tensor) else torch.tensor(value)
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if value is not None
    }


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _generator(seed: int, epoch: int) -> torch.Generator:
    """Order and augmentation of an epoch depend on seed and epoch alone, so a resumed run sees the same pictures."""
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)


def train(
    config: TrainConfig,
    data: TrainData,
    checkpoint_path: str | Path,
    *,
    model: nn.Module | None = None,
    name: str = "train",
    resume: bool = False,
    progress: TrainProgress | None = None,
) -> tuple[nn.Module, Checkpoint]:
    """Train a network; after every epoch a checkpoint is written.

    With ``resume`` an existing checkpoint of the same config is continued, and ends with the same weights as an
    unbroken run on the same machine and number of threads.

    Args:
        model: a prepared network of the config's architecture to start from, instead of a fresh one.

    Returns:
        The network in eval mode and the last checkpoint.

    Raises:
        ConfigError: if the config names something that does not exist or the data are smaller than a batch.
        TrainingError: if the loss is not finite (the last good checkpoint stays), a checkpoint does not fit, or it
            cannot be written.
    """
    run = _Run(config, data, model)
    done, history = 0, []
    if resume and Path(checkpoint_path).is_file():
        saved = load_checkpoint(checkpoint_path)
        if saved.config != config:
            raise TrainingError(f"checkpoint {checkpoint_path} is of another config; resume it with its own")
        restore_model(run.model, saved.model, checkpoint_path)
        _restore_optimizer(run.optimizer, saved.optimizer)
        done, history = saved.epoch, saved.history
    state = run.checkpoint(done, history)
    with progress or TrainProgress(name, config.epochs, run.steps) as shown:
        shown.resume(done)
        for epoch in range(done, config.epochs):
            row = run.epoch(epoch, shown)
            history = [*history, row]
            state = run.checkpoint(epoch + 1, history)
            save_checkpoint(checkpoint_path, state)
            shown.epoch(epoch, row)
    return run.model.eval(), state


class _Run:
    """Model, optimizer, schedule and data of one training run."""

    def __init__(self, config: TrainConfig, data: TrainData, model: nn.Module | None) -> None:
        self.config, self.data = config, data
        self.steps = len(data.images) // config.batch_size
        if not self.steps:
            raise ConfigError(f"batch_size (={config.batch_size}) exceeds the {len(data.images)} training pictures")
        torch.manual_seed(config.seed)
        self.model = build_model(config) if model is None else model
        if config.init_from:
            restore_model(self.model, load_checkpoint(config.init_from).model, config.init_from)
        self.layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self.model = self.model.to(memory_format=self.layout)
        self.optimizer = create_optimizer_v2(
            self.model,
            opt=config.optimizer,
            lr=config.lr,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
        )
        self.scheduler = _schedule(config, self.optimizer, self.steps)
        self.images = torch.from_numpy(np.ascontiguousarray(data.images.transpose(0, 3, 1, 2)))
        self.labels = torch.from_numpy(data.labels)

    def checkpoint(self, epoch: int, history: list[dict[str, float]]) -> Checkpoint:
        """The state after ``epoch`` epochs."""
        return Checkpoint(self.config, epoch, self.model.state_dict(), _optimizer_tensors(self.optimizer), history)

    def batch(self, picked: Tensor, generator: torch.Generator) -> Tensor:
        """Augmented, normalised pictures, float32 [n, 3, H, W]."""
        images = self.images[picked]
        if self.config.augment:
            images = random_crop_flip(images, generator)
        return normalize(images, self.data.mean, self.data.std).contiguous(memory_format=self.layout)

    def epoch(self, epoch: int, shown: TrainProgress) -> dict[str, float]:
        """One pass over the pictures; returns mean loss, training accuracy (percent), images/s and seconds."""
        self.model.train()
        size = self.config.batch_size
        generator = _generator(self.config.seed, epoch)
        order = torch.randperm(len(self.images), generator=generator)
        loss_sum, correct, seen, start = 0.0, 0, 0, time.monotonic()
        for step in range(self.steps):
            self.scheduler.step_update(epoch * self.steps + step)
            picked = order[step * size : (step + 1) * size]
            target = self.labels[picked]
            logits = self.model(self.batch(picked, generator))
            loss = F.cross_entropy(logits, target, label_smoothing=self.config.label_smoothing)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise TrainingError(
                    f"loss is {value} in epoch {epoch + 1}, step {step + 1} of {self.steps} (pictures "
                    f"{picked[:8].tolist()} and {size - 8} more); the checkpoint of the epoch before stays"
                )
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            loss_sum += value * size
            correct += int((logits.argmax(1) == target).sum())
            seen += size
            shown.step(epoch, size, loss_sum / seen, 100 * correct / seen)
        seconds = time.monotonic() - start
        return {
            "loss": loss_sum / seen,
            "accuracy": 100 * correct / seen,
            "images_per_s": seen / seconds,
            "seconds": seconds,
        }
