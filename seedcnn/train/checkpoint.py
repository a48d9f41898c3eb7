"""Checkpoints: one safetensors file with all tensors of a run and, as JSON metadata, config, progress and history."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from seedcnn.errors import TrainingError
from seedcnn.files import remove, write_file
from seedcnn.train.config import TrainConfig, build_model

__all__ = [
    "Checkpoint",
    "beside",
    "keep_checkpoint",
    "load_checkpoint",
    "load_model",
    "restore_model",
    "save_checkpoint",
]

_KEY = "seedcnn.checkpoint"
_TENSORS = ("model", "optimizer", "ema", "task", "rng")
_NUMBERS = ("step", "world", "best", "partial")


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training run between two updates. Epoch and step determine its position in the schedule.

    Attributes:
        config: the config of the run.
        epoch: number of finished epochs.
        model: the state_dict of the network.
        optimizer: the state of the optimizer, by parameter index and name, and of the gradient scaler; empty if the
            run is not to be resumed.
        history: one dict of numbers for each finished epoch.
        step: number of finished batches of the next epoch.
        partial: sums over these batches.
        ema: the state_dict of the moving average; empty if there is none.
        task: learned tensors of the loss, such as the projections of a distillation.
        rng: the states of the random generators, by process.
        world: number of processes of the run.
        best: highest validation accuracy so far, in percent; None without validation.
    """

    config: TrainConfig
    epoch: int
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    step: int = 0
    partial: dict[str, Any] = field(default_factory=dict)
    ema: dict[str, Tensor] = field(default_factory=dict)
    task: dict[str, Tensor] = field(default_factory=dict)
    rng: dict[str, Tensor] = field(default_factory=dict)
    world: int = 1
    best: float | None = None

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights to use the network with: the moving average if there is one."""
        return self.ema or self.model


def _encode(checkpoint: Checkpoint) -> bytes:
    tensors = {
        f"{part}.{name}": value.detach().cpu().contiguous()
        for part in _TENSORS
        for name, value in getattr(checkpoint, part).items()
    }
    meta = {"config": checkpoint.config.to_dict(), "epoch": checkpoint.epoch, "history": checkpoint.history}
    meta |= {name: getattr(checkpoint, name) for name in _NUMBERS}
    return save(tensors, {_KEY: json.dumps(meta)})


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, data)
    except OSError as error:
        raise TrainingError(f"checkpoint {path} cannot be written: {error}") from error


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint atomically: after a crash or on a full disk the previous file remains.

    Raises:
        TrainingError: if it cannot be written.
    """
    _write(Path(path), _encode(checkpoint))


def beside(path: str | Path, what: str) -> Path:
    """The path of a related checkpoint: ``beside("runs/a.ckpt", "best")`` is runs/a.best.ckpt."""
    path = Path(path)
    return path.with_name(f"{path.stem}.{what}{path.suffix}")


def keep_checkpoint(path: str | Path, checkpoint: Checkpoint, *, keep: int = 1, best: bool = False) -> None:
    """Write the checkpoint of an epoch and copies beside it, then remove copies that are too old.

    Args:
        path: file of the latest checkpoint.
        checkpoint: the checkpoint.
        keep: number of epochs to keep checkpoints of; from 2 on each has a copy such as NAME.epoch0007.ckpt.
        best: also write NAME.best.ckpt.

    Raises:
        TrainingError: if one cannot be written; existing files remain.
    """
    path, data = Path(path), _encode(checkpoint)
    _write(path, data)
    if best:
        _write(beside(path, "best"), data)
    if keep > 1:
        _write(beside(path, f"epoch{checkpoint.epoch:04d}"), data)
        named = re.compile(re.escape(path.stem) + r"\.epoch(\d+)" + re.escape(path.suffix))
        for old in path.parent.iterdir():
            if (match := named.fullmatch(old.name)) and int(match[1]) <= checkpoint.epoch - keep:
                remove(old)


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        TrainingError: if it is missing, damaged, or not a checkpoint of seedcnn.
    """
    if not Path(path).is_file():
        raise TrainingError(f"there is no checkpoint {path}")
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in _TENSORS}
    try:
        with safe_open(str(path), framework="pt") as file:
            meta: dict[str, Any] = json.loads((file.metadata() or {})[_KEY])
            for key in file.keys():  # noqa: SIM118
                part, _, name = key.partition(".")
                parts[part][name] = file.get_tensor(key)
        config = TrainConfig.from_dict(meta["config"])
        numbers: dict[str, Any] = {name: meta[name] for name in _NUMBERS if name in meta}
        numbers |= {"history": list(meta["history"]), **parts}
        return Checkpoint(config, int(meta["epoch"]), **numbers)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise TrainingError(f"{path} is not a checkpoint of seedcnn, or is damaged: {error}") from error


def restore_model(model: nn.Module, state: dict[str, Tensor], path: str | Path) -> None:
    """Load weights into a network.

    Raises:
        TrainingError: if they belong to another architecture.
    """
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise TrainingError(f"checkpoint {path} does not fit the network: {error}") from error


def load_model(path: str | Path) -> tuple[nn.Module, Checkpoint]:
    """Build the network of a checkpoint, and load its weights or, if there is one, their moving average.

    Returns:
        The network in eval mode on the CPU, and the checkpoint.

    Raises:
        TrainingError: if the checkpoint is missing, damaged, or does not fit its own config.
    """
    checkpoint = load_checkpoint(path)
    with torch.random.fork_rng(devices=[]):
        model = build_model(checkpoint.config)
    restore_model(model, checkpoint.weights, path)
    return model.eval(), checkpoint
