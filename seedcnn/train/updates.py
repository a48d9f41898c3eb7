"""Optimizer, schedule, gradient scaler and moving average of a run, built with timm's factories."""

from __future__ import annotations

import math
from typing import Any

import torch
from timm.optim import create_optimizer_v2, get_optimizer_info, param_groups_weight_decay
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from seedcnn.errors import ConfigError
from seedcnn.train.config import MUON_SGD, TrainConfig
from seedcnn.train.muon import MuonSGD
from seedcnn.train.rate import LatentGrid

__all__ = ["Update", "lr_noise", "peak_lr"]

_NOISE_LIMIT = 0.67  # timm's lr_noise_pct


def peak_lr(config: TrainConfig, world: int = 1) -> float:
    """The peak learning rate by the linear-scaling rule (Goyal et al., 2017): proportional to the images per update.

    Args:
        config: of the run.
        world: number of processes, each with ``config.batch_size`` images per step.
    """
    return config.lr * _growth(config, world)


def _growth(config: TrainConfig, world: int) -> float:
    if not config.lr_base_batch:
        return 1.0
    return config.batch_size * config.grad_accumulation * world / config.lr_base_batch


def _optimizer(config: TrainConfig, task: nn.Module, world: int, grid: LatentGrid | None) -> torch.optim.Optimizer:
    more: dict[str, Any] = {}
    lr = peak_lr(config, world)
    if grid is not None and config.rate is not None:
        apart = {id(p) for p in grid.weights.values()}
        rest = [p for p in task.parameters() if p.requires_grad and id(p) not in apart]
        return torch.optim.Adam([{"params": rest}, *grid.groups(config.rate.lr)], lr=lr)
    if config.optimizer.lower() == MUON_SGD:
        return MuonSGD(
            task,
            _by_decay(config, task),
            lr=lr,
            momentum=config.momentum,
            muon_lr=config.muon_lr * _growth(config, world),
            muon_momentum=config.muon_momentum,
            weight_decay=config.weight_decay,
        )
    try:
        if config.opt_eps:
            if not get_optimizer_info(config.optimizer.lower().split("_")[-1]).has_eps:  # timm would ignore it
                raise ConfigError(f"opt_eps (={config.opt_eps}): the optimizer {config.optimizer!r} has no epsilon")
            more["eps"] = config.opt_eps
        return create_optimizer_v2(
            task,
            opt=config.optimizer,
            lr=lr,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            filter_bias_and_bn=not config.decay_norms,
            **more,
        )
    except (AssertionError, ValueError) as error:
        raise ConfigError(f"timm cannot make the optimizer {config.optimizer!r}: {error}") from error


def _by_decay(config: TrainConfig, task: nn.Module) -> list[dict[str, Any]]:
    """Parameter groups: all that learns, with norms and biases apart unless they decay, too."""
    if config.decay_norms:
        return [{"params": [p for p in task.parameters() if p.requires_grad], "weight_decay": config.weight_decay}]
    return param_groups_weight_decay(task, config.weight_decay)


def _schedule(config: TrainConfig, optimizer: torch.optim.Optimizer, updates: int) -> Scheduler:
    interval = config.decay_epochs[0] if config.schedule == "step" and config.decay_epochs else None
    # timm decays at update t when t + 1 reaches a milestone, one update too early; half an update later is exact.
    milestones = [(math.ceil(round(epoch * updates, 6)) + 0.5) / updates for epoch in config.decay_epochs]
    linear = config.schedule == "linear"  # timm's poly of power 1
    try:
        scheduler, _ = create_scheduler_v2(
            optimizer,
            sched="poly" if linear else config.schedule,
            num_epochs=config.epochs - config.cooldown_epochs,
            decay_epochs=interval,
            decay_milestones=milestones,  # type: ignore[arg-type]  # timm multiplies them by the updates
            decay_rate=1.0 if linear else config.decay_rate,
            warmup_lr=config.warmup_lr,
            min_lr=config.min_lr,
            warmup_epochs=config.warmup_epochs,  # type: ignore[arg-type]  # timm multiplies it by the updates
            warmup_prefix=False,
            step_on_epochs=False,
            updates_per_epoch=updates,
        )
    except (AssertionError, ValueError) as error:
        raise ConfigError(f"timm cannot make the schedule {config.schedule!r} for steps by update: {error}") from error
    if scheduler is None:
        raise ConfigError(f"timm has no schedule {config.schedule!r}")
    return scheduler


