"""Latency of networks in every form, against the vanilla network of the same run.

``make bench`` runs this. Weights are random: these are costs, not accuracies.
"""

from __future__ import annotations

import timm
import torch
from harness import Bench, converted, options
from torch import nn

from seedcnn.convert import DepthwiseSeparableConfig, GhostConfig, GroupNLConfig, MonoConfig
from seedcnn.evaluate import cost
from seedcnn.models import create_model
from seedcnn.plan import narrow_to_macs

CIFAR = {
    "resnet8 32/64/128, 16x16 maps": ("resnet8_cifar", {"widths": (32, 64, 128), "patch": 2}),
    "resnet18 64/128/256/512, 32x32 maps": ("resnet18_cifar", {"widths": (64, 128, 256, 512)}),
}
FORMS = {
    "GroupNL dense r=2": GroupNLConfig.paper(normalize="batch"),
    "GroupNL dense r=2, abs": GroupNLConfig.paper(nlf="abs", normalize="batch"),
    "GroupNL dense r=2, duplication": GroupNLConfig.paper(nlf="identity", normalize="batch"),
    "GroupNL dense r=4": GroupNLConfig.paper(reduction_ratio=4, normalize="batch"),
    "GroupNL sparse r=2": GroupNLConfig.paper(sparse=True, normalize="batch"),
    "Mono, 32 seed filters": MonoConfig(seed_filters=32, scope="stride1"),
    "Ghost r=2": GhostConfig(),
    "depthwise-separable": DepthwiseSeparableConfig(),
}
RESNET50 = {  # what the public code replaces: the 3x3 convolutions of stride 1
    "GroupNL dense r=2": GroupNLConfig.paper(normalize="batch", scope="reference"),
    "GroupNL dense r=4": GroupNLConfig.paper(reduction_ratio=4, normalize="batch", scope="reference"),
    "GroupNL sparse r=2": GroupNLConfig.paper(sparse=True, normalize="batch", scope="reference"),
    "GroupNL sparse r=2, duplication": GroupNLConfig.paper(
        sparse=True, nlf="identity", normalize="batch", scope="reference"
    ),
    "Ghost r=2": GhostConfig(scope="reference"),
    "depthwise-separable": DepthwiseSeparableConfig(scope="reference"),
}


def cifar(name: str, settings: dict[str, object]) -> dict[str, nn.Module]:
    """Build the vanilla network, its narrowed version with the MACs of dense r = 2, and every converted form."""
    torch.manual_seed(0)
    models = converted(create_model(name, **settings), FORMS)
    widths = narrow_to_macs(name, cost(models["GroupNL dense r=2"]).macs, **settings)
    models["narrowed to r=2: " + "/".join(map(str, widths))] = create_model(name, **(settings | {"widths": widths}))
    return models


def main() -> None:
    """Run the benchmark."""
    bench = Bench(options(__doc__, rounds=200, runtimes=("onnxruntime", "onnxruntime-custom-op", "openvino")))
    for title, (name, settings) in CIFAR.items():
        bench.latency(title, cifar(name, dict(settings)), (3, 32, 32))
    torch.manual_seed(0)
    bench.latency("resnet50, 224x224", converted(timm.create_model("resnet50"), RESNET50), (3, 224, 224))


if __name__ == "__main__":
    main()
