"""Latency of one small network in every form there is, against the vanilla network of the same run.

``make bench`` runs it. Weights are random: these are costs, not accuracies. One thread, batch 1, ONNX Runtime, all
forms interleaved in random order in one process; ratios of medians to the vanilla network. Each exported form is first
compared with its torch network, and nothing is timed if one differs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import nn

from seedcnn.bundle import read_bundle
from seedcnn.convert import GroupNLConfig, convert_
from seedcnn.evaluate import bundle_predictor, compare_logits, cost, interleave, torch_predictor
from seedcnn.export import BundleInfo, fold, to_bundle, to_onnx
from seedcnn.models import create_model
from seedcnn.pack import preprocessing_of
from seedcnn.plan import narrow_to_macs

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
INFO = BundleInfo("bench", "bench", 1, preprocessing_of(MEAN, STD), list("0123456789"))
SHAPES = {
    "resnet8 32/64/128, 16x16 maps": ("resnet8_cifar", {"widths": (32, 64, 128), "patch": 2}),
    "resnet18 64/128/256/512, 32x32 maps": ("resnet18_cifar", {"widths": (64, 128, 256, 512)}),
}
FORMS = {
    "dense r=2, sine": GroupNLConfig(normalize="batch"),
    "dense r=2, abs": GroupNLConfig(nlf="abs", normalize="batch"),
    "dense r=2, duplication": GroupNLConfig(nlf="identity", normalize="batch"),
    "dense r=4, sine": GroupNLConfig(reduction_ratio=4, normalize="batch"),
    "sparse r=2, sine": GroupNLConfig(sparse=True, normalize="batch"),
}


def networks(name: str, options: dict[str, object]) -> dict[str, nn.Module]:
    """The vanilla network, the same narrowed to the MACs of dense r = 2, and every converted form."""
    torch.manual_seed(0)
    result: dict[str, nn.Module] = {"vanilla": create_model(name, **options)}
    for form, config in FORMS.items():
        result[form] = create_model(name, **options)
        convert_(result[form], config)
    target = cost(result["dense r=2, sine"]).macs
    widths = narrow_to_macs(name, target, **options)
    label = "narrowed to r=2: " + "/".join(map(str, widths))
    return {"vanilla": result.pop("vanilla"), label: create_model(name, **(options | {"widths": widths})), **result}


def prepare(model: nn.Module, image: np.ndarray) -> tuple[Callable[[], object], int]:
    """A callable that classifies one picture, after the export was found equal to torch; and the bundle's bytes."""
    data = to_bundle(to_onnx(fold(model.eval())), INFO, step=None)
    predict = bundle_predictor(read_bundle(data), threads=1)
    found = compare_logits(torch_predictor(model, MEAN, STD)(image), predict(image))
    if found.max_rel > 1e-4:
        raise SystemExit(f"the exported graph differs by {found.max_rel:.1e} of the largest logit; nothing is timed")
    return (lambda: predict(image)), len(data)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--record", type=Path, help="write the numbers as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    record: dict[str, object] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("seedcnn", "torch", "onnxruntime", "numpy")},
        "rounds": arguments.rounds,
    }
    for shape, (name, options) in SHAPES.items():
        models = networks(name, dict(options))
        prepared = {form: prepare(model, image) for form, model in models.items()}
        times = interleave({form: call for form, (call, _) in prepared.items()}, rounds=arguments.rounds)
        base = times["vanilla"].median_ms
        print(f"\n{shape} (median of {arguments.rounds}, quartiles in brackets)")
        print(f"{'form':<34} {'MACs':>12} {'ms':>8} {'[q1, q3]':>18} {'ratio':>6} {'fp32 bytes':>11}")
        rows = {}
        for form, t in times.items():
            macs, size = cost(models[form]).macs, prepared[form][1]
            quartiles = f"[{t.q1_ms:.4f}, {t.q3_ms:.4f}]"
            print(f"{form:<34} {macs:>12,} {t.median_ms:>8.4f} {quartiles:>18} {t.median_ms / base:>6.3f} {size:>11,}")
            rows[form] = {
                "macs": macs,
                "median_ms": round(t.median_ms, 5),
                "quartiles_ms": [round(t.q1_ms, 5), round(t.q3_ms, 5)],
                "ratio": round(t.median_ms / base, 4),
                "fp32_bundle_bytes": size,
            }
        record[shape] = rows
    if arguments.record:
        arguments.record.parent.mkdir(parents=True, exist_ok=True)
        arguments.record.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
