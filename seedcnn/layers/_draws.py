"""Fixed numbers: their fixed-point range, and drawing them from a seed."""

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
        tensor_id: distinguishes the layer's fixed tensors in the generator's counter.
        bounds: [low, high) in fixed point.
        shape: the tensor's shape, filled in row-major order.
    """

    tensor_id: int
    bounds: rng.FixedPoint
    shape: tuple[int, ...]


def fixed_range(name: str, bounds: tuple[float, float]) -> rng.FixedPoint:
    """Return ``[low, high)`` in fixed point; raise ``ValueError`` naming the argument if that is impossible."""
    try:
        low, high = bounds
        return rng.FixedPoint.from_range(low, high)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` (={bounds!r}) must be two finite numbers, low <= high: {error}") from None


def draw(seed: int, fixed: rng.FixedPoint, tensor_id: int, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Draw uniform numbers, float32 of ``shape`` in row-major order (seedcnn-rng/1); on "meta", draw nothing."""
    count = 1
    for size in shape:
        count *= size
    if device.type == "meta":
        return torch.empty(shape, device=device, dtype=torch.float32)
    values = rng.uniform(seed, fixed, tensor_id=tensor_id, count=count)
    return torch.from_numpy(values).reshape(shape).to(device)
