"""Training on the grid: steps, bits, latent numbers, and runs that resume."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seedcnn.errors import ConfigError
from seedcnn.train import load_checkpoint, load_model
from seedcnn.train.rate import LatentGrid, bits_of, on_the_grid, sensitivity_steps
from seedcnn.train.rate_config import RateConfig
from tests.forms import FORMS
from tests.train.runs import changed, coloured, run, same

GRID = {"optimizer": "adam", "lr": 1e-3, "rate": RateConfig(0.3)}


def on_its_grid(state, steps):
    """Whether every weight of a checkpoint's network is a whole number of steps."""
    return all(bool(((state[name] / step).round() * step == state[name]).all()) for name, step in steps.items())


@pytest.mark.parametrize("scale", [0.1, 0.5, 1.0, 4.0, 50.0])
def test_bits_are_those_of_the_distribution(scale):
    """The shares of unit intervals sum to 1, and each equals the integral of the density."""
    log_scale = torch.tensor(math.log(scale), dtype=torch.float64)
    places = torch.arange(-3000, 3001, dtype=torch.float64) + 0.3
    shares = 2 ** -bits_of(places, log_scale)
    assert float(shares.sum()) == pytest.approx(1, abs=1e-6)
    for place in (0.0, 0.2, 0.49, 0.51, 2.0, -1.3):
        fine = torch.linspace(place - 0.5, place + 0.5, 20001, dtype=torch.float64)
        density = torch.exp(-fine.abs() / scale) / (2 * scale)
        expected = float(torch.trapezoid(density, fine))
        assert float(2 ** -bits_of(torch.tensor(place, dtype=torch.float64), log_scale)) == pytest.approx(
            expected, rel=1e-4, abs=1e-11
        )


def test_bits_have_gradients_everywhere():
    places = torch.linspace(-600, 600, 4001, requires_grad=True)
    log_scale = torch.tensor(math.log(0.02), requires_grad=True)
    found = torch.autograd.grad(bits_of(places, log_scale).sum(), [places, log_scale])
    assert all(bool(each.isfinite().all()) for each in found)
    assert bool((found[0][places.detach() > 0.6] > 0).all())


