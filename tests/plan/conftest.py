"""A small network with every kind of place a convolution can stand in."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Small(nn.Module):
    """Stem, a convolution with a norm and a functional ReLU, a pointwise one, one with a bias and no norm."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.conv = nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(64)
        self.depthwise = nn.Conv2d(64, 64, 3, padding=1, groups=64, bias=False)
        self.point = nn.Conv2d(64, 128, 1, bias=False)
        self.point_norm = nn.BatchNorm2d(128)
        self.last = nn.Conv2d(128, 64, 3, padding=1)
        self.head = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm(self.conv(self.stem(x))))
        y = self.point_norm(self.point(self.depthwise(y)))
        return self.head(torch.relu(self.last(y)).mean((-2, -1)))


@pytest.fixture
def small() -> nn.Module:
    """[N, 3, H, W] to 4 logits; always the same weights, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Small().eval()


@pytest.fixture
def quiet() -> Callable[[str], None]:
    """Hears what a plan says."""
    return lambda text: None
