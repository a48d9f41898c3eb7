"""Convolution layers that keep a few learnable seed filters and generate the rest with fixed nonlinear functions."""

from __future__ import annotations

from seedcnn.layers._base import ConvLayer, SeededConv2d
from seedcnn.layers.group_nl import GroupNLConv2d

__all__ = ["ConvLayer", "GroupNLConv2d", "SeededConv2d"]
