"""One layer in every form: chains of four 3x3 convolutions with norm and ReLU, against plain convolutions.

Chains, because a single layer would bear the whole cost of the runtime's change of memory layout. Run with
``python benchmarks/layers.py``.
"""

from __future__ import annotations

import torch
from harness import Bench, converted, options
from torch import nn

from seedcnn.convert import DepthwiseSeparableConfig, GhostConfig, GroupNLConfig

SHAPES = {"64@56": (64, 56), "128@28": (128, 28), "256@14": (256, 14), "512@7": (512, 7)}
FORMS = {
    "GroupNL dense r=2": GroupNLConfig.paper(normalize="batch"),
    "GroupNL dense r=2, duplication": GroupNLConfig.paper(normalize="batch", nlf="identity"),
    "GroupNL dense r=4": GroupNLConfig.paper(normalize="batch", reduction_ratio=4),
    "GroupNL dense r=4, duplication": GroupNLConfig.paper(normalize="batch", reduction_ratio=4, nlf="identity"),
    "GroupNL sparse r=2": GroupNLConfig.paper(normalize="batch", sparse=True),
    "Ghost r=2": GhostConfig(),
    "depthwise-separable": DepthwiseSeparableConfig(),
}


def chain(channels: int) -> nn.Module:
    """Build four layers with equal input and output channels."""
    layers: list[nn.Module] = []
    for _ in range(4):
        conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*layers)


def main() -> None:
    """Run the benchmark."""
    bench = Bench(options(__doc__, rounds=200, runtimes=("onnxruntime", "onnxruntime-custom-op", "openvino", "torch")))
    for name, (channels, side) in SHAPES.items():
        torch.manual_seed(0)
        models = converted(chain(channels), FORMS, lambda *_: True)  # including the first convolution: there is no stem
        bench.latency(f"4 layers {name}", models, (channels, side, side))


if __name__ == "__main__":
    main()
