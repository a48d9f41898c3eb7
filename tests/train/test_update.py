"""Training a part of a network: what stays is bit-equal, and the update that follows is small."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from seedcnn.bundle import read_bundle, read_delta
from seedcnn.errors import ConfigError
from seedcnn.export import BundleInfo
from seedcnn.pack import Parent, pack, preprocessing_of
from seedcnn.train import load_checkpoint, load_model
from seedcnn.train.rate_config import RateConfig
from tests.train.runs import SMALL, coloured, run, same

PLAIN = replace(SMALL, convert=None, lr=0.02)
CLASSES = tuple("abcdefghij")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    path = tmp_path_factory.mktemp("start") / "start.ckpt"
    run(path, PLAIN)
    return path


def parts(state):
    """Names of the norms' numbers, of their statistics, of the head, and of the rest."""
    norms = {name for name in state if ".bn" in name or name.startswith("bn") or "downsample.1" in name}
    statistics = {name for name in norms if "running" in name or "tracked" in name}
    head = {name for name in state if name.startswith("fc.")}
    return norms - statistics, statistics, head, state.keys() - norms - head


@pytest.mark.parametrize(
    ("update", "moving"), [("norms", (0, 1)), ("head", (2,)), ("norms+head", (0, 1, 2)), ("all", (0, 1, 2, 3))]
)
def test_only_what_is_named_moves(start, tmp_path, update, moving):
    model, _ = run(tmp_path / "next.ckpt", replace(PLAIN, init_from=str(start), update=update))
    before, after = load_checkpoint(start).weights, load_checkpoint(tmp_path / "next.ckpt").weights
    groups = parts(before)
    assert all(groups)
    for place, names in enumerate(groups):
        moved = {name for name in names if not torch.equal(before[name], after[name])}
        assert bool(moved) == (place in moving), (place, moved)
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("update", ["norms", "head"])
def test_a_resumed_run_is_the_unbroken_one(start, tmp_path, update):
    config = replace(PLAIN, init_from=str(start), update=update)
    run(tmp_path / "whole.ckpt", config)
    run(tmp_path / "broken.ckpt", config, keep=2)
    first = next(path for path in tmp_path.glob("broken*.ckpt") if load_checkpoint(path).epoch == 1)
    first.replace(tmp_path / "broken.ckpt")
    run(tmp_path / "broken.ckpt", config, resume=True)
    assert same(load_checkpoint(tmp_path / "whole.ckpt").weights, load_checkpoint(tmp_path / "broken.ckpt").weights)


def test_what_cannot_be(start, tmp_path):
    with pytest.raises(ConfigError, match="update"):
        replace(PLAIN, update="stem")
    with pytest.raises(ConfigError, match=r"update \(='norms'\) needs init_from or pretrained"):
        run(tmp_path / "a.ckpt", replace(PLAIN, update="norms"))
    with pytest.raises(ConfigError, match=r"update \(='norms'\) contradicts whiten_stem"):
        replace(PLAIN, update="norms", whiten_stem=True)
    with pytest.raises(ConfigError, match=r"needs rate\.steps 'start'"):
        replace(PLAIN, update="norms+head", optimizer="adam", init_from=str(start), rate=RateConfig(0.3))
    bare = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
    with pytest.raises(ConfigError, match="the network has no norms with numbers that learn"):
        run(tmp_path / "b.ckpt", replace(PLAIN, update="norms"), model=bare)
    headless = nn.Sequential(nn.Linear(32, 16), nn.Flatten(), nn.Linear(3 * 32 * 16, 12), nn.Softmax(1), Cut())
    with pytest.raises(ConfigError, match="no linear layer or convolution of the network makes its logits last"):
        run(tmp_path / "c.ckpt", replace(PLAIN, update="head"), model=headless)


class Cut(nn.Module):
    """Ten of the values."""

    def forward(self, x):
        return x[:, :10]


@pytest.fixture(scope="module")
def on_grid(tmp_path_factory):
    """A network that was trained on a grid, and its bundle."""
    path = tmp_path_factory.mktemp("grid") / "grid.ckpt"
    wide = {"widths": (32, 64, 128), "patch": 8}
    first = path.with_name("first.ckpt")
    run(first, replace(PLAIN, model_options=wide, epochs=4))
    rate = RateConfig(0.01, loss=1e-3)
    run(path, replace(PLAIN, model_options=wide, optimizer="adam", lr=1e-3, rate=rate, epochs=1, init_from=str(first)))
    saved = load_checkpoint(path)
    assert all(saved.weights[name].any() for name in saved.steps)
    return path, packed(path, 1)


def packed(path, release, parent=None, **options):
    rule = preprocessing_of((0.5,) * 3, (0.25,) * 3)
    info = BundleInfo("resnet8_cifar", "test", release, rule, CLASSES)
    images = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    follow = None if parent is None else Parent(read_bundle(parent), images)
    steps = load_checkpoint(path).steps
    assert steps
    return pack(
        load_model(path)[0].eval(), info, images, np.zeros(64, np.int64), grid_steps=steps, parent=follow, **options
    )


def test_an_update_of_norms_is_small_and_names_no_weight(on_grid, tmp_path):
    path, parent = on_grid
    wide = {"widths": (32, 64, 128), "patch": 8}
    config = replace(PLAIN, model_options=wide, init_from=str(path), update="norms", epochs=2, lr=0.05)
    run(tmp_path / "norms.ckpt", config, data=coloured(seed=5))
    child = packed(tmp_path / "norms.ckpt", 2, parent.data)
    numbers = sum(m.weight.numel() * 2 for m in load_model(path)[0].modules() if isinstance(m, nn.BatchNorm2d))
    assert numbers > 1300
    assert len(child.delta) <= 2500
    changes = read_delta(child.delta).tensors
    table = read_bundle(parent.data).manifest.tensors
    assert {len(table[change.index].shape) for change in changes} == {1}


def test_norms_and_head_go_on_by_the_steps_of_the_start(on_grid, tmp_path):
    path, parent = on_grid
    wide = {"widths": (32, 64, 128), "patch": 8}
    rate = RateConfig(0.3, steps="start")
    config = replace(PLAIN, model_options=wide, init_from=str(path), update="norms+head", epochs=1)
    run(tmp_path / "both.ckpt", replace(config, optimizer="adam", lr=1e-3, rate=rate), data=coloured(seed=5))
    before, after = (load_checkpoint(each).weights for each in (path, tmp_path / "both.ckpt"))
    assert all(torch.equal(before[name], after[name]) for name in parts(before)[3])
    child = packed(tmp_path / "both.ckpt", 2, parent.data)
    assert len(child.delta) < 4000
