"""Checkpoints: a safetensors file with all tensors of a run and, as JSON metadata, its config, position and history."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from seedcnn.bundle import Preprocessing
from seedcnn.bundle.container import KEY as BUNDLE
from seedcnn.convert import METHODS, ConversionConfig, loaded_plugins, method_of
from seedcnn.convert.plugins import Plugin
from seedcnn.data.sets.own import TrainedOn
from seedcnn.errors import BundleError, ConfigError, PluginError, TrainingError
from seedcnn.files import prepare_output, remove, write_file
from seedcnn.layers.families import fields_without_effect_forgiven
from seedcnn.literals import parse_json
from seedcnn.models.own import is_own, sha256_of
from seedcnn.train.building import build_model
from seedcnn.train.config import TrainConfig

__all__ = [
    "Checkpoint",
    "beside",
    "check_network_file",
    "check_saving",
    "keep_checkpoint",
    "load_checkpoint",
    "load_model",
    "restore_model",
    "save_checkpoint",
    "table_of",
]

_KEY = "seedcnn.checkpoint"
_TENSORS = ("model", "optimizer", "ema", "task", "rng")
_NUMBERS = ("step", "world", "best", "partial", "source", "network_sha256", "data_sha256", "steps")


@dataclass(frozen=True)
class Checkpoint:
    """A training run between two updates. Its position in the schedule follows from epoch and step.

    Attributes:
        config: the run.
        epoch: number of finished epochs.
        model: the network's state_dict.
        optimizer: the optimizer's state by parameter index and name, and the gradient scaler's; empty if the run
            cannot be resumed.
        history: one dict of numbers for each finished epoch.
        step: batches done in the epoch that follows.
        partial: running sums over these batches.
        ema: the moving average's state_dict, or that of the rounded network after training on the grid; else empty.
        task: learned tensors of the loss, such as the projections of a distillation.
        rng: states of the random generators by process.
        world: number of processes of the run.
        best: highest validation accuracy so far, percent; None without validation.
        labels: the class names of the data, by label; () if they are not known.
        preprocessing: the rule by which a picture becomes an input; None if it is not known.
        source: NAME or NAME:DIRECTORY of the data; "" if it is not known.
        network_sha256: digest of the file with the user's network; "" for any other network.
        data_sha256: digest of pictures of one's own, as they were decoded, with their labels; "" for other data.
        steps: step of each weight's grid by parameter name, after training on the grid; empty otherwise.
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
    labels: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    source: str = ""
    network_sha256: str = ""
    data_sha256: str = ""
    steps: dict[str, float] = field(default_factory=dict)

    @property
    def trained_on(self) -> TrainedOn | None:
        """The data that the network was trained on; None if the checkpoint was made before checkpoints kept it."""
        if self.preprocessing is None or not self.labels:
            return None
        return TrainedOn(self.labels, self.preprocessing, self.source, self.config.val)

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights to use: the moving average or the rounded weights if there are any."""
        return self.ema or self.model


def _plugins(config: TrainConfig) -> tuple[Plugin, ...]:
    """Return the plugin files whose methods a run uses."""
    used = [each for each in (config.convert, *config.overrides.values(), *config.plan.values()) if each is not None]
    for each in used:  # a method inside another, as the pointwise of a depthwise-separable layer
        inner = [getattr(each, item.name) for item in fields(each)]
        used += [value for value in inner if isinstance(value, ConversionConfig)]
    return loaded_plugins(method_of(each) for each in used)


def _check_plugins(wanted: list[dict[str, Any]], path: str | Path) -> None:
    """Refuse a checkpoint of a plugin that is not loaded, or whose file has changed since."""
    loaded = loaded_plugins()
    for each in wanted:
        name, digest, methods = each["name"], each["sha256"], each["methods"]
        if any(one.sha256 == digest for one in loaded):
            continue
        if not set(methods) <= METHODS.keys():
            raise PluginError(f"{path} needs the plugin {name}, which registers {', '.join(methods)}: --plugin {name}")
        raise PluginError(
            f"{path} was trained with another version of the plugin {name} (SHA-256 {digest[:12]}...); "
            "load the file that it was trained with"
        )


def _encode(checkpoint: Checkpoint) -> bytes:
    tensors: dict[str, Tensor] = {}
    stored: set[int] = set()
    for part in _TENSORS:
        for name, value in getattr(checkpoint, part).items():
            value = value.detach().cpu().contiguous()
            storage = value.untyped_storage().data_ptr()
            # A tensor under two names, or a view of another, is written twice: safetensors keeps no shared memory.
            tensors[f"{part}.{name}"] = value.clone() if storage in stored else value
            stored.add(storage)
    meta = {"config": checkpoint.config.to_dict(), "epoch": checkpoint.epoch, "history": checkpoint.history}
    meta |= {name: getattr(checkpoint, name) for name in _NUMBERS}
    meta["labels"] = list(checkpoint.labels)
    meta["preprocessing"] = checkpoint.preprocessing and checkpoint.preprocessing.to_json()
    meta["plugins"] = [asdict(each) for each in _plugins(checkpoint.config)]
    return save(tensors, {_KEY: json.dumps(meta)})


def check_saving(path: Path, checkpoint: Checkpoint) -> None:
    """Check before any work that a run's checkpoints can be encoded, and written to ``path``.

    Raises:
        ConfigError: if something in the config is not what JSON can hold.
        TrainingError: if the path is a directory, its directory cannot be made, or is read-only.
    """
    _encode(checkpoint)
    for each in (path, table_of(path)):
        try:
            prepare_output(each)
        except OSError as error:
            raise TrainingError(f"{each} cannot be written: {error.strerror}") from error


def table_of(path: Path) -> Path:
    """Return the path of a checkpoint's table of epochs: runs/a.ckpt -> runs/a.csv, runs/v1.2 -> runs/v1.2.csv."""
    return path.with_suffix(".csv") if path.suffix == ".ckpt" else path.with_name(f"{path.name}.csv")


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, data)
    except OSError as error:
        raise TrainingError(f"checkpoint {path} cannot be written: {error}") from error