def test_steps_cost_what_was_asked():
    """Rounding by the steps adds the asked cross entropy, to second order, on a linear network without noise."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 10, bias=False))
    images = torch.randn(4000, 3, 4, 4)
    steps = sensitivity_steps(model, [(images, None)], 0.01)
    assert steps.keys() == {"1.weight"}
    weight, (step,) = model[1].weight.detach().clone(), steps.values()
    answers = model(images).detach().softmax(1)
    costs = []
    for seed in range(20):
        noise = (torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed)) - 0.5) * step
        with torch.no_grad():
            model[1].weight.copy_(weight + noise)
            costs.append(float(F.kl_div(model(images).log_softmax(1), answers, reduction="batchmean")))
    assert np.mean(costs) == pytest.approx(0.01, rel=0.25)


def test_a_tensor_of_more_influence_has_a_finer_step():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 36, 10))
    model[2].weight.data *= 4
    steps = sensitivity_steps(model, [(torch.randn(256, 3, 8, 8), None)], 0.1)
    assert steps["0.weight"] < steps["2.weight"]
    assert all(np.float32(step) == step for step in steps.values())


def test_latent_numbers_are_rounded_and_come_back():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    grid = LatentGrid(model, {"0.weight": 0.05}, 0.3)
    grid.round_()
    grid.round_()
    assert not torch.equal(model[0].weight, before["0.weight"])
    places = model[0].weight.detach() / 0.05
    assert torch.allclose(places, places.round(), atol=1e-5)
    assert torch.equal(model[1].weight, before["1.weight"])
    grid.restore_()
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_the_price_is_the_gradient_of_the_bits():
    torch.manual_seed(0)
    model = nn.Conv2d(3, 4, 3, bias=False)
    grid = LatentGrid(model, {"weight": 0.02}, 0.7)
    grid.add_gradients()
    ours, step = model.weight.grad.clone(), 0.02
    for place in ((0, 0, 0, 0), (3, 2, 1, 1)):
        bits = []
        for sign in (1, -1):
            with torch.no_grad():
                model.weight[place] += sign * step * 0.02
            again = LatentGrid(model, {"weight": 0.02}, 0.7)
            again.load(grid.state() | {"updates": torch.tensor(0)})
            again.add_gradients()
            bits.append(again.bits)
            with torch.no_grad():
                model.weight[place] -= sign * step * 0.02
        slope = 0.7 * (bits[0] - bits[1]) / (2 * step * 0.02)
        assert float(ours[place]) == pytest.approx(slope, rel=0.05, abs=1e-3)


def test_a_start_counts_differences():
    torch.manual_seed(0)
    model = nn.Conv2d(3, 16, 3, bias=False)
    integers = (model.weight.detach() / 0.01).round()
    plain, near = (LatentGrid(model, {"weight": 0.01}, 0.3, start=start) for start in (None, {"weight": integers}))
    for grid in (plain, near):
        grid.add_gradients()
    assert near.bits < plain.bits / 2


@pytest.mark.parametrize("convert", FORMS, ids=lambda config: type(config).__name__)
def test_every_form_trains_on_its_grid(tmp_path, convert):
    config = changed(convert=convert, model_options={"widths": (8, 8, 16), "patch": 4}, **GRID)
    model, state = run(tmp_path / "a.ckpt", config)
    assert state.steps.keys() == on_the_grid(model).keys()
    assert on_its_grid(model.state_dict(), state.steps)
    assert not on_its_grid(state.model, state.steps)  # these are the latent numbers
    loaded, found = load_model(tmp_path / "a.ckpt")
    assert same(loaded.state_dict(), model.state_dict())
    assert found.steps == state.steps
    assert state.history[-1]["loss"] > 0


@pytest.mark.parametrize("options", [{}, {"grad_accumulation": 2, "clip_grad": 1.0}, {"precision": "bf16"}])
def test_a_run_on_the_grid_resumes_to_the_bit(tmp_path, options):
    config = changed(**GRID | {"epochs": 3} | options)
    whole, state = run(tmp_path / "a.ckpt", config)
    run(tmp_path / "b.ckpt", config, until=1)
    parts, again = run(tmp_path / "b.ckpt", config, resume=True)
    assert same(whole.state_dict(), parts.state_dict())
    for part in ("model", "optimizer", "task"):
        assert same(getattr(state, part), getattr(again, part)), part


def test_a_higher_price_leaves_more_zeros(tmp_path):
    zeros = []
    for weight in (0.0, 20.0):
        config = changed(**GRID | {"rate": RateConfig(weight, loss=1e-3, lr=0.3), "epochs": 6})
        _, state = run(tmp_path / f"{weight}.ckpt", config)
        zeros.append(sum(int((state.weights[name] == 0).sum()) for name in state.steps))
    assert zeros[1] > zeros[0] * 1.1


def test_a_second_run_starts_from_the_first_one_s_grid(tmp_path):
    _, first = run(tmp_path / "a.ckpt", changed(**GRID))
    config = changed(**GRID | {"rate": RateConfig(5.0, steps="start")}, init_from=str(tmp_path / "a.ckpt"))
    model, second = run(tmp_path / "b.ckpt", config, data=coloured(seed=1))
    assert second.steps == first.steps
    assert on_its_grid(model.state_dict(), second.steps)
    same_numbers = sum(int((second.weights[n] == first.weights[n]).sum()) for n in first.steps)
    assert same_numbers > 0.8 * sum(first.weights[n].numel() for n in first.steps)


def test_a_start_without_a_grid_is_refused(tmp_path):
    run(tmp_path / "a.ckpt", changed(epochs=1))
    config = changed(**GRID | {"rate": RateConfig(1.0, steps="start")}, init_from=str(tmp_path / "a.ckpt"))
    with pytest.raises(ConfigError, match=r"rate\.steps \(='start'\): .*a\.ckpt was not trained on a grid"):
        run(tmp_path / "b.ckpt", config)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rate": {"weight": -1}}, r"rate\.weight \(=-1\.0\) must be a number that is not negative"),
        ({"rate": {"steps": "guess"}}, r"rate\.steps \(='guess'\) must be one of sensitivity, start"),
        ({"rate": {"loss": 0}}, r"rate\.loss \(=0\.0\) must be a positive number"),
        ({"rate": {"steps": "start", "loss": 0.2}}, "has no effect with steps 'start'"),
        ({"rate": {"steps": "start"}, "optimizer": "adam"}, r"rate\.steps \(='start'\) needs init_from"),
        ({"rate": {}, "optimizer": "sgd"}, r"rate needs optimizer 'adam', not 'sgd'"),
        ({"rate": {}, "optimizer": "adam", "ema": 0.9}, "rate contradicts ema=0.9"),
        ({"rate": {}, "optimizer": "adam", "precision": "fp16"}, "rate contradicts precision='fp16'"),
    ],
)
def test_wrong_options(fields, words):
    with pytest.raises(ConfigError, match=words):
        changed(**fields)


def test_a_config_with_a_price_survives_its_text():
    config = changed(**GRID)
    assert type(config).from_dict(config.to_dict()) == config


def test_the_checkpoint_before_any_training_is_rounded_too(tmp_path):
    run(tmp_path / "a.ckpt", changed(**GRID), until=1)
    saved = load_checkpoint(tmp_path / "a.ckpt")
    assert on_its_grid(saved.ema, saved.steps)


def test_a_network_that_cannot_be_packed_is_not_trained(tmp_path):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3, bias=False), nn.Linear(4, 10)
            self.conv.register_forward_hook(lambda module, args, output: output * 2)

        def forward(self, x):
            return self.fc(self.conv(x).mean((2, 3)))

    with pytest.raises(ConfigError, match="rate: the network cannot be packed, so it is not trained for it"):
        run(tmp_path / "a.ckpt", changed(convert=None, **GRID), model=Odd())
    assert not (tmp_path / "a.ckpt").exists()
