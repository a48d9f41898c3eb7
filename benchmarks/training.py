"""Training steps and what they keep for the backward pass, in every form, against the vanilla network.

Run with ``python benchmarks/training.py``; a step of these networks takes seconds on one thread.
"""

from __future__ import annotations

import timm
import torch
from harness import Bench, converted, options

from seedcnn.convert import DepthwiseSeparableConfig, GhostConfig, GroupNLConfig
from seedcnn.models import create_model

FORMS = {
    "GroupNL dense r=2": GroupNLConfig(),
    "GroupNL dense r=4": GroupNLConfig(reduction_ratio=4),
    "GroupNL sparse r=2": GroupNLConfig(sparse=True),
    "Ghost r=2": GhostConfig(),
    "depthwise-separable": DepthwiseSeparableConfig(),
}
RESNET50 = {  # the public code's places, and for the sparse form the paper's, which are more
    "GroupNL dense r=2": GroupNLConfig(scope="reference"),
    "GroupNL sparse r=2": GroupNLConfig(scope="reference", sparse=True),
    "GroupNL sparse r=2, duplication": GroupNLConfig(scope="reference", sparse=True, nlf="identity"),
    "GroupNL sparse r=2, paper's scope": GroupNLConfig(sparse=True),
    "Ghost r=2": GhostConfig(scope="reference"),
    "depthwise-separable": DepthwiseSeparableConfig(scope="reference"),
}


def main() -> None:
    """Run the benchmark."""
    bench = Bench(options(__doc__, rounds=7))
    torch.manual_seed(0)
    modes = ("compile", "compile channels_last")
    bench.training("resnet18 CIFAR, batch 64", converted(create_model("resnet18_cifar"), FORMS), (3, 32, 32), 64, modes)
    torch.manual_seed(0)
    resnet50 = converted(timm.create_model("resnet50"), RESNET50)
    bench.training("resnet50, 224x224, batch 8", resnet50, (3, 224, 224), 8, ("eager", "eager channels_last"))


if __name__ == "__main__":
    main()
