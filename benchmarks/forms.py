"""Latency of two CIFAR networks in every form there is, against the vanilla network of the same run.

``make bench`` runs it. Weights are random: these are costs, not accuracies.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from harness import conditions, keep, measure
from torch import nn

from seedcnn.convert import DepthwiseSeparableConfig, GhostConfig, GroupNLConfig, MonoConfig, convert_
from seedcnn.evaluate import cost
from seedcnn.models import create_model
from seedcnn.plan import narrow_to_macs

SHAPES = {
    "resnet8 32/64/128, 16x16 maps": ("resnet8_cifar", {"widths": (32, 64, 128), "patch": 2}),
    "resnet18 64/128/256/512, 32x32 maps": ("resnet18_cifar", {"widths": (64, 128, 256, 512)}),
}
FORMS = {
    "GroupNL dense r=2, sine": GroupNLConfig(normalize="batch"),
    "GroupNL dense r=2, abs": GroupNLConfig(nlf="abs", normalize="batch"),
    "GroupNL dense r=2, duplication": GroupNLConfig(nlf="identity", normalize="batch"),
    "GroupNL dense r=4, sine": GroupNLConfig(reduction_ratio=4, normalize="batch"),
    "GroupNL sparse r=2, sine": GroupNLConfig(sparse=True, normalize="batch"),
    "Mono, 32 seed filters": MonoConfig(seed_filters=32, scope="stride1"),
    "Ghost r=2": GhostConfig(),
    "depthwise-separable": DepthwiseSeparableConfig(),
}


def networks(name: str, options: dict[str, object]) -> dict[str, nn.Module]:
    """The vanilla network, the same narrowed to the MACs of dense r = 2, and every converted form."""
    torch.manual_seed(0)
    converted = {}
    for form, config in FORMS.items():
        converted[form] = create_model(name, **options)
        convert_(converted[form], config)
    widths = narrow_to_macs(name, cost(converted["GroupNL dense r=2, sine"]).macs, **options)
    narrowed = create_model(name, **(options | {"widths": widths}))
    label = "narrowed to r=2: " + "/".join(map(str, widths))
    return {"vanilla": create_model(name, **options), label: narrowed, **converted}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--record", type=Path, help="write the numbers as JSON")
    arguments = parser.parse_args()
    record = conditions(arguments.rounds)
    for shape, (name, options) in SHAPES.items():
        models = networks(name, dict(options))
        record[shape] = measure(shape, models, side=32, classes=10, rounds=arguments.rounds)
    keep(arguments.record, record)


if __name__ == "__main__":
    main()
