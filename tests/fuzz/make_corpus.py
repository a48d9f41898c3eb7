"""Write the fuzzer's corpus again, after a change of the format: ``python -m tests.fuzz.make_corpus``."""

from __future__ import annotations

import numpy as np

from seedcnn.bundle import Preprocessing, encode_grid, grid_of_step, read_bundle
from seedcnn.bundle.delta import write_delta
from tests.bundle.bundles import RULE, tiny_bundle, tiny_tensors
from tests.fuzz.fuzz_bundle import CORPUS

# One bundle for each way in which a picture takes its size.
RULES = {
    "parent": RULE,
    "zlib": Preprocessing.pad((4, 6), filter="box", fill=(9, 0, 255)),
    "xz": Preprocessing.squash(5, filter="bicubic", channels=1),
    "none": Preprocessing.exact((5, 4)),
}


def main() -> None:
    """Write all files."""
    parent = tiny_bundle()
    for name, rule in RULES.items():
        compression = {"parent": "entropy", "none": "zstd"}.get(name, name)
        data = tiny_bundle(compression=compression, preprocessing=rule)
        (CORPUS / f"{name}.bundle").write_bytes(data)
    moved = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    moved[0, 1] += 0.1
    moved[2, 3] -= 0.2
    tensors = tiny_tensors(bias=0.25)
    tensors[1] = encode_grid("conv.weight", moved, grid_of_step(0.05))
    result = read_bundle(tiny_bundle(tensors=tensors, release=4))
    for compression in ("entropy", "zstd", "zlib", "xz"):
        delta = write_delta(read_bundle(parent), result, compression=compression)
        (CORPUS / f"{compression}.delta").write_bytes(delta)


if __name__ == "__main__":
    main()
