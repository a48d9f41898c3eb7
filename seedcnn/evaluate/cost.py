"""What a network costs on paper: learnable parameters, multiply-accumulates, NLF evaluations, transmitted bytes."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from seedcnn.layers import GroupNLConv2d, SeededConv2d

__all__ = ["Cost", "cost"]


@dataclass(frozen=True)
class Cost:
    """Costs of one network for one picture.

    Attributes:
        params: learnable scalars.
        macs: multiply-accumulates of convolutions and linear layers.
        nlf_evals: evaluations of nonlinear transformation functions (one for each generated element).
        fp32_bytes: 4 bytes a learnable scalar, 8 a BatchNorm channel (mean and variance), 8 for the model seed if
            anything is seeded; what would travel without any coding.
    """

    params: int
    macs: int
    nlf_evals: int
    fp32_bytes: int


def cost(model: nn.Module, input_size: tuple[int, int, int] = (3, 32, 32)) -> Cost:
    """Count the costs of ``model`` in eval mode for one picture of ``input_size`` (channels, height, width).

    ``macs`` is half of what ``torch.utils.flop_counter`` counts. The model is not changed.
    """
    model = copy.deepcopy(model).cpu().eval()
    generated = 0

    def count(module: GroupNLConv2d, args: object, output: torch.Tensor) -> None:  # noqa: ARG001
        nonlocal generated
        if module.nlf != "identity":
            generated += module.generated_channels * output.shape[-2] * output.shape[-1]

    for module in model.modules():
        if isinstance(module, GroupNLConv2d):
            module.register_forward_hook(count)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(torch.zeros(1, *input_size))
    params = sum(p.numel() for p in model.parameters() if p.requires_grad)
    norms = sum(m.num_features for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    seeded = any(isinstance(m, SeededConv2d) for m in model.modules())
    return Cost(params, counter.get_total_flops() // 2, generated, 4 * params + 8 * norms + 8 * seeded)
