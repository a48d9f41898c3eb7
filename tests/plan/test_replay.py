"""A network run from one layer on, against the whole network."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from seedcnn.convert import reestimate_batchnorm_
from seedcnn.models import create_model
from seedcnn.plan import FORMS, Calibration
from seedcnn.plan.costs import cost_table
from seedcnn.plan.replay import graph_of, replay_from
from seedcnn.plan.sensitivity import measured_sensitivity
from seedcnn.plan.sites import find_sites, form_of_site

SIZE = (3, 8, 8)


class InPlace(nn.Module):
    """Code that changes in place what is read again: before the layer, after it, and on a path beside it."""

    def beside(self, x):
        return x + 1

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)
        self.norm, self.last = nn.BatchNorm2d(32), nn.Linear(32, 4)

    def forward(self, x, scale=2.0):
        x = self.stem(x).relu_()
        beside = self.beside(x)
        y = self.norm(self.conv(x))
        beside.mul_(scale)
        y += beside
        x.neg_()
        return self.last((y * x).mean((2, 3)))


class Shared(InPlace):
    """Two names for the same numbers, one of which is changed."""

    def beside(self, x):
        return x.view_as(x)


class Branching(nn.Module):
    """Code that cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.Linear(32, 4)

    def forward(self, x):
        y = self.norm(self.conv(x))
        return self.last((y if y.sum() > 0 else -y).mean((2, 3)))


class Asking(nn.Module):
    """Code that does something else while it is traced."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 32, 3), nn.Linear(32, 4)

    def forward(self, x):
        y = self.conv(x)
        return self.last((y.relu() if isinstance(x, torch.Tensor) else y).mean((2, 3)))


def batches():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(24, *SIZE, generator=generator).split([12, 7, 5])


@torch.no_grad()
def whole(network):
    """Logits of the network itself after the norms saw the images; its own statistics stay."""
    network = copy.deepcopy(network)
    reestimate_batchnorm_(network, batches())
    return torch.cat([network(x) for x in batches()])


def residual():
    return create_model("resnet8_cifar", widths=(16, 32, 32), num_classes=4).eval()


@pytest.mark.parametrize("make", [None, InPlace, residual])
def test_the_rest_of_a_network_answers_as_the_whole_one(small, one_thread, make):
    torch.manual_seed(0)
    network = small if make is None else make().eval()
    sites, _ = find_sites(network, SIZE)
    assert len(sites) >= 2
    for site in sites:
        kept = copy.deepcopy(network.state_dict())
        tail = replay_from(graph_of(network), network, site.name, batches())
        network.load_state_dict(kept)
        assert torch.equal(tail.logits(), whole(network)), site.name
        network.load_state_dict(kept)
        parent, _, child = site.name.rpartition(".")
        setattr(network.get_submodule(parent), child, form_of_site(network, site, FORMS["ghost-r2"], multiple=1))
        answers = tail.logits()
        network.get_submodule(site.name).eval()
        assert torch.equal(answers, whole(network)), site.name
        assert torch.equal(tail.logits(), answers)  # nothing has changed what is kept
        setattr(network.get_submodule(parent), child, site.conv)
        network.load_state_dict(kept)


def test_what_is_too_large_or_unknown_is_not_kept(small):
    shared = Shared().eval()
    assert replay_from(graph_of(shared), shared, "stem", batches()) is not None
    assert replay_from(graph_of(shared), shared, "conv", batches()) is None
    graph = graph_of(small)
    assert replay_from(graph, small, "conv", batches()) is not None
    assert replay_from(graph, small, "nowhere", batches()) is None
    assert replay_from(None, small, "conv", batches()) is None
    assert replay_from(graph, small, "conv", batches(), largest=1000) is None


@pytest.mark.parametrize("make", [Branching, Asking])
def test_networks_that_cannot_be_traced_run_as_a_whole(one_thread, make):
    torch.manual_seed(0)
    network = make().eval()
    images = torch.cat(batches())
    calibration = Calibration(images, torch.arange(24) % 4, fit_images=16, fit_steps=2)
    sites, _ = find_sites(network, SIZE)
    table = cost_table(network, sites, {"copy-r2": FORMS["copy-r2"]})
    found = measured_sensitivity(network, sites, table, calibration, budget="macs")
    assert 0 < found.of["conv", "copy-r2"] < 10
    with torch.no_grad():
        reestimate_batchnorm_(network, [images])
        loss = float(nn.functional.cross_entropy(network(images), calibration.labels))
    assert found.loss == pytest.approx(loss, rel=1e-5)


def test_sensitivities_with_and_without_what_is_kept_are_equal(small, one_thread):
    calibration = Calibration(torch.cat(batches()), torch.arange(24) % 4, fit_images=16, fit_steps=2)
    sites, _ = find_sites(small, SIZE)
    table = cost_table(small, sites, {name: FORMS[name] for name in ("abs-r2", "dws")})
    fast = measured_sensitivity(small, sites, table, calibration, budget="macs")
    assert measured_sensitivity(small, sites, table, calibration, budget="macs", largest=0).of == fast.of
