"""Training a part of a network, for small updates: its norms, its classifier, or both."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from seedcnn.convert.tracing import NORMS
from seedcnn.errors import ConfigError

__all__ = ["UPDATES", "Frozen"]

UPDATES = ("all", "norms", "head", "norms+head")


class Frozen:
    """The parts of a network that a run leaves as they are.

    Norms that do not learn keep their running statistics, too: they stay in eval mode while the network trains.

    Args:
        model: the network, on its device; what ``update`` does not name gets no gradients until :meth:`restore`.
        update: one of :data:`UPDATES`.
        size: (channels, height, width) of the images.

    Raises:
        ConfigError: if the network has no norms with numbers that learn, or no layer that makes the logits alone.
    """

    def __init__(self, model: nn.Module, update: str, size: tuple[int, int, int]) -> None:
        self._norms = [module for module in model.modules() if isinstance(module, NORMS)]
        self.norms_learn = update in ("all", "norms", "norms+head")
        self._before = [(p, p.requires_grad) for p in model.parameters()]
        if update == "all":
            return
        learning: list[nn.Module] = []
        if self.norms_learn:
            learning += self._norms
            if not any(True for module in self._norms for _ in module.parameters(recurse=False)):
                raise ConfigError(f"update (={update!r}): the network has no norms with numbers that learn")
        if "head" in update:
            learning.append(_head(model, size, update))
        kept = {id(p) for module in learning for p in module.parameters(recurse=False)}
        for p, learns in self._before:
            p.requires_grad_(learns and id(p) in kept)

    def train(self) -> None:
        """Call it after the network was put in training mode."""
        if not self.norms_learn:
            for norm in self._norms:
                norm.eval()

    def restore(self) -> None:
        """Let everything learn that did before."""
        for p, learns in self._before:
            p.requires_grad_(learns)


def _head(model: nn.Module, size: tuple[int, int, int], update: str) -> nn.Module:
    """The last linear layer or convolution that a forward pass calls, if its outputs are as many as the classes."""
    called: list[nn.Module] = []

    def note(module: nn.Module, _: Any, __: Any) -> None:
        called.append(module)

    layers = [module for module in model.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    handles = [layer.register_forward_hook(note) for layer in layers]
    modes = [(module, module.training) for module in model.modules()]
    first = next(model.parameters())
    try:
        with torch.no_grad():
            logits = model.eval()(torch.zeros(1, *size, device=first.device, dtype=first.dtype))
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
    classes = logits.shape[-1] if isinstance(logits, Tensor) else 0
    head = called[-1] if called else None
    if head is None or len(head.weight) != classes:  # type: ignore[arg-type]
        raise ConfigError(f"update (={update!r}): no linear layer or convolution of the network makes its logits last")
    return head
