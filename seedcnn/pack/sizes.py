"""The size of a network's tensors in common codings, to compare with the bundle's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from seedcnn.arrays import I16
from seedcnn.bundle import read_bundle
from seedcnn.bundle.compression import STORAGES, compress
from seedcnn.bundle.integers import store_integers

__all__ = ["other_storages", "plain_sizes"]


def other_storages(data: bytes) -> dict[str, int]:
    """Bytes of a bundle if its integers were stored in the other ways; {} if no tensor is on a grid."""
    bundle = read_bundle(data)
    integers: dict[str, I16] = {}
    bundle.unscaled(integers)
    entries = [entry for entry in bundle.manifest.tensors if entry.grid is not None]
    if not entries:
        return {}
    rest = len(data) - len(bundle.stored.integers)
    pairs = [(integers[entry.name], entry.width) for entry in entries]
    others = [name for name in STORAGES if name != bundle.manifest.integers]
    return {f"this bundle, {name}": rest + len(store_integers(pairs, name)) for name in others}


def plain_sizes(tensors: Mapping[str, npt.NDArray[np.float32]]) -> dict[str, int]:
    """Bytes of all tensors together, without names or shapes, by coding.

    The codings are "float32", "float32, zstd", "float16" and "int8 per channel, zstd". The last has 255 levels and one
    float32 scale for each output channel, and keeps vectors as float16.
    """
    whole = b"".join(values.tobytes() for values in tensors.values())
    found = {"float32": len(whole), "float32, zstd": len(compress(whole, fast=True)), "float16": len(whole) // 2}
    parts, scales = [], 0
    for values in tensors.values():
        if values.ndim < 2:
            scales += 2 * values.size
            continue
        rows = values.reshape(len(values), -1)
        largest = np.abs(rows).max(axis=1, keepdims=True)
        parts.append(np.rint(rows / np.where(largest > 0, largest, 1) * 127).astype(np.int8).tobytes())
        scales += 4 * len(rows)
    return found | {"int8 per channel, zstd": len(compress(b"".join(parts))) + scales}
