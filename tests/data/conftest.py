"""A small set in the forms of CIFAR-10."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from seedcnn.data._cifar10_layouts import OFFICIAL, Batches


class SmallSet:
    """Seven pictures a batch: pixels [6, 7, 3072] channel first, labels [6, 7], blobs by name, and their digests."""

    def __init__(self) -> None:
        rng = np.random.default_rng(7)
        self.images = rng.integers(0, 256, (6, 7, 3072), dtype=np.uint8)
        self.labels = rng.integers(0, 10, (6, 7), dtype=np.uint8)
        parts = zip(self.labels, self.images, strict=True)
        blobs = [np.concatenate([label[:, None], image], axis=1).tobytes() for label, image in parts]
        self.blobs = dict(zip(OFFICIAL.sha1, blobs, strict=True))
        self.batches = Batches({name: hashlib.sha1(blob).hexdigest() for name, blob in self.blobs.items()}, pictures=7)

    def write_binary(self, directory):
        directory.mkdir(parents=True)
        for name, blob in self.blobs.items():
            (directory / f"{name}.bin").write_bytes(blob)


@pytest.fixture(scope="session")
def small() -> SmallSet:
    return SmallSet()
