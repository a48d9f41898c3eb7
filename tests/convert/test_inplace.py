"""Networks without norms, whose activations change the layers' outputs in place."""

from __future__ import annotations

import torch
from torch import nn

from seedcnn.convert import GroupNLConfig, convert_
from seedcnn.layers import GroupNLConv2d


class Plain(nn.Module):
    """A VGG without norms, as torchvision writes it."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(inplace=True)),
            *(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(inplace=True)),
            nn.Conv2d(32, 32, 3, padding=1),
        )
        self.head = nn.Linear(32, 5)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


def test_a_network_without_norms_trains_after_conversion():
    torch.manual_seed(0)
    model = Plain()
    report = convert_(model, GroupNLConfig.paper())
    kept = {item.name: model.get_submodule(item.name).save for item in report.replaced}
    assert kept == {"features.2": "seeds", "features.5": "output", "features.8": "seeds"}
    assert all(isinstance(model.get_submodule(name), GroupNLConv2d) for name in kept)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = [p.detach().clone() for p in model.parameters()]
    nn.functional.cross_entropy(model(torch.randn(4, 3, 8, 8)), torch.arange(4)).backward()
    optimizer.step()
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


class Head(nn.Module):
    """An in-place activation that only ``forward`` knows of."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3)
        self.norm = nn.BatchNorm2d(16)

    def forward(self, x):
        return self.norm(self.second(self.first(x).relu_())).mean((2, 3))


def test_an_activation_in_place_that_stands_nowhere_does_no_harm():
    model = Head()
    convert_(model, GroupNLConfig.paper(), filter_fn=lambda *_: True)
    assert (model.first.save, model.second.save) == ("seeds", "output")
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    assert model.first.weight.grad.abs().sum() > 0
