"""The learning rate of every update, and the options of timm's optimizers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from seedcnn.errors import ConfigError
from seedcnn.train import build_model, override
from seedcnn.train.updates import Update, peak_lr
from tests.train.runs import changed, coloured, run

BASE = {"epochs": 4, "lr": 1.0, "warmup_epochs": 0.0, "warmup_lr": 0.0}


def update_of(config, updates=10):
    model = build_model(config)
    return Update(config, model, model, updates, 1, torch.device("cpu"))


def rates(config, updates=10):
    """The learning rate of each update of a run."""
    update = update_of(config, updates)
    found = []
    for epoch in range(config.epochs):
        for number in range(updates):
            update.schedule(epoch, number)
            found.append(update.lr)
    return found


def test_the_linear_scaling_rule():
    config = changed(batch_size=64, lr=0.1, lr_base_batch=256, grad_accumulation=2)
    assert peak_lr(config) == pytest.approx(0.1 * 128 / 256)
    assert peak_lr(config, world=8) == pytest.approx(0.1 * 1024 / 256)
    assert peak_lr(changed(lr=0.1), world=8) == 0.1


def test_schedules():
    assert rates(changed(**BASE, schedule="step", decay_epochs=(2,))) == pytest.approx([1.0] * 20 + [0.1] * 20)
    poly = rates(changed(**BASE, schedule="poly", decay_rate=2.0))
    assert poly == pytest.approx([(1 - n / 40) ** 2 for n in range(40)])
    cosine = rates(changed(**(BASE | {"warmup_epochs": 1.0}), schedule="cosine"))
    assert cosine[:10] == pytest.approx([n / 10 for n in range(10)])
    assert cosine[30] == pytest.approx(0.1464, abs=1e-3)  # (1 + cos(3/4 pi)) / 2
    for name in ("cosin", "plateau", "none"):
        with pytest.raises(ConfigError, match=f"schedule '{name}'"):
            rates(changed(schedule=name))
    with pytest.raises(ConfigError, match="cannot make the optimizer 'sgdd'"):
        rates(changed(optimizer="sgdd"))


@pytest.mark.parametrize("updates", [1, 3, 7, 10, 391])
def test_multistep_decays_with_the_named_epoch(updates):
    """Not one update earlier, as timm counts; like torch's schedule with one step per epoch."""
    config = changed(**BASE | {"epochs": 6}, schedule="multistep", decay_epochs=(1, 4), decay_rate=0.5)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    torchs = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 4], 0.5)
    expected = []
    for _ in range(6):
        expected += [optimizer.param_groups[0]["lr"]] * updates
        optimizer.step()
        torchs.step()
    assert rates(config, updates) == pytest.approx(expected)


def test_multistep_with_a_warmup_and_fractions_of_an_epoch():
    config = changed(**BASE | {"warmup_epochs": 0.5}, schedule="multistep", decay_epochs=(1.5, 2.25, 3))
    ramp = [n / 5 for n in range(5)]
    assert rates(config) == pytest.approx(ramp + [1.0] * 10 + [0.1] * 8 + [0.01] * 7 + [0.001] * 10)


def test_steps_may_be_fractions_of_an_epoch():
    config = changed(**BASE | {"epochs": 6}, schedule="step", decay_epochs=(2.4,))
    assert rates(config) == pytest.approx([1.0] * 24 + [0.1] * 24 + [0.01] * 12)
    assert override(config, ["decay_epochs=(0.5,)", "epochs=1"]).decay_epochs == (0.5,)


@pytest.mark.parametrize("schedule", ["cosine", "tanh", "poly", "wsd", "rsqrt"])
def test_a_cooldown_is_at_the_lowest_rate_after_the_whole_schedule(schedule):
    warm = BASE | {"warmup_epochs": 1.0, "warmup_lr": 0.1}
    short = rates(changed(**warm, schedule=schedule, min_lr=0.01))
    cooled = rates(changed(**warm | {"epochs": 6}, schedule=schedule, min_lr=0.01, cooldown_epochs=2))
    assert cooled == pytest.approx(short + [0.01] * 20)


