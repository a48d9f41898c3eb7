"""Packing for devices that adapt: the option, its bytes, its neighbours, parents and deltas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from seedcnn.bundle import read_bundle
from seedcnn.bundle.delta import apply_delta, read_delta
from seedcnn.errors import ConfigError
from seedcnn.pack import Int8, PackRequest, Parent, pack
from seedcnn.runtime.adapting import Norms
from tests.pack.test_trained import info, on_grid, pictures


@pytest.fixture(scope="module")
def trained():
    return on_grid(widths=(16, 16, 32))


@pytest.fixture(scope="module")
def packed(trained):
    network, steps = trained
    return pack(network, info(), *pictures(), grid_steps=steps, adaptable=True)


def test_its_bytes_are_those_of_the_file(trained, packed):
    network, steps = trained
    plain = pack(network, info(), *pictures(), grid_steps=steps)
    assert plain.adapts is None
    assert packed.adapts.norms == 9
    assert packed.adapts.left == ()
    assert abs(len(packed.data) - len(plain.data) - packed.adapts.size) <= 16
    assert read_bundle(plain.data).manifest.norms == ()


def test_the_statistics_are_those_of_the_norms(trained, packed):
    network, _ = trained
    norms = Norms.of(read_bundle(packed.data))
    assert sum(norms.counts) == sum(m.num_features for m in network.modules() if isinstance(m, nn.BatchNorm2d))
    first, step = norms.shipped.split(norms.counts)[0], 2.0**-9
    assert np.abs(first.means - network.bn1.bias.detach().numpy()).max() <= step
    assert np.abs(first.stds - network.bn1.weight.detach().abs().numpy()).max() <= step


@pytest.mark.parametrize("step", [None, 1 / 256])
def test_bundles_that_were_not_trained_on_a_grid(trained, step):
    result = pack(trained[0], info(), *pictures(), step=step, adaptable=True)
    assert len(Norms.of(read_bundle(result.data)).sites) == 9


def test_a_child_is_adaptable_as_its_parent_is_and_an_update_of_norms_is_small(trained, packed):
    network, steps = trained
    kept = {name: value.clone() for name, value in network.state_dict().items()}
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight += 0.05 * torch.randn(module.num_features, generator=generator)
                module.bias += 0.05 * torch.randn(module.num_features, generator=generator)
    parent = Parent(read_bundle(packed.data), pictures(8)[0])
    child = pack(network, info(2), *pictures(), grid_steps=steps, parent=parent)
    network.load_state_dict(kept)
    assert child.adapts.norms == 9
    assert len(child.delta) < 0.35 * len(child.data)
    made = read_bundle(apply_delta(read_bundle(packed.data), read_delta(child.delta)))
    assert made.manifest.content_sha256() == read_bundle(child.data).manifest.content_sha256()
    assert not np.array_equal(Norms.of(made).shipped.means, Norms.of(read_bundle(packed.data)).shipped.means)


def test_it_contradicts_what_hides_the_norms(trained):
    network, _ = trained
    images, labels = pictures()
    with pytest.raises(ValueError, match="`adaptable` contradicts `int8`"):
        pack(network, info(), images, labels, int8=Int8(images[:8]), adaptable=True)
    with pytest.raises(ValueError, match="`adaptable` contradicts `target` 'onnxruntime-custom-op'"):
        pack(network, info(), images, labels, target="onnxruntime-custom-op", adaptable=True)
    plain = pack(network, info(), images, labels)
    with pytest.raises(ValueError, match="`adaptable` needs a parent that is adaptable"):
        pack(network, info(2), images, labels, parent=Parent(read_bundle(plain.data), images[:8]), adaptable=True)


def test_a_request_refuses_it_before_any_work(trained, tmp_path: Path):
    with pytest.raises(ConfigError, match="`adaptable` contradicts int8"):
        PackRequest("test", 1, adaptable=True, int8=True)
    with pytest.raises(ConfigError, match="`adaptable` contradicts `target` 'onnxruntime-custom-op'"):
        PackRequest("test", 1, adaptable=True, target="onnxruntime-custom-op")
    plain = tmp_path / "plain.bundle"
    plain.write_bytes(pack(trained[0], info(), *pictures()).data)
    with pytest.raises(ConfigError, match=r"needs an adaptable parent; .*plain\.bundle is none"):
        PackRequest("test", 2, adaptable=True, parent=plain).pack(trained[0], "resnet8")
