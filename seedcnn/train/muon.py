"""Muon for dense convolutions and SGD for everything else, in one optimizer.

Muon replaces the update of a matrix by the nearest matrix with orthonormal rows (Jordan et al., "Muon: an optimizer for
hidden layers in neural networks", 2024); a convolution is the matrix of its filters. timm's Muon takes AdamW for the
rest and torch's takes matrices only, so the pair is built here, with timm's Newton-Schulz iteration.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.optim.muon import zeropower_via_newtonschulz
from torch import Tensor, nn
from torch.optim.sgd import sgd

from seedcnn.errors import ConfigError
from seedcnn.layers import ConvLayer

__all__ = ["MuonSGD", "dense_weights"]

_STEPS = 4  # of the Newton-Schulz iteration
_COEFFICIENTS = [(3.4445, -4.7750, 2.0315)]  # of the quintic in the source


def dense_weights(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The learnable filters of convolutions that see all channels.

    Returns:
        Those of convolutions without a bias, whose scale a norm removes, and those of convolutions with one. Filters of
        one value and frozen ones are left out.
    """
    free: dict[int, nn.Parameter] = {}
    fixed: dict[int, nn.Parameter] = {}
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if not isinstance(module, (nn.Conv2d, ConvLayer)) or not isinstance(weight, nn.Parameter):
            continue
        if getattr(module, "groups", 1) == 1 and weight.ndim == 4 and weight.requires_grad and weight[0].numel() > 1:
            (free if getattr(module, "bias", None) is None else fixed)[id(weight)] = weight
    return list(free.values()), list(fixed.values())


class MuonSGD(torch.optim.Optimizer):
    """Muon on the dense convolutions of a network, Nesterov SGD on its other parameters.

    A filter bank of ``out`` filters without a bias is kept at a norm of sqrt(out), since the norm layer after it makes
    its scale meaningless, and so the rate is relative to its size. Others decay by ``weight_decay``.

    Args:
        model: the module to train.
        rest: parameter groups of :class:`torch.optim.SGD`, each with its own ``weight_decay``; those of the dense
            convolutions are taken out.
        lr, momentum: of SGD.
        muon_lr, muon_momentum: of Muon.
        weight_decay: of dense convolutions with a bias.

    Raises:
        ConfigError: if the model has no dense convolution.
    """

    def __init__(
        self,
        model: nn.Module,
        rest: list[dict[str, Any]],
        *,
        lr: float,
        momentum: float,
        muon_lr: float,
        muon_momentum: float,
        weight_decay: float,
    ) -> None:
        scaled, others = dense_weights(model)
        if not scaled and not others:
            raise ConfigError(
                "optimizer (='muon+sgd') trains dense convolutions by Muon; the network has none that is learnable, so "
                "use 'sgd'"
            )
        taken = {id(p) for p in (*scaled, *others)}
        muon = {"lr": muon_lr, "momentum": muon_momentum, "muon": True, "weight_decay": weight_decay}
        plain = {"lr": lr, "momentum": momentum, "muon": False, "scaled": False}
        left = [{**group, **plain, "params": [p for p in group["params"] if id(p) not in taken]} for group in rest]
        groups = [{**muon, "params": scaled, "scaled": True}, {**muon, "params": others, "scaled": False}, *left]
        super().__init__([group for group in groups if group["params"]], {"weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            (self._muon if group["muon"] else self._sgd)(group)
        return loss

    def _muon(self, group: dict[str, Any]) -> None:
        for weight in group["params"]:
            if weight.grad is None:
                continue
            state, momentum = self.state[weight], group["momentum"]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(weight)
            average = state["momentum_buffer"].mul_(momentum).add_(weight.grad)
            ahead = weight.grad.add(average, alpha=momentum).flatten(1)
            change = zeropower_via_newtonschulz(ahead, _STEPS, _COEFFICIENTS, dtype=torch.float32)
            if group["scaled"]:
                weight.mul_(len(weight) ** 0.5 / weight.norm().clamp_min(1e-12))
            elif group["weight_decay"]:
                weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.add_(change.view_as(weight), alpha=-group["lr"])

    def _sgd(self, group: dict[str, Any]) -> None:
        weights = [p for p in group["params"] if p.grad is not None]
        averages: list[Tensor | None] = [self.state[p].get("momentum_buffer") for p in weights]
        sgd(
            weights,
            [p.grad for p in weights],
            averages,
            foreach=False,
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=0.0,
            nesterov=group["momentum"] > 0,
            maximize=False,
        )
        for weight, average in zip(weights, averages, strict=True):
            if average is not None:
                self.state[weight]["momentum_buffer"] = average
