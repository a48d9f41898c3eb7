"""Write the frozen files in ``vectors/`` again, after a change of the format: ``python -m tests.bundle.make_vectors``.

Compressed bytes may differ with the versions of zlib, zstd and xz; what a reader gets from them does not.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from seedcnn.bundle import Preprocessing, Seeded, encode_grid, encode_seeded, grid_of_step, read_bundle
from seedcnn.bundle.delta import apply_delta, read_delta, write_delta
from seedcnn.rng import FixedPoint
from tests.bundle.bundles import tiny_bundle, tiny_tensors

VECTORS = Path(__file__).parent / "vectors"
NAMES = ("entropy", "zstd", "zlib", "xz")
BODY = (24, 16, 3, 3)
CIFAR = {"mean": (0.49139968, 0.48215827, 0.44653124), "std": (0.24703233, 0.24348505, 0.26158768)}
GREY = {"channels": 1, "mean": 0.5, "std": 0.25}
# All four ways to take a size, all four filters, one and three channels; the last four are entropy-coded.
RULES = {
    "entropy": Preprocessing.exact((4, 6), **CIFAR),
    "zstd": Preprocessing.crop(4, short_side=5, filter="bicubic", **CIFAR),
    "zlib": Preprocessing.crop((4, 5), short_side=7, background=(250, 128, 3), **CIFAR),
    "xz": Preprocessing.squash(5, filter="box", **GREY),
    "rule-squash": Preprocessing.squash((5, 3), filter="bicubic", background=(0, 90, 255), **GREY),
    "rule-pad": Preprocessing.pad((4, 9), filter="box", fill=(1, 2, 255), **CIFAR),
    "rule-nearest": Preprocessing.crop(3, short_side=8, filter="nearest", orientation="stored", **CIFAR),
    "rule-none": Preprocessing.exact((6, 5), **GREY),
}


def told(data: bytes) -> str:
    """What a reader prints about a bundle."""
    bundle = read_bundle(data)
    lines = [f"bundle {bundle.manifest.model} release {bundle.manifest.release}"]
    for name, value in bundle.tensors().items():
        digest = hashlib.sha256(value.astype("<f4").tobytes()).hexdigest()
        lines.append(f"tensor {name} {'x'.join(map(str, value.shape))} {digest}")
    lines.append(f"graph {hashlib.sha256(bundle.graph()).hexdigest()}")
    lines.append(f"images {hashlib.sha256(bundle.canned_images().tobytes()).hexdigest()}")
    lines.append(f"pictures {bundle.manifest.canned.pictures.sha256}")
    return "\n".join(lines) + "\n"


def bundle_of(name: str, *, changed: bool = False) -> bytes:
    """One of the bundles, or the release that its delta makes: some weights and the bias moved."""
    compression = name if name in NAMES else "entropy"
    tensors = tiny_tensors()
    if name in NAMES:
        rng = np.random.default_rng(1)
        body, fine = (rng.standard_normal(BODY) * scale for scale in (0.1, 0.3))
        if changed:
            body, fine = (np.where(rng.random(BODY) < 0.01, values + 0.02, values) for values in (body, fine))
            tensors[0] = tiny_tensors(bias=0.25)[0]
        mask = Seeded(0x0123456789ABCDEF, 7, 3, FixedPoint(-(2**23), 2**24, 23), 576, 1)
        tensors += [
            encode_grid("body.weight", body, grid_of_step(0.006)),
            encode_grid("body.fine", fine, grid_of_step(1e-4)),
            encode_seeded("body.mask", (64, 9), mask),
        ]
    graph = np.random.default_rng(2).integers(0, 40, 5000, np.uint8).tobytes()
    more = {"release": 4, "min_release": 2, "canned_logits": np.ones((2, 3), np.float32)} if changed else {}
    return tiny_bundle(tensors=tensors, graph=graph, compression=compression, preprocessing=RULES[name], **more)


def main() -> None:
    """Write all files."""
    for name in RULES:
        data = bundle_of(name)
        (VECTORS / f"{name}.bundle").write_bytes(data)
        (VECTORS / f"{name}.txt").write_text(told(data))
        if name in NAMES:
            parent = read_bundle(data)
            delta = write_delta(parent, read_bundle(bundle_of(name, changed=True)), compression=name)
            (VECTORS / f"{name}.delta").write_bytes(delta)
            (VECTORS / f"{name}-next.txt").write_text(told(apply_delta(parent, read_delta(delta))))


if __name__ == "__main__":
    main()