def save_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write atomically: after a crash or on a full disk the previous file is still there.

    Raises:
        TrainingError: if it cannot be written.
    """
    _write(Path(path), _encode(checkpoint))


def beside(path: str | Path, what: str) -> Path:
    """Insert ``what`` between stem and suffix of a checkpoint's name: runs/a.ckpt, "best" -> runs/a.best.ckpt."""
    path = Path(path)
    return path.with_name(f"{path.stem}.{what}{path.suffix}")


def keep_checkpoint(path: str | Path, checkpoint: Checkpoint, *, keep: int = 1, best: bool = False) -> None:
    """Write the checkpoint of an epoch, and copies of it next to it; then remove the copies that are too old.

    Args:
        path: file of the newest checkpoint.
        keep: number of epochs whose checkpoints are kept; from 2 on there are copies named NAME.epoch0007.ckpt.
        best: also write a copy named NAME.best.ckpt.

    Raises:
        TrainingError: if a file cannot be written; the previous files stay.
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
        PluginError: if it needs a plugin that is not loaded, or that has changed since.
        TrainingError: if it is missing, damaged, or not a checkpoint of seedcnn.
        ConfigError: if its config is of another format, or has a field or a value that this version does not know.
    """
    if Path(path).is_dir():
        raise TrainingError(f"{path} is a directory, not a checkpoint")
    if not Path(path).is_file():
        raise TrainingError(f"there is no checkpoint {path}")
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in _TENSORS}
    try:
        with safe_open(str(path), framework="pt") as file:
            found = file.metadata() or {}
            if _KEY not in found and (BUNDLE in found or "seedcnn.manifest" in found):
                raise TrainingError(f"{path} is a bundle, not a checkpoint: give the checkpoint it was packed from")
            meta: dict[str, Any] = parse_json(found[_KEY])
            for key in file.keys():  # noqa: SIM118
                part, _, name = key.partition(".")
                parts[part][name] = file.get_tensor(key)
        _check_plugins(meta.get("plugins", []), path)
        with fields_without_effect_forgiven():
            config = TrainConfig.from_dict(meta["config"])
        numbers: dict[str, Any] = {name: meta[name] for name in _NUMBERS if name in meta}
        numbers |= {"history": list(meta["history"]), "labels": tuple(meta.get("labels", ())), **parts}
        if (rule := meta.get("preprocessing")) is not None:
            numbers["preprocessing"] = Preprocessing.from_json(rule)
        return Checkpoint(config, int(meta["epoch"]), **numbers)
    except ConfigError as error:
        raise ConfigError(f"checkpoint {path}: {error}") from error
    except (SafetensorError, BundleError, KeyError, ValueError, TypeError) as error:
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


def check_network_file(checkpoint: Checkpoint, path: str | Path) -> None:
    """Refuse a checkpoint of a network of the user's whose file has changed since.

    Raises:
        TrainingError: with both digests.
        ConfigError: if there is no such file any more.
    """
    model = checkpoint.config.model
    if not is_own(model) or not checkpoint.network_sha256:
        return
    if (found := sha256_of(model)) != checkpoint.network_sha256:
        raise TrainingError(
            f"{path} was trained with another {model}: the file's SHA-256 was "
            f"{checkpoint.network_sha256[:12]}... and is {found[:12]}... now"
        )


def load_model(path: str | Path) -> tuple[nn.Module, Checkpoint]:
    """Build the network of a checkpoint and load its weights (the moving average if there is one).

    Returns:
        The network in eval mode on the CPU, and the checkpoint.

    Raises:
        TrainingError: if the checkpoint is missing, damaged, or does not fit its own config.
        ConfigError: as :func:`load_checkpoint`.
    """
    checkpoint = load_checkpoint(path)
    return model_of(checkpoint, path), checkpoint


def model_of(checkpoint: Checkpoint, path: str | Path) -> nn.Module:
    """Build the network of a checkpoint that was read from ``path``, in eval mode on the CPU, as :func:`load_model`.

    Raises:
        TrainingError: if the checkpoint does not fit its own config.
    """
    check_network_file(checkpoint, path)
    with torch.random.fork_rng(devices=[]):
        model = build_model(checkpoint.config)
    restore_model(model, checkpoint.weights, path)
    return model.eval()
