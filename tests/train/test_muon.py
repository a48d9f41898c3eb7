"""Muon on dense convolutions, SGD on the rest."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from seedcnn.convert import DepthwiseSeparableConfig, GhostConfig, GroupNLConfig, MonoConfig, convert_
from seedcnn.errors import ConfigError
from seedcnn.models import create_model
from seedcnn.train import TrainConfig, build_model
from seedcnn.train.muon import MuonSGD, dense_weights
from seedcnn.train.updates import Update
from tests.train.runs import changed, run, same

FAST = {"optimizer": "muon+sgd", "schedule": "linear", "augment": "shift2", "flip": "alternating"}


def optimizer_of(model, **options):
    defaults = {"lr": 0.1, "momentum": 0.9, "muon_lr": 0.08, "muon_momentum": 0.8, "weight_decay": 5e-4}
    return MuonSGD(model, [{"params": list(model.parameters())}], **defaults | options)


def test_dense_filters_are_told_from_others():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.Conv2d(8, 8, 3, groups=8, bias=False),
        nn.Conv2d(8, 8, 3, groups=2, bias=False),
        nn.Conv2d(8, 4, 1),
        nn.BatchNorm2d(4),
        nn.Linear(4, 2),
    )
    scaled, others = dense_weights(model)
    assert [id(p) for p in scaled] == [id(model[0].weight)]
    assert [id(p) for p in others] == [id(model[3].weight)]
    model[0].weight.requires_grad_(False)
    assert dense_weights(model)[0] == []


@pytest.mark.parametrize(
    "config", [GroupNLConfig(), MonoConfig(), GhostConfig(), DepthwiseSeparableConfig()], ids=lambda c: type(c).__name__
)
def test_every_parameter_has_one_group(config):
    model = create_model("resnet8_cifar", widths=(8, 8, 16))
    convert_(model, config)
    grouped = [p for group in optimizer_of(model).param_groups for p in group["params"]]
    assert sorted(map(id, grouped)) == sorted(map(id, model.parameters()))


def test_an_update_is_orthonormal_and_the_filters_keep_their_norm():
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, bias=False)
    optimizer = optimizer_of(conv, muon_lr=0.5)
    before = conv.weight.detach().clone()
    conv(torch.randn(2, 4, 8, 8)).square().sum().backward()
    optimizer.step()
    scaled = before * 6**0.5 / before.norm()
    change = ((conv.weight.detach() - scaled) / -0.5).flatten(1)
    values = torch.linalg.svdvals(change)
    assert values.min() > 0.6  # the quintic brings singular values near 1, not to 1
    assert values.max() < 1.3
    conv(torch.randn(2, 4, 8, 8)).square().sum().backward()
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    assert float(conv.weight.detach().norm()) == pytest.approx(6**0.5, rel=1e-6)


def test_the_rest_moves_as_under_torch_s_sgd():
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.Flatten(), nn.Linear(4 * 16, 5))
    theirs = nn.Linear(4 * 16, 5)
    theirs.load_state_dict(ours[2].state_dict())
    one = MuonSGD(
        ours, [{"params": list(ours.parameters()), "weight_decay": 0.01}], lr=0.1, momentum=0.9, muon_lr=0.1,
        muon_momentum=0.8, weight_decay=0.0,
    )  # fmt: skip
    two = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
    for _ in range(4):
        x = torch.randn(3, 3, 4, 4)
        inside = ours[:2](x).detach()
        for optimizer, loss in ((one, ours(x).square().mean()), (two, theirs(inside).square().mean())):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert torch.equal(ours[2].weight, theirs.weight)
        assert torch.equal(ours[2].bias, theirs.bias)


def test_a_filter_with_a_bias_decays_and_keeps_its_scale():
    conv = nn.Conv2d(3, 4, 1)
    before = conv.weight.detach().clone()
    optimizer = optimizer_of(conv, muon_lr=0.1, weight_decay=0.5)
    conv.weight.grad = torch.zeros_like(conv.weight)
    optimizer.step()
    assert torch.allclose(conv.weight, before * 0.95)


def test_a_network_without_dense_convolutions_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"'muon\+sgd'.*the network has none that is learnable, so use 'sgd'"):
        optimizer_of(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Linear(4, 2)))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"muon_lr": 0.1}, r"muon_lr \(=0.1\) goes with optimizer 'muon\+sgd', not with 'sgd'"),
        ({"muon_momentum": 0.5}, r"muon_momentum \(=0.5\) goes with optimizer"),
        ({"muon_lr": 0, "optimizer": "muon+sgd"}, r"muon_lr \(=0.0\) must be positive"),
        ({"muon_momentum": 1, "optimizer": "muon+sgd"}, r"muon_momentum \(=1.0\) must be in \[0, 1\)"),
        ({"opt_eps": 1e-8, "optimizer": "muon+sgd"}, "has no epsilon"),
        ({"schedule": "linear", "decay_rate": 0.5}, "has no effect with schedule 'linear'"),
        ({"flip": "sideways"}, r"flip \(='sideways'\) is unknown; known: random, alternating, none"),
        ({"augment": "none", "flip": "alternating"}, "has no effect with augment='none'"),
        ({"augment": "shift2", "data": "imagenet"}, "goes with images in memory"),
        ({"flip": "alternating", "data": "imagenet"}, "goes with images in memory"),
        ({"whiten_stem": True, "data": "imagenet"}, "goes with images in memory"),
        ({"whiten_stem": True, "init_from": "a.ckpt"}, "whiten_stem contradicts init_from"),
    ],
)  # fmt: skip
def test_wrong_options(fields, words):
    with pytest.raises(ConfigError, match=words):
        changed(**fields)


def test_the_rate_falls_in_a_straight_line_in_both_parts():
    config = changed(**FAST, epochs=4, warmup_epochs=1.0, lr=0.2, muon_lr=0.04, warmup_lr=0.0)
    model = build_model(config)
    update = Update(config, model, model, 10, 1, torch.device("cpu"))
    rates = []
    for step in range(40):
        update.schedule(step // 10, step % 10)
        rates.append({group["muon"]: group["lr"] for group in update.optimizer.param_groups})
    assert rates[10][False] == pytest.approx(0.2 * 0.75, rel=0.03)
    assert rates[25][False] == pytest.approx(0.2 * 0.375, rel=0.03)
    assert all(each[True] == pytest.approx(each[False] / 5, rel=1e-6) for each in rates[1:])


def test_the_fast_recipe_resumes_to_the_bit(tmp_path):
    config = changed(**FAST, epochs=4, lr=0.05, whiten_stem=True, ema=0.9)
    whole, state = run(tmp_path / "a.ckpt", config)
    run(tmp_path / "b.ckpt", config, until=2)
    parts, again = run(tmp_path / "b.ckpt", config, resume=True)
    assert same(whole.state_dict(), parts.state_dict())
    assert same(state.optimizer, again.optimizer)
    assert state.history[-1]["loss"] < state.history[0]["loss"]


def test_muon_goes_with_every_precision_option(tmp_path):
    for options in ({"precision": "bf16"}, {"clip_grad": 1.0, "grad_accumulation": 2}, {"channels_last": False}):
        _, state = run(tmp_path / "a.ckpt", changed(**FAST, **options))
        assert state.history[-1]["loss"] < state.history[0]["loss"]


def test_the_linear_scaling_rule_scales_both_rates():
    config = dataclasses.replace(changed(**FAST), lr_base_batch=8)
    model = build_model(config)
    update = Update(config, model, model, 10, 2, torch.device("cpu"))
    rates = {group["muon"]: group["initial_lr"] for group in update.optimizer.param_groups}
    assert rates == {True: pytest.approx(0.08 * 4), False: pytest.approx(0.1 * 4)}


def test_a_config_survives_its_text():
    config = TrainConfig("air_cifar", {"widths": (16, 64, 128)}, **FAST, muon_lr=0.06, whiten_stem=True)
    assert TrainConfig.from_dict(config.to_dict()) == config
