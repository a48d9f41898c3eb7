"""Triton kernels of the GroupNL generator and its gradient, with one pass over memory each.

A row of the output (an image in NCHW, a pixel in channels_last) is the row of the seeds followed by groups * gamma
blocks. A block is generated from one contiguous run of the seeds with one pair of hyperparameters. A program handles
some rows and a piece of the run of one group. Forward, it reads that piece once, and writes it and its gamma generated
pieces once. Backward, it reads the corresponding pieces of the gradient and the seeds once, and writes the gradient of
the seeds once. The arithmetic is float32.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["DTYPES", "backward", "forward"]

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_CODES = {
    "sine": 0,
    "monomial": 1,
    "gaussian": 2,
    "laplace": 3,
    "abs": 4,
    "leaky": 5,
    "triangle": 6,
    "negate": 7,
    "identity": 8,
}
_TILE = 1024  # elements per program


@triton.jit
def _sign(x):  # type: ignore[no-untyped-def]
    return tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, 0.0))


@triton.jit
def _power(x, w):  # type: ignore[no-untyped-def]
    # |x| ** w with exact limits: 0 to a positive power is 0, and to the power 0 it is 1.
    size = tl.abs(x)
    return tl.where(size > 0, tl.exp2(w * tl.log2(tl.where(size > 0, size, 1.0))), tl.where(w > 0, 0.0, 1.0))


@triton.jit
def _from_wave(u):  # type: ignore[no-untyped-def]
    v = u * 0.15915494309189535 - 0.25  # in periods
    return v - tl.floor(v + 0.5)


@triton.jit
def _function(x, w, p, NLF: tl.constexpr):  # type: ignore[no-untyped-def]
    if NLF == 0:
        y = tl.sin(w * (x + p))
    elif NLF == 1:
        y = _sign(x) * _power(x, w)
    elif NLF == 2:
        y = tl.exp(-(w * x) * (w * x))
    elif NLF == 3:
        y = 0.5 * w * tl.exp(-tl.abs(w * x))
    elif NLF == 4:
        y = tl.abs(x + p)
    elif NLF == 5:
        y = tl.where(x > 0, x, w * x)
    elif NLF == 6:
        y = 1 - 4 * tl.abs(_from_wave(w * (x + p)))
    elif NLF == 7:
        y = -x
    else:
        y = x
    return y


@triton.jit
def _derivative(x, w, p, NLF: tl.constexpr):  # type: ignore[no-untyped-def]
    if NLF == 0:
        y = w * tl.cos(w * (x + p))
    elif NLF == 1:
        y = w * _power(x, w - 1) * tl.abs(_sign(x))
    elif NLF == 2:
        y = -2 * w * w * x * tl.exp(-(w * x) * (w * x))
    elif NLF == 3:
        y = -0.5 * w * w * _sign(w * x) * tl.exp(-tl.abs(w * x))
    elif NLF == 4:
        y = _sign(x + p)
    elif NLF == 5:
        y = tl.where(x > 0, 1.0, w)
    elif NLF == 6:
        y = -0.6366197723675814 * w * _sign(_from_wave(w * (x + p)))  # 2 / pi
    elif NLF == 7:
        y = tl.zeros_like(x) - 1.0
    else:
        y = tl.zeros_like(x) + 1.0
    return y


@triton.jit
def _forward_kernel(  # type: ignore[no-untyped-def]
    seeds,
    out,
    omega,
    phi,
    rows,
    run,
    seed_row,
    out_row,
    GAMMA: tl.constexpr,
    NLF: tl.constexpr,
    ROWS: tl.constexpr,
    RUN: tl.constexpr,
):
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None].to(tl.int64)
    within = (tl.program_id(1) * RUN + tl.arange(0, RUN))[None, :]
    group = tl.program_id(2)
    inside = (row < rows) & (within < run)
    place = group * run + within
    raw = tl.load(seeds + row * seed_row + place, mask=inside)
    tl.store(out + row * out_row + place, raw, mask=inside)
    x = raw.to(tl.float32)
    for j in tl.static_range(GAMMA):
        block = group * GAMMA + j
        y = _function(x, tl.load(omega + block), tl.load(phi + block), NLF)
        target = seed_row + block * run + within
        # Elements beyond the row are cropped.
        tl.store(out + row * out_row + target, y.to(raw.dtype), mask=inside & (target < out_row))


@triton.jit
def _backward_kernel(  # type: ignore[no-untyped-def]
    grad,
    maps,
    out,
    omega,
    phi,
    rows,
    run,
    grad_row,
    maps_row,
    out_row,
    GAMMA: tl.constexpr,
    NLF: tl.constexpr,
    ROWS: tl.constexpr,
    RUN: tl.constexpr,
):
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None].to(tl.int64)
    within = (tl.program_id(1) * RUN + tl.arange(0, RUN))[None, :]
    group = tl.program_id(2)
    inside = (row < rows) & (within < run)
    place = group * run + within
    raw = tl.load(maps + row * maps_row + place, mask=inside, other=0.0)
    x = raw.to(tl.float32)
    total = tl.load(grad + row * grad_row + place, mask=inside, other=0.0).to(tl.float32)
    for j in tl.static_range(GAMMA):
        block = group * GAMMA + j
        source = out_row + block * run + within
        upper = tl.load(grad + row * grad_row + source, mask=inside & (source < grad_row), other=0.0).to(tl.float32)
        total += upper * _derivative(x, tl.load(omega + block), tl.load(phi + block), NLF)
    tl.store(out + row * out_row + place, total.to(raw.dtype), mask=inside)


def _plan(x: Tensor, groups: int, channels_last: bool) -> tuple[tuple[int, int, int], dict[str, int], int, int]:
    """Grid, tile, number of rows and length of a run for seed maps [N, c, H, W] and their groups."""
    batch, channels, height, width = x.shape
    rows, row = (batch * height * width, channels) if channels_last else (batch, channels * height * width)
    run = row // groups
    piece = min(_TILE, triton.next_power_of_2(run))
    tile = {"ROWS": min(_TILE // piece, triton.next_power_of_2(rows)), "RUN": piece}
    return (triton.cdiv(rows, tile["ROWS"]), triton.cdiv(run, piece), groups), tile, rows, run


def forward(
    seeds: Tensor, omega: Tensor, phi: Tensor, out: Tensor, *, nlf_groups: int, nlf: str, channels_last: bool
) -> None:
    """Write seeds [N, c, H, W] and the maps generated from them into ``out`` [N, C, H, W].

    Both tensors must be in the memory format that ``channels_last`` names.
    """
    grid, tile, rows, run = _plan(seeds, nlf_groups, channels_last)
    with torch.cuda.device_of(seeds):
        _forward_kernel[grid](
            seeds,
            out,
            omega,
            phi,
            rows,
            run,
            seeds.numel() // rows,
            out.numel() // rows,
            GAMMA=omega.numel() // nlf_groups,
            NLF=_CODES[nlf],
            **tile,
        )


def backward(
    grad: Tensor,
    maps: Tensor,
    omega: Tensor,
    phi: Tensor,
    out: Tensor,
    *,
    nlf_groups: int,
    nlf: str,
    channels_last: bool,
) -> None:
    """Write the gradient with respect to the seeds into ``out`` [N, c, H, W].

    ``grad`` is the gradient with respect to the maps [N, C, H, W]; ``maps`` are these maps, or only the seeds
    [N, c, H, W].
    """
    grid, tile, rows, run = _plan(out, nlf_groups, channels_last)
    with torch.cuda.device_of(out):
        _backward_kernel[grid](
            grad,
            maps,
            out,
            omega,
            phi,
            rows,
            run,
            grad.numel() // rows,
            maps.numel() // rows,
            out.numel() // rows,
            GAMMA=omega.numel() // nlf_groups,
            NLF=_CODES[nlf],
            **tile,
        )
