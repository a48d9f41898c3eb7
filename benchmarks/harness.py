"""What the benchmarks share: export and check each form, time all of them interleaved, print and keep the numbers."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from seedcnn.bundle import read_bundle
from seedcnn.evaluate import bundle_predictor, compare_logits, cost, interleave, torch_predictor
from seedcnn.export import BundleInfo, fold, to_bundle, to_onnx
from seedcnn.pack import preprocessing_of

MEAN, STD = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
COLUMNS = f"{'form':<34} {'parameters':>12} {'MACs':>14} {'ms':>9} {'[q1, q3]':>20} {'ratio':>6} {'fp32 bytes':>11}"


def conditions(rounds: int) -> dict[str, Any]:
    """Where and with what the numbers were measured."""
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("seedcnn", "torch", "onnxruntime", "numpy")},
        "how": "ONNX Runtime, 1 thread, batch 1, random weights, all forms interleaved in random order in one process",
        "rounds": rounds,
    }


def settle(model: nn.Module, side: int) -> None:
    """Estimate the norms' running statistics on noise, so that random weights give numbers of ordinary size."""
    torch.manual_seed(0)
    with torch.no_grad():
        for _ in range(20):
            model.train()(torch.randn(4, 3, side, side))
    model.eval()


def measure(title: str, models: Mapping[str, nn.Module], *, side: int, classes: int, rounds: int) -> dict[str, Any]:
    """Export every model, compare it with torch, then time all of them; the first is the baseline. Prints a table.

    Raises:
        SystemExit: if an exported graph differs from its network by more than 1e-4 of the largest logit.
    """
    torch.set_num_threads(1)
    image = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    info = BundleInfo("bench", "bench", 1, preprocessing_of(MEAN, STD, (side, side)), [str(i) for i in range(classes)])
    calls, sizes = {}, {}
    for name, model in models.items():
        settle(model, side)
        data = to_bundle(to_onnx(fold(model), (3, side, side)), info, step=None)
        predict = bundle_predictor(read_bundle(data), threads=1)
        found = compare_logits(torch_predictor(model, MEAN, STD)(image), predict(image))
        if found.max_rel > 1e-4:
            raise SystemExit(f"{title}, {name}: the export differs by {found.max_rel:.1e}; nothing is timed")
        calls[name], sizes[name] = (lambda predict=predict: predict(image)), len(data)
    times = interleave(calls, rounds=rounds, warmup=max(10, rounds // 10))
    base = next(iter(times.values())).median_ms
    print(f"\n{title} (median of {rounds}, quartiles in brackets)\n{COLUMNS}")
    rows = {}
    for name, t in times.items():
        found = cost(models[name], (3, side, side))
        quartiles = f"[{t.q1_ms:.4f}, {t.q3_ms:.4f}]"
        print(
            f"{name:<34} {found.params:>12,} {found.macs:>14,} {t.median_ms:>9.4f} {quartiles:>20} "
            f"{t.median_ms / base:>6.3f} {sizes[name]:>11,}"
        )
        rows[name] = {
            "params": found.params,
            "macs": found.macs,
            "median_ms": round(t.median_ms, 5),
            "quartiles_ms": [round(t.q1_ms, 5), round(t.q3_ms, 5)],
            "ratio": round(t.median_ms / base, 4),
            "fp32_bundle_bytes": sizes[name],
        }
    return rows


def keep(path: Path | None, record: Mapping[str, Any]) -> None:
    """Write a record as JSON, if a path is given."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record, indent=2) + "\n")
