"""How the bytes of a bundle divide: header, manifest, graph, vectors, weights, numbers of channels."""

from __future__ import annotations

from seedcnn.arrays import I16
from seedcnn.bundle.head import pack_head
from seedcnn.bundle.integers import stored_size
from seedcnn.bundle.reader import Bundle

__all__ = ["alone", "sizes_by_part"]


def alone(bundle: Bundle) -> dict[str, int]:
    """Bytes of each tensor by name, stored alone; together they take less."""
    integers: dict[str, I16] = {}
    bundle.unscaled(integers)
    sizes = {"raw-f32": 4, "raw-f16": 2, "raw-bf16": 2}
    storage = bundle.manifest.integers
    return {
        entry.name: stored_size([integers[entry.name]], storage)
        if entry.grid is not None
        else sizes.get(entry.coding, 0) * entry.elements
        for entry in bundle.manifest.tensors
    }


def sizes_by_part(bundle: Bundle) -> dict[str, int]:
    """Bytes of each part of the file; they add up to its size.

    Manifest and graph share a stream, and so do the integers of weights and of numbers of channels: the manifest and
    the weights count as if they were stored alone, and the graph and the numbers of channels take the rest.
    """
    integers: dict[str, I16] = {}
    bundle.unscaled(integers)
    manifest, container, stored = bundle.manifest, bundle.container, bundle.stored
    weights = {entry.name for entry in manifest.tensors if sum(size > 1 for size in entry.shape) > 1}
    some = [integers[name] for name in integers if name in weights]
    all_of_them = len(stored.integers)
    first = min(all_of_them, stored_size(some, manifest.integers)) if len(some) < len(integers) else all_of_them
    text = min(container.head_size, len(pack_head(manifest.dump(), b"")))
    floats = sum(len(data) for data in stored.floats.values())
    logits = 2 * manifest.canned.count * len(manifest.labels)
    known = {
        "manifest": text,
        "graph": container.head_size - text,
        "vectors": logits,
        "weights": first,
        "numbers of channels": all_of_them - first,
        "floats": floats,
    }
    return {"header": bundle.size - sum(known.values()), **known}
