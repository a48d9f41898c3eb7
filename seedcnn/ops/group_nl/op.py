"""The GroupNL generator as an operator that writes one output and keeps nothing else for the backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seedcnn.ops.group_nl import _torch
from seedcnn.ops.group_nl._compiled import group_nl_vectorised
from seedcnn.ops.group_nl.reference import NLFS, group_nl_reference

__all__ = ["group_nl", "uses_triton"]

try:
    from seedcnn.ops.group_nl import triton as _triton
except ImportError:  # triton is not a dependency: without it CUDA tensors use the torch form, with the same results
    _triton = None  # type: ignore[assignment]


def uses_triton(x: Tensor) -> bool:
    """Whether the operator uses its Triton kernels: for CUDA tensors in float32, bfloat16 or float16, if triton is
    installed. All other tensors use torch's own kernels."""
    return x.is_cuda and _triton is not None and x.dtype in _triton.DTYPES


def _format(channels_last: bool) -> torch.memory_format:
    return torch.channels_last if channels_last else torch.contiguous_format


def _empty(like: Tensor, channels: int, channels_last: bool) -> Tensor:
    size = (like.shape[0], channels, *like.shape[2:])
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=_format(channels_last))


@torch.library.custom_op("seedcnn::group_nl", mutates_args=())
def _forward(
    seeds: Tensor,
    omega: Tensor,
    phi: Tensor,
    nlf_groups: int,
    out_channels: int,
    nlf: str,
    save_seeds: bool,  # noqa: ARG001
) -> Tensor:
    channels_last = _torch.is_channels_last(seeds)
    out = _empty(seeds, out_channels, channels_last)
    if out.numel():
        run = _triton.forward if uses_triton(seeds) else _torch.forward
        seeds = seeds.contiguous(memory_format=_format(channels_last))
        run(seeds, omega, phi, out, nlf_groups=nlf_groups, nlf=nlf, channels_last=channels_last)
    return out


@_forward.register_fake
def _(
    seeds: Tensor,
    omega: Tensor,  # noqa: ARG001
    phi: Tensor,  # noqa: ARG001
    nlf_groups: int,  # noqa: ARG001
    out_channels: int,
    nlf: str,  # noqa: ARG001
    save_seeds: bool,  # noqa: ARG001
) -> Tensor:
    return _empty(seeds, out_channels, _torch.is_channels_last(seeds))


@torch.library.custom_op("seedcnn::group_nl_backward", mutates_args=())
def _backward(
    grad: Tensor, maps: Tensor, omega: Tensor, phi: Tensor, nlf_groups: int, seed_channels: int, nlf: str
) -> Tensor:
    channels_last = _torch.is_channels_last(maps)
    out = _empty(maps, seed_channels, channels_last)
    if out.numel():
        run = _triton.backward if uses_triton(maps) else _torch.backward
        grad = grad.contiguous(memory_format=_format(channels_last))
        maps = maps.contiguous(memory_format=_format(channels_last))
        run(grad, maps, omega, phi, out, nlf_groups=nlf_groups, nlf=nlf, channels_last=channels_last)
    return out


@_backward.register_fake
def _(
    grad: Tensor,  # noqa: ARG001
    maps: Tensor,
    omega: Tensor,  # noqa: ARG001
    phi: Tensor,  # noqa: ARG001
    nlf_groups: int,  # noqa: ARG001
    seed_channels: int,
    nlf: str,  # noqa: ARG001
) -> Tensor:
    return _empty(maps, seed_channels, _torch.is_channels_last(maps))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    seeds, omega, phi, ctx.nlf_groups, _, ctx.nlf, save_seeds = inputs
    ctx.seed_channels = seeds.shape[1]
    ctx.save_for_backward(seeds if save_seeds else output, omega, phi)


