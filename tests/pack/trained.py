"""A small trained network, for packing.

Its weights are in trained.npz, so that tests start from the same numbers on every processor; `python -m
tests.pack.trained` trains it again and writes that file.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from seedcnn.convert import GroupNLConfig, convert_
from seedcnn.export import BundleInfo
from seedcnn.models.resnet_cifar import BasicBlock, ResNetCifar
from seedcnn.pack import preprocessing_of

INFO = BundleInfo("small", "tests", 4, preprocessing_of((0.5,) * 3, (0.25,) * 3), list("abcdefghij"), min_release=2)
_WEIGHTS = Path(__file__).with_name("trained.npz")


def pictures() -> tuple[np.ndarray, np.ndarray]:
    """512 noisy pictures of ten colours, and their labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 512)
    colours = np.random.default_rng(99).integers(40, 215, (10, 3))
    images = (colours[labels][:, None, None, :] + rng.integers(-40, 41, (512, 32, 32, 3))).clip(0, 255).astype(np.uint8)
    return images, labels


def small_trained() -> tuple[nn.Module, np.ndarray, np.ndarray]:
    """A network of two blocks that has learned the colours of its pictures, and the pictures."""
    model = _network()
    with np.load(_WEIGHTS) as stored:
        state = {name: torch.from_numpy(stored[name]) for name in stored.files}
    model.load_state_dict(
        {name: value.float() if value.dtype == torch.half else value for name, value in state.items()}
    )
    return (model.eval(), *pictures())


def _network() -> nn.Module:
    model = ResNetCifar(BasicBlock, (1, 1), (16, 32), patch=4)
    convert_(model, GroupNLConfig.paper(normalize="batch"))
    return model


def _train() -> None:
    torch.manual_seed(0)
    model, (images, labels) = _network().train(), pictures()
    x = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = 5 * 16
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        if step % 16 == 0:
            order = torch.randperm(len(x))
        batch = order[step % 16 * 32 :][:32]
        optimizer.zero_grad()
        F.cross_entropy(model(x[batch]), torch.from_numpy(labels)[batch]).backward()
        optimizer.step()
        schedule.step()
    state = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    np.savez_compressed(_WEIGHTS, **{name: value.numpy() for name, value in state.items()})


if __name__ == "__main__":
    _train()
