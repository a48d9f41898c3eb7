"""One entry for each layer family, in the forms that a law has to hold for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from seedcnn.layers import (
    ConditionalReductionConv2d,
    DepthwiseSeparableConv2d,
    GhostConv2d,
    GroupNLConv2d,
    LocalBinaryConv2d,
    MonoConv2d,
    PerturbativeConv2d,
    SeededConv2d,
    ShiftConv2d,
    SineFMConv2d,
)

# name -> (layer, options, kernel)
FORMS: dict[str, tuple[Callable[..., nn.Module], dict[str, Any], int]] = {
    "groupnl": (GroupNLConv2d, {"nlf_groups": 2}, 3),
    "groupnl batch": (GroupNLConv2d, {"nlf_groups": 2, "normalize": "batch", "seed_channels": 6}, 3),
    "mono": (MonoConv2d, {"seed_filters": 3}, 3),
    "mono per filter": (MonoConv2d, {"beta_per": "filter", "bias": True}, 3),
    "mono polynomial": (MonoConv2d, {"fgf": "polynomial", "terms": 3}, 3),
    "mono pointwise": (MonoConv2d, {"pointwise": True}, 3),
    "ghost": (GhostConv2d, {"ratio": 3}, 3),
    "ghost eq14": (GhostConv2d, {"norm": False, "relu": False}, 3),
    "ghost pointwise": (GhostConv2d, {"ratio": 4, "cheap": "pointwise", "bias": True}, 3),
    "sinefm": (SineFMConv2d, {"t": 3}, 3),
    "cr gc": (ConditionalReductionConv2d, {"mode": "gc"}, 1),
    "cr c1dw": (ConditionalReductionConv2d, {"mode": "c1dw", "alpha": 0.4}, 1),
    "lbc": (LocalBinaryConv2d, {"nonzero_fraction": 0.5}, 3),
    "lbc norm": (LocalBinaryConv2d, {"norm": True}, 3),
    "pnn": (PerturbativeConv2d, {}, 3),
    "pnn norm": (PerturbativeConv2d, {"norm": True, "bias": True, "mask_size": 4}, 3),
    "shift": (ShiftConv2d, {}, 3),
    "dws": (DepthwiseSeparableConv2d, {}, 3),
    "dws plain": (DepthwiseSeparableConv2d, {"norm": False, "relu": False}, 3),
}
IN, OUT = 6, 16


def build(form: str, in_channels: int = IN, out_channels: int = OUT, **options: Any) -> Any:
    """A layer of a form with the same weights every time; it keeps the map's size."""
    layer, own, kernel = FORMS[form]
    torch.manual_seed(0)
    return layer(in_channels, out_channels, kernel, padding=kernel // 2, **own, **options)


def fixed_numbers(layer: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that a layer holds and does not save."""
    return {name: value for name, value in vars(layer).items() if isinstance(value, torch.Tensor)}


def is_seeded(form: str) -> bool:
    """Whether a form has fixed numbers."""
    layer = FORMS[form][0]
    return isinstance(layer, type) and issubclass(layer, SeededConv2d)


def settle(model: nn.Module) -> nn.Module:
    """Running statistics and affines as after training: nothing is zero or one by accident."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.uniform_(-0.4, 0.4, generator=generator)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
    return model.eval()


# One form of each family, for the laws that take long to check.
FAMILIES = ("groupnl", "mono", "ghost", "sinefm", "cr gc", "cr c1dw", "lbc", "pnn", "shift", "dws")
