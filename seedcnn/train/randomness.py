"""Random numbers of a run: how they are seeded, and how a checkpoint keeps the states of the generators."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

__all__ = ["capture", "deterministic", "epoch_generator", "restore", "seed_everything"]


def epoch_generator(seed: int, epoch: int, rank: int = 0) -> torch.Generator:
    """The generator of an epoch's order and augmentation; it depends only on the arguments, so a resumed run sees the
    same images."""
    return torch.Generator().manual_seed((seed * 1_000_003 + epoch + rank * 0x9E3779B97F4A7C15) % 2**63)


def seed_everything(seed: int, rank: int = 0) -> None:
    """Seed the global generators, from which initial weights, dropout, mixup and random erasing draw."""
    seed = (seed + rank * 0x9E3779B97F4A7C15) % 2**63
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def capture(device: torch.device) -> Tensor:
    """The states of the global generators, as JSON in a uint8 tensor [bytes]."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    state = {
        "python": random.getstate(),
        "numpy": [kind, [int(key) for key in keys], *rest],
        "torch": torch.get_rng_state().tolist(),
        "cuda": torch.cuda.get_rng_state(device).tolist() if device.type == "cuda" else None,
    }
    return torch.frombuffer(bytearray(json.dumps(state).encode()), dtype=torch.uint8)


def restore(captured: Tensor, device: torch.device) -> None:
    """Restore the states that :func:`capture` returned."""
    state = json.loads(captured.numpy().tobytes())
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
    torch.set_rng_state(torch.tensor(state["torch"], dtype=torch.uint8))
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(torch.tensor(state["cuda"], dtype=torch.uint8), device)


@contextmanager
def deterministic(on: bool) -> Iterator[None]:
    """If ``on``, allow only operations that always give the same bits; torch's settings are restored afterwards."""
    if not on:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    workspace = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = workspace or ":4096:8"  # cuBLAS needs a fixed workspace for this
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
        if workspace is None:
            del os.environ["CUBLAS_WORKSPACE_CONFIG"]
