"""Networks as users hold them: inside wrappers, with several outputs, in any mode, on any device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from seedcnn.errors import DataError

__all__ = ["evaluating", "inner_module", "logits_entry", "logits_of", "unwrapped"]

_KEYS = ("logits", "out")


def inner_module(model: nn.Module) -> nn.Module | None:
    """Return what a wrapper of ``torch.compile``, DataParallel or DistributedDataParallel holds; None for any other."""
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        return model.module
    # By name: importing the compiler takes seconds.
    return model._modules.get("_orig_mod") if type(model).__name__ == "OptimizedModule" else None


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the network inside all wrappers of ``torch.compile``, DataParallel and DistributedDataParallel."""
    while (inner := inner_module(model)) is not None:
        model = inner
    return model


def logits_entry(output: Any) -> Any:
    """Return the part of a network's output that holds the logits.

    That is the entry or field "logits", else "out", else the first of a tuple or list; a lone output is returned as it
    is. torchvision and transformers name their outputs so, and put auxiliary heads behind them.

    Raises:
        DataError: if a mapping or an object has neither name, or a tuple or list is empty.
    """
    if isinstance(output, Tensor):
        return output
    has_fields = is_dataclass(output) or isinstance(output, tuple)
    for key in _KEYS:
        if isinstance(output, Mapping) and key in output:
            return output[key]
        if has_fields and hasattr(output, key):
            return getattr(output, key)
    if isinstance(output, (tuple, list)) and output:
        return output[0]
    if isinstance(output, Mapping):
        held = f"a mapping with the keys {', '.join(map(repr, output)) or '(none)'}"
    else:
        held = f"{'an empty ' if isinstance(output, (tuple, list)) else ''}{type(output).__name__}"
    raise DataError(
        f"the network answers with {held}; the logits must be a tensor of its own, the entry 'logits' or 'out', "
        "or the first of a tuple"
    )


def logits_of(output: Any) -> Tensor:
    """Return the logits in a network's output, see :func:`logits_entry`.

    Raises:
        DataError: if there are none, or they are no tensor.
    """
    found = logits_entry(output)
    if not isinstance(found, Tensor):
        raise DataError(f"the network's logits are a {type(found).__name__}; they must be a tensor")
    return found


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run in eval mode under ``torch.inference_mode``; every submodule's training flag is restored at the end."""
    flags = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.inference_mode():
            yield
    finally:
        for module, training in flags.items():
            module.training = training
