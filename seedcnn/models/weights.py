"""Weights from elsewhere: a state_dict in a safetensors file, a .pth file or a checkpoint of seedcnn."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from seedcnn.errors import ConfigError
from seedcnn.messages import Say

__all__ = ["load_state", "load_weights"]

_WRAPPERS = ("state_dict", "model", "model_state_dict", "net", "network")
_PREFIXES = ("module.", "_orig_mod.", "model.")
_SHOWN = 5


def load_state(path: str | Path, progress: Say | None = None) -> dict[str, Tensor]:
    """Read a state_dict: safetensors, or what ``torch.save`` wrote of tensors alone (``weights_only``).

    A dict around it (``state_dict``, ``model``, ...) and a prefix of all names (``module.``, ...) are taken off.

    Args:
        progress: called with one sentence if something was taken off.

    Raises:
        ConfigError: if the file is missing, or holds no state_dict or more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"there is no file of weights {path}")
    say = progress or (lambda _: None)
    try:
        found: Any = load_file(path)
    except (SafetensorError, OSError):
        found = _of_torch(path)
    state = _unwrapped(found, path, say)
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in state):
            say(f"{path}: every name begins with {prefix!r}, which is taken off")
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _of_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        rule = "it is a pickle with code in it, or none at all; save model.state_dict() alone"
        raise ConfigError(f"{path} holds no weights that can be read safely: {rule}") from None
    except Exception as error:  # torch and zipfile raise anything for a damaged file
        sentence = str(error).split("\n")[0] or "it ends too early"
        raise ConfigError(f"{path} is not a file of weights: {sentence}") from None


def _unwrapped(found: Any, path: Path, say: Say) -> dict[str, Tensor]:
    while isinstance(found, Mapping):
        tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
        inner = next((key for key in _WRAPPERS if isinstance(found.get(key), Mapping)), None)
        if inner is None:
            break
        say(f"{path}: the weights are its entry {inner!r}")
        found = found[inner]
    lacks = " without tensors" if isinstance(found, Mapping) else ""
    raise ConfigError(f"{path} holds a {type(found).__name__}{lacks}; it must hold a state_dict")


def load_weights(
    model: nn.Module,
    state: Mapping[str, Tensor],
    path: str | Path,
    progress: Say | None = None,
    *,
    other_classes: bool = False,
    same_head: bool = False,
) -> None:
    """Load weights into a network; a head of another number of classes stays fresh, and that is said.

    Args:
        model: changed in place, or not at all if the weights do not fit.
        state: the weights, from :func:`load_state` or a checkpoint.
        path: where they are from, for messages.
        progress: called with one sentence if the head starts anew.
        other_classes: the weights are for other classes: the head starts anew, also if it has the same size.
        same_head: refuse a head of another size.

    Raises:
        ConfigError: if the weights are of another network: names that are missing, unexpected, of another shape or
            no floating point numbers, five of each.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    shaped = [name for name in own if name in state and own[name].shape != state[name].shape]
    typed = [name for name in own if name in state and own[name].is_floating_point() > state[name].is_floating_point()]
    head = _head(model)
    of_head = [name for name in own if head and name.rpartition(".")[0] == head]
    fresh = of_head if other_classes or (set(of_head) & set(shaped) and not same_head) else []
    if not missing and not unexpected and not typed and set(shaped) <= set(fresh):
        if fresh and progress:
            shapes = f"{tuple(state[fresh[0]].shape)} in the file, {tuple(own[fresh[0]].shape)} here"
            why = f"is of another size ({shapes})" if shaped else "is for other classes"
            progress(f"{path}: the head {head} {why}; it starts anew")
        model.load_state_dict({name: value for name, value in state.items() if name not in fresh}, strict=False)
        return
    parts = []
    for what, names in (("missing", missing), ("unexpected", unexpected)):
        if names:
            parts.append(f"{len(names)} {what}: {_few(names)}")
    if shaped:
        each = [f"{n} {tuple(state[n].shape)} instead of {tuple(own[n].shape)}" for n in shaped]
        parts.append(f"{len(shaped)} of another shape: {_few(each)}")
    if typed:
        each = [f"{n} {str(state[n].dtype).removeprefix('torch.')}" for n in typed]
        parts.append(f"{len(typed)} that are no floating point numbers: {_few(each)}")
    raise ConfigError(f"the weights of {path} do not fit the network; {'; '.join(parts)}")


def _few(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _head(model: nn.Module) -> str:
    """Return the name of the last linear layer or convolution: what gives the logits."""
    last = ""
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            last = name
    return last
