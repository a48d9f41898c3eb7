"""Mobile networks: vanilla, converted as the public code does (depthwise convolutions), and by pointwise convolutions.

The public code replaces depthwise convolutions by sparse GroupNL layers of equal cost; ours offers the 1x1
convolutions, which hold most of the cost. Weights are random: these are costs, not accuracies.
Run with ``python benchmarks/mobile.py``.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import timm
import torch
from harness import conditions, keep, measure
from torch import nn

from seedcnn.convert import GroupNLConfig, convert_

NETWORKS = ("mobilenetv2_100", "mobilenetv3_large_100", "efficientnet_lite0", "efficientnet_b0")
FORMS = {
    "reference (depthwise)": GroupNLConfig(scope="reference", sparse=True),
    "pointwise, sine": GroupNLConfig(scope="pointwise", normalize="batch"),
    "pointwise, abs": GroupNLConfig(scope="pointwise", nlf="abs", normalize="batch"),
}


def forms(name: str) -> dict[str, nn.Module]:
    """The vanilla network and its converted forms."""
    torch.manual_seed(0)
    models = {"vanilla": timm.create_model(name)}
    for form, config in FORMS.items():
        models[form] = timm.create_model(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the warning about scope "reference" is this benchmark
            convert_(models[form], config)
    return models


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--record", type=Path, help="write the numbers as JSON")
    arguments = parser.parse_args()
    record = conditions(arguments.rounds)
    for name in NETWORKS:
        record[name] = measure(f"{name}, 224x224", forms(name), side=224, classes=1000, rounds=arguments.rounds)
    keep(arguments.record, record)


if __name__ == "__main__":
    main()
