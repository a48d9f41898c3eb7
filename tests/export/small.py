"""Networks small enough to be exported in a second: one of plain parts, and a residual one of ours."""

from __future__ import annotations

import torch
from torch import nn

from seedcnn.convert import convert_
from seedcnn.export import BundleInfo
from seedcnn.models.resnet_cifar import BasicBlock, ResNetCifar
from seedcnn.pack import preprocessing_of

SIZE = (3, 16, 16)
INFO = BundleInfo("small", "tests", 1, preprocessing_of((0.5,) * 3, (0.25,) * 3, (16, 16)), list("abcdefghij"))


class Small(nn.Module):
    """[N, 3, 16, 16] to [N, 10]: a stem, three convolutions to convert, a skip and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.conv1, self.norm1 = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.norm2 = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.conv3, self.norm3 = nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32)
        self.last = nn.Linear(32, 10)

    def forward(self, x):
        x = self.stem(x)
        y = torch.relu(self.norm1(self.conv1(x)))
        x = torch.relu(self.norm2(self.conv2(y)) + x)
        return self.last(self.norm3(self.conv3(x)).relu().mean((2, 3)))


def settled(model: nn.Module) -> nn.Module:
    """The model in eval mode, its norms estimated on noise."""
    with torch.no_grad():
        for _ in range(20):
            model.train()(torch.randn(8, *SIZE))
    return model.eval()


def small_network(config=None) -> nn.Module:
    """A settled network, converted unless ``config`` is None."""
    torch.manual_seed(0)
    model = Small()
    if config is not None:
        convert_(model, config, seed=3)
    return settled(model)


def small_resnet(config=None) -> nn.Module:
    """Two stages of one block, the second with a stride and a projection; converted unless ``config`` is None."""
    torch.manual_seed(0)
    model = ResNetCifar(BasicBlock, (1, 1), (16, 32))
    if config is not None:
        convert_(model, config, seed=3)
    return model
