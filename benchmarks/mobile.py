"""Mobile networks: vanilla, with depthwise convolutions converted as in the public code, and with pointwise ones.

The public code replaces depthwise convolutions by sparse GroupNL layers of equal cost; seedcnn can convert the 1x1
convolutions, which hold most of the cost. Weights are random: these are costs, not accuracies.
Run with ``python benchmarks/mobile.py``.
"""

from __future__ import annotations

import timm
import torch
from harness import Bench, converted, options

from seedcnn.convert import GhostConfig, GroupNLConfig

NETWORKS = ("mobilenetv2_100", "mobilenetv3_large_100", "efficientnet_lite0", "efficientnet_b0")
FORMS = {
    "reference (depthwise)": GroupNLConfig.paper(scope="reference", sparse=True),
    "pointwise, sine": GroupNLConfig.paper(scope="pointwise", normalize="batch"),
    "pointwise, abs": GroupNLConfig.paper(scope="pointwise", nlf="abs", normalize="batch"),
    "pointwise, Ghost": GhostConfig(scope="pointwise"),
}


def main() -> None:
    """Run the benchmark."""
    bench = Bench(options(__doc__, rounds=100, runtimes=("onnxruntime", "onnxruntime-custom-op", "openvino")))
    for name in NETWORKS:
        torch.manual_seed(0)
        bench.latency(f"{name}, 224x224", converted(timm.create_model(name), FORMS), (3, 224, 224))


if __name__ == "__main__":
    main()
