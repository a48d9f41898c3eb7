"""Pieces of the layers that a tracer takes whole: norms that also take unbatched maps, and fixed draws."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from seedcnn import rng
from seedcnn.layers._base import check_positive

__all__ = ["BatchNorm2d", "GroupNorm", "conv2d", "draw", "fixed_range", "require", "same_size"]


class BatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d`` that takes [C, H, W] too, as a batch of one."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] or [C, H, W] to the same shape."""
        return super().forward(x) if x.dim() == 4 else super().forward(x[None])[0]


class GroupNorm(nn.GroupNorm):
    """``nn.GroupNorm`` over maps that takes [C, H, W] too, as a batch of one, and keeps channels_last."""

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] or [C, H, W] to the same shape."""
        if x.dim() == 3:
            return super().forward(x[None])[0]
        y = super().forward(x)
        if x.is_contiguous(memory_format=torch.channels_last):
            return y.contiguous(memory_format=torch.channels_last)
        return y


def conv2d(in_channels: int, out_channels: int, kernel_size: Any, *args: Any, **kwargs: Any) -> nn.Conv2d:
    """``nn.Conv2d``, with the error that names the argument where its groups do not divide the channels."""
    groups = kwargs.get("groups", 1)
    check_positive(groups=groups)
    for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
        if value % groups:
            raise ValueError(f"`{name}` (={value}) must be divisible by `groups` (={groups})")
    return nn.Conv2d(in_channels, out_channels, kernel_size, *args, **kwargs)


def require(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"`{name}` (={value!r}) must be one of {', '.join(map(repr, choices))}")


def same_size(
    kernel_size: tuple[int, ...], padding: str | tuple[int, ...], dilation: tuple[int, ...], padding_mode: str
) -> None:
    """Refuse the geometries that a layer without a spatial kernel cannot stand in for.

    Raises:
        ValueError: unless padding is "same" or dilation * (kernel_size - 1) / 2, and the padding mode is "zeros".
    """
    if padding != "same" and padding != tuple(d * (k - 1) / 2 for k, d in zip(kernel_size, dilation, strict=True)):
        raise ValueError(
            f"`padding` (={padding!r}) must be 'same' or dilation * (kernel_size - 1) / 2 for `kernel_size` "
            f"(={kernel_size}), `dilation` (={dilation}): this layer has no spatial kernel and keeps the map's size"
        )
    if padding_mode != "zeros":
        raise ValueError(f"`padding_mode` (={padding_mode!r}) must be 'zeros' in a layer without a spatial kernel")


def fixed_range(name: str, bounds: tuple[float, float]) -> rng.FixedPoint:
    """The fixed-point form of ``[low, high)``; ``ValueError`` naming the argument where there is none."""
    try:
        low, high = bounds
        return rng.FixedPoint.from_range(low, high)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` (={bounds!r}) must be two finite numbers, low <= high: {error}") from None


def draw(seed: int, fixed: rng.FixedPoint, tensor_id: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Uniform fixed numbers in row-major order, float32 of ``shape`` (seedcnn-rng/1); none are drawn for "meta"."""
    count = 1
    for size in shape:
        count *= size
    if device.type == "meta":
        return torch.empty(shape, device=device, dtype=torch.float32)
    values = rng.uniform(seed, fixed, tensor_id=tensor_id, count=count)
    return torch.from_numpy(values).reshape(shape).to(device)
