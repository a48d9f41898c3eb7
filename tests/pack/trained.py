"""A small trained network, for packing.

Its weights are in trained.npz, so that tests start from the same numbers on every processor; `python -m
tests.pack.trained` trains it again and writes that file.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from seedcnn.convert import GroupNLConfig, convert_
from seedcnn.export import BundleInfo
from seedcnn.models import create_model
from seedcnn.pack import preprocessing_of

INFO = BundleInfo("small", "tests", 4, preprocessing_of((0.5,) * 3, (0.25,) * 3), list("abcdefghij"), min_release=2)
_WEIGHTS = Path(__file__).with_name("trained.npz")
_MODEL = {"widths": (16, 16, 32), "patch": 4}
_CONVERT = GroupNLConfig.paper(normalize="batch")


def pictures() -> tuple[np.ndarray, np.ndarray]:
    """512 noisy pictures of ten colours, and their labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 512)
    colours = np.random.default_rng(99).integers(40, 215, (10, 3))
    images = (colours[labels][:, None, None, :] + rng.integers(-40, 41, (512, 32, 32, 3))).clip(0, 255).astype(np.uint8)
    return images, labels


def small_trained() -> tuple[nn.Module, np.ndarray, np.ndarray]:
    """A network that has learned the colours of its pictures, and the pictures."""
    model = create_model("resnet8_cifar", **_MODEL)
    convert_(model, _CONVERT)
    with np.load(_WEIGHTS) as stored:
        state = {name: torch.from_numpy(stored[name]) for name in stored.files}
    model.load_state_dict(
        {name: value.float() if value.dtype == torch.half else value for name, value in state.items()}
    )
    return (model.eval(), *pictures())


def _train() -> None:
    from seedcnn.train import TrainConfig, TrainData, TrainProgress, train

    data = TrainData(*pictures(), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    config = TrainConfig(model="resnet8_cifar", model_options=_MODEL, convert=_CONVERT, epochs=5, batch_size=32, lr=0.1)
    with tempfile.TemporaryDirectory() as folder:
        model, _ = train(config, data, Path(folder) / "a.ckpt", progress=TrainProgress("", 5, 16, quiet=True))
    state = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    np.savez_compressed(_WEIGHTS, **{name: value.numpy() for name, value in state.items()})


if __name__ == "__main__":
    _train()