def test_noise_is_drawn_once_an_epoch():
    config = changed(**BASE | {"epochs": 12}, schedule="constant", lr_noise=(0.25, 0.75))
    noisy = torch.tensor(rates(config)).reshape(12, 10)
    assert torch.equal(noisy, noisy[:, :1].expand(12, 10))
    assert (noisy[:3] == 1).all()
    assert (noisy[9:] == 1).all()
    inside = noisy[3:9, 0]
    assert len(set(inside.tolist())) == 6
    assert ((inside - 1).abs() < 0.67).all()
    assert ((inside - 1).abs() > 0).all()
    assert torch.equal(noisy, torch.tensor(rates(config)).reshape(12, 10))
    other = changed(**BASE | {"epochs": 12}, schedule="constant", lr_noise=(0.25,), seed=5)
    moved = torch.tensor(rates(other)).reshape(12, 10)[:, 0]
    assert (moved[3:] != 1).all()
    assert not torch.equal(moved[3:9], inside)


def test_noise_multiplies_the_schedule():
    plain = rates(changed(**BASE, schedule="cosine"))
    noisy = rates(changed(**BASE, schedule="cosine", lr_noise=(0.0, 1.0)))
    factors = (torch.tensor(noisy[1:]) / torch.tensor(plain[1:])).tolist()
    for epoch in range(4):
        within = factors[max(0, 10 * epoch - 1) : 10 * epoch + 9]
        assert within == pytest.approx([within[0]] * len(within))


def test_the_epsilon_of_the_optimizer(tmp_path):
    assert update_of(changed(optimizer="rmsproptf", opt_eps=1e-3)).optimizer.defaults["eps"] == 1e-3
    own = update_of(changed(optimizer="rmsproptf")).optimizer.defaults["eps"]
    assert own != 1e-3
    with pytest.raises(ConfigError, match=r"opt_eps \(=0.001\): the optimizer 'sgd' has no epsilon"):
        update_of(changed(opt_eps=1e-3))
    losses = [
        run(tmp_path / f"{eps}.ckpt", changed(optimizer="adamw", lr=0.01, opt_eps=eps))[1].history[-1]["loss"]
        for eps in (0.0, 1e-8, 0.1)
    ]
    assert losses[0] == losses[1]  # adamw's own
    assert losses[0] != losses[2]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"opt_eps": -1.0}, r"opt_eps \(=-1.0\) must not be negative"),
        ({"input_size": -1, "data": "imagenet"}, r"input_size \(=-1\) must not be negative"),
        ({"input_size": 288}, r"input_size \(=288\) goes with the data imagenet only"),
        ({"cooldown_epochs": 2}, r"cooldown_epochs \(=2\) must be in \[0, epochs \(=2\)\)"),
        ({"cooldown_epochs": -1}, r"cooldown_epochs \(=-1\)"),
        ({"cooldown_epochs": 1, "schedule": "constant"}, "contradicts schedule 'constant'"),
        ({"cooldown_epochs": 1, "warmup_epochs": 1.5}, r"warmup_epochs \(=1.5\) must be in .* cool-down \(=1\)"),
        ({"lr_noise": (0.5, 0.2)}, r"lr_noise \(=\(0.5, 0.2\)\)"),
        ({"lr_noise": (0.1, 0.2, 0.3)}, "one or two ascending shares"),
        ({"lr_noise": (0.5, 1.5)}, "0 to 1"),
        ({"schedule": "step", "decay_epochs": (0.0,)}, r"decay_epochs \(=\(0.0,\)\) must be positive"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_contradictions_are_refused(fields, words):
    with pytest.raises(ConfigError, match=words):
        changed(**fields)


def test_the_size_of_pictures_is_held_against_the_data(tmp_path):
    with pytest.raises(ConfigError, match=r"input_size \(=288\) must be that of the data, 32x32"):
        run(tmp_path / "a.ckpt", changed(data="imagenet", input_size=288))
    assert run(tmp_path / "b.ckpt", changed(data="imagenet", input_size=32), data=coloured(32))[1].epoch == 2
