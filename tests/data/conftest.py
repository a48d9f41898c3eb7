"""A small set in the layouts of CIFAR-10, and image files."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from PIL import Image

from seedcnn.data.sets._cifar10_layouts import OFFICIAL, Batches


class SmallSet:
    """Seven images per batch: pixels [6, 7, 3072] channel first, labels [6, 7], blobs by name, and their digests."""

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


@pytest.fixture(scope="session")
def save_picture():
    """Write a random image of (width, height) to a path, creating its folders; returns its RGB pixels [H, W, 3]."""

    def save(path, size=(8, 6), *, seed=0, **options):
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, **options)
        return pixels

    return save
