"""Bytes of integers by the entropy coder and by zstd, and the processor time of the coder.

    python benchmarks/entropy.py [BUNDLE ...]

The weights of each bundle, a tensor each, and 11,164,352 numbers of Laplace distributions with the shapes of ResNet-18.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from seedcnn.arrays import I16
from seedcnn.bundle import open_bundle
from seedcnn.bundle.integers import load_integers, store_integers, stored_size, width_of
from seedcnn.export.bundles import is_weight
from seedcnn.models import create_model

SCALES = (0.3, 0.52)  # of the Laplace distributions, in steps


def drawn(scale: float) -> list[I16]:
    """Integers with the shapes of a ResNet-18."""
    rng = np.random.default_rng(0)
    shapes = [tuple(p.shape) for p in create_model("resnet18_cifar").parameters()]
    return [np.rint(rng.laplace(scale=scale, size=shape)).astype(np.int16) for shape in shapes if is_weight(shape)]


def weights(path: str) -> list[I16]:
    """The integers of a bundle's weights."""
    bundle, found = open_bundle(path), {}
    bundle.unscaled(found)
    return [found[each.name] for each in bundle.manifest.tensors if each.grid is not None and is_weight(each.shape)]


def row(name: str, tensors: Sequence[I16]) -> tuple[str, ...]:
    """A row of the table."""
    coded = [(each, width_of(each)) for each in tensors]
    start = time.process_time()
    data = store_integers(coded, "entropy")
    encoded = time.process_time()
    for _ in load_integers(data, [(each.shape, width) for each, width in coded], "entropy"):
        pass
    decoded = time.process_time()
    count, zstd = sum(each.size for each in tensors), stored_size(tensors, "zstd")
    seconds = f"{decoded - encoded:.2f}, {encoded - start:.2f}"
    bits, more = f"{8 * len(data) / count:.2f}", f"{100 * (zstd / len(data) - 1):.1f} %"
    return name, f"{count:,}", bits, f"{len(data):,}", f"{zstd:,}", more, seconds


def main() -> None:
    """Print the table."""
    table = Table("integers", "number", "bits", "entropy coder", "zstd", "zstd is larger by", "decode, encode, s")
    for path in sys.argv[1:]:
        table.add_row(*row(path, weights(path)))
    for scale in SCALES:
        table.add_row(*row(f"ResNet-18, Laplace of scale {scale}", drawn(scale)))
    Console().print(table)


if __name__ == "__main__":
    main()
