"""A small trained network, for packing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import nn

from seedcnn.convert import GroupNLConfig
from seedcnn.export import BundleInfo
from seedcnn.pack import preprocessing_of
from seedcnn.train import TrainConfig, TrainData, TrainProgress, train

INFO = BundleInfo("small", "tests", 4, preprocessing_of((0.5,) * 3, (0.25,) * 3), list("abcdefghij"), min_release=2)


def train_small(path: Path) -> tuple[nn.Module, np.ndarray, np.ndarray]:
    """A network that has learned the colours of its pictures, and the pictures."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 512)
    colours = np.random.default_rng(99).integers(40, 215, (10, 3))
    images = (colours[labels][:, None, None, :] + rng.integers(-40, 41, (512, 32, 32, 3))).clip(0, 255).astype(np.uint8)
    data = TrainData(images, labels, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    config = TrainConfig(
        model="resnet8_cifar",
        model_options={"widths": (16, 16, 32), "patch": 4},
        convert=GroupNLConfig.paper(normalize="batch"),
        epochs=5,
        batch_size=32,
        lr=0.1,
    )
    model, _ = train(config, data, path, progress=TrainProgress("", 5, 16, quiet=True))
    return model, images, labels
