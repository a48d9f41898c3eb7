"""Two releases of one network, and tools to rewrite a delta and sign it again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from seedcnn.bundle import Seeded, encode_grid, encode_raw, encode_seeded, grid_of_step
from seedcnn.bundle.container import BYTES, Container, read_container, write_container
from seedcnn.bundle.delta import DELTA_FORMAT
from seedcnn.bundle.head import manifest_of, pack_head
from seedcnn.rng import FixedPoint
from tests.bundle.bundles import tiny_bundle

GRID = grid_of_step(0.006)
BODY = (24, 16, 3, 3)


def tensors(change: float = 0.0, seed: int = 0, step: float = 0.006):
    """A body of 3,456 weights, some of which move by a step or so, a head, a bias, and a mask from a seed."""
    rng = np.random.default_rng(1)
    body, head, bias = (rng.standard_normal(shape).astype(np.float32) * 0.1 for shape in (BODY, (10, 24), (10,)))
    moved = np.random.default_rng(seed).random(BODY) < change
    body = body + np.where(moved, np.float32(0.009), np.float32(0))
    return [
        encode_grid("body.weight", body, grid_of_step(step)),
        encode_grid("head.weight", head * 40, GRID),
        encode_raw("head.bias", bias + np.float32(change)),
        encode_seeded("body.mask", (64, 9), Seeded(5, 7, 3, FixedPoint(-8388608, 16777216, 23), 576, 1)),
    ]


def bundle(release: int, change: float = 0.0, **options):
    """A release of the same network."""
    rest = {"canned_logits": np.full((2, 3), change, np.float32)} | {
        name: options.pop(name) for name in ("labels", "graph", "model", "family", "min_release") if name in options
    }
    compression = options.pop("compression", "entropy")
    return tiny_bundle(tensors=tensors(change, **options), release=release, compression=compression, **rest)


def signed(delta: bytes, change: Callable[[Any], Any], rest: bytes | None = None) -> bytes:
    """The delta with ``change`` applied to its manifest, perhaps other bytes behind it, and the right digest."""
    container = read_container(delta, DELTA_FORMAT)
    value = json.loads(manifest_of(container.head, container.manifest_size))
    change(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    head = pack_head(text, b"")
    payloads = dict(container.payloads) | {BYTES: head + (bytes(container.rest) if rest is None else rest)}
    return write_container(Container(DELTA_FORMAT, len(text), len(head), payloads))


def setting(*path_and_value: Any) -> Callable[[Any], None]:
    """A change that sets the item at the path of the first arguments to the last one."""
    *path, name, new = path_and_value

    def change(value):
        for step in path:
            value = value[step]
        value[name] = new

    return change