def _grad(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    maps, omega, phi = ctx.saved_tensors
    if torch.is_grad_enabled():  # for second derivatives, through plain operations
        seeds = maps[:, : ctx.seed_channels]
        plain = group_nl_reference(
            seeds, omega, phi, nlf_groups=ctx.nlf_groups, out_channels=grad.shape[1], nlf=ctx.nlf
        )
        return *torch.autograd.grad(plain, seeds, grad, create_graph=True), *[None] * 6
    return _backward(grad, maps, omega, phi, ctx.nlf_groups, ctx.seed_channels, ctx.nlf), *[None] * 6


torch.library.register_autograd("seedcnn::group_nl", _grad, setup_context=_setup_context)


def group_nl(
    seeds: Tensor,
    omega: Tensor,
    phi: Tensor,
    *,
    nlf_groups: int,
    out_channels: int,
    nlf: str = "sine",
    save: str = "output",
) -> Tensor:
    """Concatenate seed maps with the maps generated from them: :func:`group_nl_reference`, optimised for training.

    In eager mode this is one operator, ``seedcnn::group_nl``. It writes all maps into one output and has a gradient
    with respect to the seeds only, for which it keeps either the output (which contains the seeds) or the seeds. Under
    compilation, export and function transforms (``torch.func``) it is plain operations, which inductor fuses with the
    operations that follow.

    Args:
        seeds: seed maps [N, c_seed, H, W] or [c_seed, H, W], floating point; c_seed % nlf_groups == 0.
        omega, phi: fixed numbers, float32 [nlf_groups * gamma], gamma = ceil(out_channels / c_seed) - 1.
        nlf_groups: number of groups g that the seed channels are split into.
        out_channels: channels of the result, at least c_seed; further generated channels are cropped.
        nlf: a key of :data:`NLFS`.
        save: the tensor to keep, "output" or "seeds". Keeping the output costs no memory if the next module keeps it
            too, as a norm does, but the output must not be changed in place. Keeping the seeds costs 1 / r of the
            output, which may then be changed in place.

    Returns:
        [..., out_channels, H, W] in the dtype and memory format of ``seeds``; half precision is computed in float32
        and rounded once.

    Raises:
        ValueError: naming the argument, its value and the rule.
    """
    _check(seeds, omega, phi, nlf_groups, out_channels, nlf, save)
    transformed = torch._C._are_functorch_transforms_active()  # torch.func cannot transform an operator
    if transformed or torch.compiler.is_compiling():
        # Exported graphs may run anywhere, and on GPUs the block order of the reference needs no other form.
        plain = transformed or torch.compiler.is_exporting() or seeds.device.type != "cpu" or seeds.dim() != 4
        form = group_nl_reference if plain else group_nl_vectorised
        return form(seeds, omega, phi, nlf_groups=nlf_groups, out_channels=out_channels, nlf=nlf)
    batch = seeds if seeds.dim() == 4 else seeds[None]
    maps = _forward(batch, omega, phi, nlf_groups, out_channels, nlf, save == "seeds")
    return maps if seeds.dim() == 4 else maps[0]


def _check(seeds: Tensor, omega: Tensor, phi: Tensor, nlf_groups: int, out_channels: int, nlf: str, save: str) -> None:
    if seeds.dim() not in (3, 4):
        raise ValueError(f"`seeds` (of shape {tuple(seeds.shape)}) must be [N, C, H, W] or [C, H, W]")
    if nlf not in NLFS:
        raise ValueError(f"`nlf` (={nlf!r}) must be one of {', '.join(map(repr, NLFS))}")
    if save not in ("output", "seeds"):
        raise ValueError(f"`save` (={save!r}) must be one of 'output', 'seeds'")
    channels = seeds.shape[-3]
    if nlf_groups < 1 or channels % nlf_groups:
        raise ValueError(f"`nlf_groups` (={nlf_groups}) must divide the {channels} channels of `seeds`")
    if out_channels < channels:
        raise ValueError(f"`out_channels` (={out_channels}) must not be below the {channels} channels of `seeds`")
    count = nlf_groups * (-(-out_channels // channels) - 1)
    for name, fixed in (("omega", omega), ("phi", phi)):
        if fixed.shape != (count,):
            raise ValueError(f"`{name}` (of shape {tuple(fixed.shape)}) must hold {count} numbers")
