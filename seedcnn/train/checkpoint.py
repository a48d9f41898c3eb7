"""Checkpoints: one safetensors file with weights, optimizer state and, as JSON metadata, config and history."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from seedcnn.errors import TrainingError
from seedcnn.files import write_file
from seedcnn.train.config import TrainConfig, build_model

__all__ = ["Checkpoint", "load_checkpoint", "load_model", "save_checkpoint"]

_KEY = "seedcnn.checkpoint"


@dataclass(frozen=True)
class Checkpoint:
    """A training run between two epochs.

    Attributes:
        config: the run.
        epoch: epochs done.
        model: the network's state_dict.
        optimizer: the optimizer's state by parameter index and name; empty where nothing is to be resumed.
        history: one dict of numbers for each epoch done.
    """

    config: TrainConfig
    epoch: int
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write atomically: a crash or a full disk leaves the file that stood.

    Raises:
        TrainingError: if it cannot be written.
    """
    path = Path(path)
    tensors = {f"model.{name}": value for name, value in checkpoint.model.items()}
    tensors |= {f"optimizer.{name}": value for name, value in checkpoint.optimizer.items()}
    meta = {"config": checkpoint.config.to_dict(), "epoch": checkpoint.epoch, "history": checkpoint.history}
    data = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, {_KEY: json.dumps(meta)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, data)
    except OSError as error:
        raise TrainingError(f"checkpoint {path} cannot be written: {error}") from error


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        TrainingError: if it is missing, damaged, or not a checkpoint of seedcnn.
    """
    if not Path(path).is_file():
        raise TrainingError(f"there is no checkpoint {path}")
    try:
        with safe_open(str(path), framework="pt") as file:
            meta: dict[str, Any] = json.loads((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        config = TrainConfig.from_dict(meta["config"])
        epoch, history = int(meta["epoch"]), list(meta["history"])
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise TrainingError(f"{path} is not a checkpoint of seedcnn, or is damaged: {error}") from error
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = value
    return Checkpoint(config, epoch, parts["model"], parts["optimizer"], history)


def restore_model(model: nn.Module, state: dict[str, Tensor], path: str | Path) -> None:
    """Load weights into ``model``.

    Raises:
        TrainingError: if they are of another architecture.
    """
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise TrainingError(f"checkpoint {path} does not fit the network: {error}") from error


def load_model(path: str | Path) -> tuple[nn.Module, Checkpoint]:
    """Build the network of a checkpoint and load its weights.

    Returns:
        The network in eval mode on the CPU, and the checkpoint.

    Raises:
        TrainingError: if the checkpoint is missing, damaged, or does not fit its own config.
    """
    checkpoint = load_checkpoint(path)
    with torch.random.fork_rng(devices=[]):
        model = build_model(checkpoint.config)
    restore_model(model, checkpoint.model, path)
    return model.eval(), checkpoint