def lr_noise(config: TrainConfig, epoch: int) -> float:
    """The relative change of the learning rate in an epoch; 0 outside of ``config.lr_noise``.

    It is timm's noise: normal, drawn again until it is within the limit. With schedules stepped by update timm would
    draw it for every update, where it averages out.
    """
    if not config.lr_noise:
        return 0.0
    first, end = (*config.lr_noise, 1.0)[:2]
    if not first <= epoch / (config.epochs - config.cooldown_epochs) < end:
        return 0.0
    generator = torch.Generator().manual_seed((config.seed + epoch) % 2**63)
    while True:
        noise = float(torch.randn(1, generator=generator))
        if abs(noise) < _NOISE_LIMIT:
            return noise


class Update:
    """Turns gradients into weights: scaler, clipping, optimizer, schedule, moving average.

    Args:
        config: of the run.
        model: the network, whose moving average is kept.
        task: the module to train: the network, or a module that also holds the learnable parts of its loss.
        updates: number of updates of a full epoch.
        world: number of processes.
        device: device of the weights.
        grid: of training on the grid, or None.

    Raises:
        ConfigError: if timm does not know the optimizer or the schedule, ``opt_eps`` is set for an optimizer that has
            no epsilon, or Muon finds no dense convolution.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: nn.Module,
        task: nn.Module,
        updates: int,
        world: int,
        device: torch.device,
        grid: LatentGrid | None = None,
    ) -> None:
        self.config, self.model, self.updates, self.grid = config, model, updates, grid
        self.optimizer = _optimizer(config, task, world, grid)
        self.scheduler = _schedule(config, self.optimizer, updates)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self.ema = ModelEmaV3(model, decay=config.ema) if config.ema else None
        self._learnable = [p for group in self.optimizer.param_groups for p in group["params"]]

    def schedule(self, epoch: int, update: int) -> None:
        """Set the learning rate of an update; it depends only on these two numbers."""
        self.scheduler.step_update(epoch * self.updates + update)
        if noise := lr_noise(self.config, epoch):
            for group in self.optimizer.param_groups:
                group["lr"] *= 1 + noise

    @property
    def lr(self) -> float:
        """The current learning rate."""
        return float(self.optimizer.param_groups[0]["lr"])

    def backward(self, loss: Tensor) -> None:
        """Backpropagate a loss, and add to the gradients."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self) -> None:
        """Update the weights, and clear the gradients."""
        if self.grid is not None:
            self.grid.restore_()
            self.grid.add_gradients()
        if self.config.clip_grad:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self._learnable, self.config.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.forget()
        if self.ema is not None:
            self.ema.update(self.model)

    def forget(self) -> None:
        """Clear the gradients, and put back the weights that were rounded."""
        if self.grid is not None:
            self.grid.restore_()
        self.optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """The state of the optimizer, by parameter index and name, and that of the scaler."""
        found = {
            f"{index}.{name}": value if isinstance(value, Tensor) else torch.tensor(value)
            for index, state in self.optimizer.state_dict()["state"].items()
            for name, value in state.items()
            if value is not None
        }
        scaler = self.scaler.state_dict()
        return found | {
            f"scaler.{name}": torch.tensor(scaler[name]) for name in ("scale", "_growth_tracker") if name in scaler
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Restore the state that :meth:`tensors` returned."""
        state: dict[int, dict[str, Tensor]] = {}
        scaler = self.scaler.state_dict()
        for key, value in tensors.items():
            index, _, name = key.partition(".")
            if index == "scaler":
                scaler[name] = value.item()
            else:
                state.setdefault(int(index), {})[name] = value
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.scaler.load_state_dict(scaler)
