"""Weights of a classification network for the backbone of a detector or a segmenter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from seedcnn.convert import ConversionConfig, convert_, convert_layers_, from_plain, lowpass_
from seedcnn.convert.copies import copy_without_weights
from seedcnn.convert.parts import parts_of
from seedcnn.errors import ConfigError
from seedcnn.layers import ConvLayer
from seedcnn.layers.families import fields_without_effect_forgiven
from seedcnn.literals import parse_json
from seedcnn.messages import Say
from seedcnn.models.weights import load_state
from seedcnn.typed import stamped

__all__ = ["backbone_of", "load_backbone_"]

_CHECKPOINT = "seedcnn.checkpoint"
_SHOWN = 5


def backbone_of(model: nn.Module) -> nn.Module:
    """Return the body of a detector or a segmenter: its backbone without a neck inside it.

    Raises:
        ConfigError: if the network has no single backbone.
    """
    parts = parts_of(model)
    places = () if parts is None else parts.places.get("backbone", ())
    if len(places) != 1:
        raise ConfigError(f"{type(model).__name__} has {len(places)} backbones; weights can be loaded into one")
    found = model.get_submodule(places[0])
    return found.get_submodule("body") if hasattr(found, "body") else found


def load_backbone_(model: nn.Module, path: str | Path, progress: Say | None = None) -> None:
    """Load the weights of a classification network into the backbone of a detector or a segmenter, in place.

    If the checkpoint's network was converted and the backbone is not, the backbone is converted in the same way first,
    low-pass filters included. Its maps are then those of the checkpoint's network, bit by bit where the backbone's
    norms are not frozen. What the checkpoint has beyond the body, its classifier, is left out.

    Args:
        model: changed in place, or not at all if the weights do not fit.
        path: of a checkpoint of ``seedcnn train``, or of a file of weights (:func:`seedcnn.models.weights.load_state`).
        progress: called with one sentence for what was left out.

    Raises:
        ConfigError: if the file holds no weights, or lacks some of the body's or has them in another shape.
        ConversionError: if the backbone cannot be converted as the checkpoint says.
    """
    body = backbone_of(model)
    state, config = _read(path)
    convert = _conversion(config, path) if not any(isinstance(each, ConvLayer) for each in body.modules()) else None
    trial = copy_without_weights(body)
    if convert is not None:
        convert(trial)
    own = trial.state_dict()
    missing = [name for name in own if name not in state]
    shaped = [name for name in own if name in state and own[name].shape != state[name].shape]
    if missing or shaped:
        told = [f"{len(missing)} of its tensors are missing: {_few(missing)}"] if missing else []
        each = [f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}" for name in shaped]
        told += [f"{len(shaped)} have another shape: {_few(each)}"] if shaped else []
        raise ConfigError(f"the weights of {path} do not fit the backbone, a {type(body).__name__}; {'; '.join(told)}")
    if convert is not None:
        convert(body)
    body.load_state_dict({name: state[name] for name in own})
    left = sorted(state.keys() - own.keys())
    if left and progress is not None:
        progress(f"{path}: the backbone takes {len(own)} tensors; the rest, {_few(left)}, is left out")


def _few(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _read(path: str | Path) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Return the weights in a file, and the config if it is a checkpoint of ours, else nothing."""
    if not Path(path).is_file():
        raise ConfigError(f"there is no file of weights {path}")
    try:
        with safe_open(str(path), framework="pt") as file:
            meta = (file.metadata() or {}).get(_CHECKPOINT)
            if meta is not None:
                names = list(file.keys())
                averaged = any(name.startswith("ema.") for name in names)
                prefix = "ema." if averaged else "model."
                state = {n.removeprefix(prefix): file.get_tensor(n) for n in names if n.startswith(prefix)}
                return state, parse_json(meta)["config"]
    except SafetensorError:
        pass  # a file of torch.save
    return load_state(path), {}


def _conversion(config: Mapping[str, Any], path: str | Path) -> Callable[[nn.Module], None] | None:
    """Return how the network of a checkpoint was converted, to be done to a body; None if it was not."""

    def config_of(plain: Mapping[str, Any]) -> ConversionConfig:
        with fields_without_effect_forgiven():
            return from_plain(stamped(plain))

    try:
        whole = None if config.get("convert") is None else config_of(config["convert"])
        overrides = {k: None if v is None else config_of(v) for k, v in (config.get("overrides") or {}).items()}
        plan = {name: config_of(plain) for name, plain in (config.get("plan") or {}).items()}
    except ConfigError as error:
        raise ConfigError(f"checkpoint {path}: {error}") from error
    seed, lowpass = config.get("seed", 0), config.get("lowpass", "none")

    def convert(body: nn.Module) -> None:
        names = [name for name, _ in body.named_modules()]
        if whole is not None:
            matching = {k: v for k, v in overrides.items() if any(fnmatchcase(name, k) for name in names)}
            convert_(body, whole, seed=seed, overrides=matching)
        if plan:
            convert_layers_(body, {name: each for name, each in plan.items() if name in names}, seed=seed)
        if lowpass != "none":
            lowpass_(body, lowpass)

    return convert if whole is not None or plan or lowpass != "none" else None
