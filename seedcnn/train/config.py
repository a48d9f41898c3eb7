"""What a training run is: one typed, frozen config, made by a recipe function."""

from __future__ import annotations

import ast
import dataclasses
import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from seedcnn.convert import METHODS, ConversionConfig, config_for, convert_
from seedcnn.errors import ConfigError
from seedcnn.models import create_model

__all__ = ["TrainConfig", "build_model", "override"]


@dataclass(frozen=True)
class TrainConfig:
    """A whole training run.

    Args:
        model: name for :func:`seedcnn.models.create_model`.
        model_options: its keyword arguments.
        convert: what the model is converted to, or None for the vanilla network.
        epochs: passes over the training pictures.
        batch_size: pictures a step; the last incomplete batch of an epoch is dropped.
        lr: peak learning rate.
        optimizer: timm optimizer name ("sgd" is SGD with Nesterov momentum).
        momentum, weight_decay: of the optimizer; norms and biases are not decayed.
        schedule: timm scheduler name, stepped after every batch.
        warmup_epochs: linear warm-up from ``warmup_lr``; may be fractional.
        warmup_lr, min_lr: where the schedule starts and ends.
        label_smoothing: of the cross entropy.
        augment: random crop with padding 4 and horizontal flip.
        channels_last: memory format of model and pictures.
        init_from: checkpoint whose weights the run starts from (fine-tuning), or "".
        seed: of the initial weights, the layers' seeds, the order of the pictures and the augmentation.
    """

    model: str
    model_options: dict[str, Any] = field(default_factory=dict)
    convert: ConversionConfig | None = None
    epochs: int = 30
    batch_size: int = 128
    lr: float = 0.1
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    warmup_epochs: float = 1.0
    warmup_lr: float = 1e-4
    min_lr: float = 0.0
    label_smoothing: float = 0.0
    augment: bool = True
    channels_last: bool = True
    init_from: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ConfigError(f"epochs (={self.epochs}) and batch_size (={self.batch_size}) must be positive")
        if not self.lr > 0:
            raise ConfigError(f"lr (={self.lr}) must be positive")
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise ConfigError(f"warmup_epochs (={self.warmup_epochs}) must be in [0, epochs (={self.epochs})]")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed (={self.seed}) must be in [0, 2**63)")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON; the conversion carries its method name."""
        result = dataclasses.asdict(self)
        if self.convert is not None:
            method = next(name for name, kind in METHODS.items() if type(self.convert) is kind)
            result["convert"] = {"method": method, **dataclasses.asdict(self.convert)}
        return result

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> TrainConfig:
        """The inverse of :meth:`to_dict`.

        Raises:
            ConfigError: if a field or method does not exist.
        """
        value = dict(value)
        if unknown := set(value) - set(cls.__dataclass_fields__):
            raise ConfigError(f"a training config has no field {', '.join(sorted(unknown))}")
        if value.get("convert") is not None:
            options = _tuples(value["convert"])
            value["convert"] = config_for(str(options.pop("method")), **options)
        value["model_options"] = _tuples(value.get("model_options", {}))
        return cls(**value)


def _tuples(options: dict[str, Any]) -> dict[str, Any]:
    """JSON knows lists only; our configs hold tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}


def build_model(config: TrainConfig) -> nn.Module:
    """The network of a config with fresh weights, converted as it says."""
    model = create_model(config.model, **config.model_options)
    if config.convert is not None:
        convert_(model, config.convert, seed=config.seed)
    return model


def _parse(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _set(target: Any, path: list[str], value: Any, whole: str) -> Any:
    name = path[0]
    if isinstance(target, dict):
        inner = _set(target.get(name), path[1:], value, whole) if len(path) > 1 else value
        return {**target, name: inner}
    if isinstance(target, type) or not dataclasses.is_dataclass(target):
        raise ConfigError(f"--set {whole}: {target!r} has no fields")
    known = [f.name for f in dataclasses.fields(target)]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}? " if near else ""
        raise ConfigError(
            f"--set {whole}: {type(target).__name__} has no field {name!r}; {hint}fields: {', '.join(known)}"
        )
    old = getattr(target, name)
    new = _set(old, path[1:], value, whole) if len(path) > 1 else value
    if isinstance(old, float) and isinstance(new, int) and not isinstance(new, bool):
        new = float(new)
    if len(path) == 1 and old is not None and not isinstance(new, type(old)):
        raise ConfigError(f"--set {whole}: {name} is a {type(old).__name__}, not {new!r}")
    changed: Any = dataclasses.replace(target, **{name: new})  # type: ignore[type-var]
    return changed


def override(config: TrainConfig, assignments: Iterable[str]) -> TrainConfig:
    """Apply ``a.b=c`` assignments; values are Python literals, anything else is a string.

    Raises:
        ConfigError: naming the field and the rule; near names are listed.
    """
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set {assignment}: it must look like field=value")
        config = _set(config, path.split("."), _parse(text), assignment)
    return config
