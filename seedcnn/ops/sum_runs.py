"""Sums over runs of neighbouring channels, the second step of a convolution with one output per group."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["sum_runs"]


def _format(x: Tensor) -> torch.memory_format:
    last = x.stride(1) == 1 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _empty(x: Tensor, channels: int) -> Tensor:
    size = (x.shape[0], channels, *x.shape[2:])
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=_format(x))


# Slices are added into one output: torch's sum and its gradient need more passes and lose the memory format.
@torch.library.custom_op("seedcnn::sum_runs", mutates_args=())
def _sum(x: Tensor, run: int) -> Tensor:
    total = _empty(x, x.shape[1] // run)
    torch.add(x[:, 0::run], x[:, 1::run], out=total)
    for i in range(2, run):
        total += x[:, i::run]
    return total


@_sum.register_fake
def _(x: Tensor, run: int) -> Tensor:
    return _empty(x, x.shape[1] // run)


@torch.library.custom_op("seedcnn::repeat_runs", mutates_args=())
def _repeat(x: Tensor, run: int) -> Tensor:
    spread = _empty(x, x.shape[1] * run)
    for i in range(run):
        spread[:, i::run].copy_(x)
    return spread


@_repeat.register_fake
def _(x: Tensor, run: int) -> Tensor:
    return _empty(x, x.shape[1] * run)


def _setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:  # noqa: ARG001
    ctx.run = inputs[1]


# Each is the gradient of the other.
torch.library.register_autograd(
    "seedcnn::sum_runs", lambda ctx, grad: (_repeat(grad, ctx.run), None), setup_context=_setup_context
)
torch.library.register_autograd(
    "seedcnn::repeat_runs", lambda ctx, grad: (_sum(grad, ctx.run), None), setup_context=_setup_context
)


def sum_runs(x: Tensor, run: int) -> Tensor:
    """Sum each run of neighbouring channels.

    Under export, function transforms and compilation for a GPU this is torch's plain sum. Compiled for a CPU it stays
    one operator, because strided loads would keep inductor from vectorising the operations that follow.

    Args:
        x: [N, c * run, H, W] or [c * run, H, W].
        run: length of a run, at least 2.

    Returns:
        [N, c, H, W] or [c, H, W], in the memory format of ``x``.
    """
    if x.dim() != 4:
        return sum_runs(x[None], run)[0]
    plain = torch._C._are_functorch_transforms_active()  # torch.func cannot transform an operator
    if plain or torch.compiler.is_exporting() or (torch.compiler.is_compiling() and x.device.type != "cpu"):
        return x.unflatten(1, (-1, run)).sum(2)  # type: ignore[no-untyped-call]
    total: Tensor = _sum(x, run)
    return total
