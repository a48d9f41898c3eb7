"""Convolution layers that keep a few learnable filters and generate the rest, and their controls."""

from __future__ import annotations

from seedcnn.layers._base import ConvLayer, SeededConv2d, conv_like, copy_leading_filters, learnable_count
from seedcnn.layers._draws import Fixed
from seedcnn.layers.conditional_reduction import ConditionalReductionConv2d
from seedcnn.layers.depthwise_separable import DepthwiseSeparableConv2d
from seedcnn.layers.ghost import GhostConv2d
from seedcnn.layers.group_nl import GroupNLConv2d
from seedcnn.layers.local_binary import LocalBinaryConv2d
from seedcnn.layers.low_pass import LowPass
from seedcnn.layers.mono import MonoConv2d
from seedcnn.layers.perturbative import PerturbativeConv2d
from seedcnn.layers.shift import ShiftConv2d
from seedcnn.layers.sine_fm import SineFMConv2d

__all__ = [
    "ConditionalReductionConv2d",
    "ConvLayer",
    "DepthwiseSeparableConv2d",
    "Fixed",
    "GhostConv2d",
    "GroupNLConv2d",
    "LocalBinaryConv2d",
    "LowPass",
    "MonoConv2d",
    "PerturbativeConv2d",
    "SeededConv2d",
    "ShiftConv2d",
    "SineFMConv2d",
    "conv_like",
    "copy_leading_filters",
    "learnable_count",
]
