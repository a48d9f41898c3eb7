"""int8 against float32 for CIFAR ResNet-18 in every form and runtime; ratios are to the form's own float32.

Run with ``python benchmarks/int8.py``. Weights are random: these are costs, not accuracies (``seedcnn pack --int8``
measures the accuracies of a trained network).
"""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import torch
from forms import FORMS
from harness import Bench, converted, options

from seedcnn.evaluate.runners import settled
from seedcnn.export import OnnxModel, fold, to_onnx
from seedcnn.export.bundles import encode_tensors
from seedcnn.export.onnx_graphs import INPUT, OUTPUT
from seedcnn.export.quantize import quantize
from seedcnn.latency import interleave
from seedcnn.layers.targets import TARGETS
from seedcnn.models import create_model
from seedcnn.runtime.custom_op import built
from seedcnn.runtime.session import SessionOptions, open_session

CHOSEN = ("GroupNL dense r=2", "GroupNL dense r=4", "GroupNL sparse r=2", "Ghost r=2", "depthwise-separable")


def call(model: OnnxModel, target: str, image: np.ndarray) -> partial[object]:
    """Return a call that runs a session on one image."""
    fused = TARGETS[target].operator
    own: SessionOptions = {"libraries": [built()]} if fused else {}
    tensors = {item.entry.name: item.expanded for item in encode_tensors(model, None)}
    session = open_session(model.graph, tensors, runtime="onnxruntime" if fused else target, **own)
    return partial(session.run, [OUTPUT], {INPUT: image})


def main() -> None:
    """Run the benchmark."""
    arguments = options(__doc__, rounds=100, runtimes=("onnxruntime", "onnxruntime-custom-op", "openvino"))
    bench = Bench(arguments)
    torch.manual_seed(0)
    models = converted(create_model("resnet18_cifar"), {name: FORMS[name] for name in CHOSEN})
    pictures = np.random.default_rng(0).standard_normal((16, 3, 32, 32)).astype(np.float32)
    calls = {}
    for form, model in models.items():
        network = settled(model, (3, 32, 32))
        for target in arguments.runtimes:
            exact = to_onnx(fold(network, target=target))
            calls[form, target, "float32"] = call(exact, target, pictures[:1])
            libraries = [built()] if TARGETS[target].operator else []
            calls[form, target, "int8"] = call(quantize(exact, pictures, libraries=libraries), target, pictures[:1])
    times = interleave(calls, rounds=arguments.rounds, warmup=10, settle=1)
    rows = []
    print(f"{'form':<24} {'runtime':<22} {'float32 ms':>10} {'int8 ms':>10} {'quartiles':>18} {'ratio':>6}")
    for (form, target, kind), t in times.items():
        if kind == "int8":
            base = times[form, target, "float32"]
            quartiles = f"[{t.q1_ms:.3f}, {t.q3_ms:.3f}]"
            ratio = t.median_ms / base.median_ms
            print(f"{form:<24} {target:<22} {base.median_ms:>10.3f} {t.median_ms:>10.3f} {quartiles:>18} {ratio:>6.3f}")
            row = {"form": form, "runtime": target}
            row |= {"float32_ms": round(base.median_ms, 4), "int8_ms": round(t.median_ms, 4)}
            quarters = {"float32_quartiles_ms": (base.q1_ms, base.q3_ms), "int8_quartiles_ms": (t.q1_ms, t.q3_ms)}
            rows.append(row | {name: [round(v, 4) for v in q] for name, q in quarters.items()} | {"n": t.n})
    if arguments.record is not None:
        arguments.record.parent.mkdir(parents=True, exist_ok=True)
        arguments.record.write_text(json.dumps({**bench.about, "resnet18, 32x32": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
