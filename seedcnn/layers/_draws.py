"""Fixed numbers: their range in fixed point, and how they are drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seedcnn import rng

__all__ = ["Fixed", "draw", "fixed_range"]


@dataclass(frozen=True)
class Fixed:
    """A tensor of fixed numbers, drawn from its layer's seed (seedcnn-rng/1); the seed travels in its place.

    Attributes:
        tensor_id: tells it from the layer's other fixed tensors in the generator's counter.
        bounds: [low, high) in fixed point.
        shape: of the tensor, filled in row-major order.
    """

    tensor_id: int
    bounds: rng.FixedPoint
    shape: tuple[int, ...]


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
