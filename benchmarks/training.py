"""Time and memory of training steps in every form, against the vanilla network.

    python benchmarks/training.py                 # time per step; half an hour on an idle machine
    python benchmarks/training.py --memory        # memory per step, each form in its own process

A step of these networks takes seconds on one thread. The memory is the process's peak during its second step, minus its
size before the first one (network and images loaded, nothing run).
"""

from __future__ import annotations

from collections.abc import Iterator

import timm
import torch
from harness import Bench, converted, options
from torch import nn

from seedcnn.convert import DepthwiseSeparableConfig, GhostConfig, GroupNLConfig, MonoConfig, SineFMConfig
from seedcnn.models import create_model

FORMS = {
    "GroupNL dense r=2": GroupNLConfig.paper(),
    "GroupNL dense r=4": GroupNLConfig.paper(reduction_ratio=4),
    "GroupNL sparse r=2": GroupNLConfig.paper(sparse=True),
    "Mono, 32 seed filters": MonoConfig(seed_filters=32),
    "SineFM r=2": SineFMConfig(),
    "Ghost r=2": GhostConfig(),
    "depthwise-separable": DepthwiseSeparableConfig(),
}
RESNET50 = {  # the public code's scope, and for the sparse form also the paper's, which is wider
    "GroupNL dense r=2": GroupNLConfig.paper(scope="reference"),
    "GroupNL sparse r=2": GroupNLConfig.paper(scope="reference", sparse=True),
    "GroupNL sparse r=2, paper's scope": GroupNLConfig.paper(sparse=True),
    "Mono, 32 seed filters": MonoConfig(scope="reference", seed_filters=32),
    "Ghost r=2": GhostConfig(scope="reference"),
    "depthwise-separable": DepthwiseSeparableConfig(scope="reference"),
}


def main() -> None:
    """Run the benchmark."""
    bench = Bench(options(__doc__, rounds=7, memory=True))
    measure = bench.memory if bench.arguments.memory else bench.training
    for title, models, size, batch in _networks():
        measure(title, models, size, batch, ("eager channels_last", "compile channels_last"))


def _networks() -> Iterator[tuple[str, dict[str, nn.Module], tuple[int, int, int], int]]:
    torch.manual_seed(0)
    yield "resnet18 CIFAR, batch 64", converted(create_model("resnet18_cifar"), FORMS), (3, 32, 32), 64
    torch.manual_seed(0)
    yield "resnet50, 224x224, batch 8", converted(timm.create_model("resnet50"), RESNET50), (3, 224, 224), 8


if __name__ == "__main__":
    main()
