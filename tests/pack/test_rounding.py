"""Rounding to a layer's inputs: the statistics are those of the layer, and its answers stay closer than by rounding to
the nearest."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seedcnn.export import fold
from seedcnn.pack import rounding
from seedcnn.pack.rounding import Rounder, relative_steps

LAYERS = {
    "plain": lambda: nn.Conv2d(4, 6, 3, padding=1),
    "strided": lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), bias=False),
    "dilated": lambda: nn.Conv2d(4, 6, 3, dilation=2),
    "grouped": lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2),
    "depthwise": lambda: nn.Conv2d(4, 8, 3, groups=4),
    "same": lambda: nn.Conv2d(4, 6, (5, 3), padding="same"),
    "valid": lambda: nn.Conv2d(4, 6, 3, padding="valid"),
    "reflect": lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
    "same, circular": lambda: nn.Conv2d(4, 6, (4, 3), dilation=(1, 2), padding="same", padding_mode="circular"),
    "circular": lambda: nn.Conv2d(4, 6, 3, padding=(2, 1), padding_mode="circular"),
    "pointwise": lambda: nn.Conv2d(4, 6, 1),
}


class Net(nn.Module):
    """A layer under test behind a convolution that makes its inputs depend on each other."""

    def __init__(self, layer):
        super().__init__()
        self.stem, self.layer = nn.Conv2d(3, 4, 3, padding=1), layer
        self.head = nn.Linear(layer.out_channels, 5)

    def forward(self, x):
        return self.head(self.layer(F.relu(self.stem(x))).mean((2, 3)))


def made(name):
    torch.manual_seed(0)
    return Net(LAYERS[name]()).eval(), torch.randn(6, 3, 8, 8)


@pytest.mark.parametrize("name", LAYERS)
def test_the_statistics_are_those_of_the_layer_s_inputs(name):
    model, pictures = made(name)
    folded = fold(model)
    gram = rounding._grams(folded, {"layer.weight": folded.layer}, pictures)["layer.weight"]
    layer = model.layer
    rows = layer.weight.detach().reshape(layer.groups, layer.out_channels // layer.groups, -1).double()
    energy = torch.einsum("gok,gkl,gol->go", rows, gram, rows).reshape(-1)
    with torch.no_grad():
        x = F.relu(model.stem(pictures))
        bias = 0 if layer.bias is None else layer.bias[:, None, None]
        answers = (layer(x) - bias).double()
    torch.testing.assert_close(energy, answers.square().sum((0, 2, 3)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_the_layer_s_answers_stay_closer(name):
    model, pictures = made(name)
    weight, step = model.layer.weight.detach().clone(), 0.1
    rounder = Rounder(fold(model), pictures, ["layer.weight"])
    fitted = torch.from_numpy(rounder.integers("layer.weight", step).astype(np.float32)) * step

    def error(changed):
        with torch.no_grad():
            x = F.relu(model.stem(pictures))
            before = model.layer(x)
            model.layer.weight.copy_(changed)
            after = model.layer(x)
            model.layer.weight.copy_(weight)
        return float((after - before).square().mean())

    assert error(fitted) < 0.9 * error(torch.round(weight / step) * step)
    assert (fitted - weight).abs().max() < 5 * step


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize(
    ("kernel", "padding", "stride", "dilation", "groups"),
    [
        (3, 1, 1, 1, 1),
        ((3, 4), (1, 2), (2, 3), (2, 1), 2),
        (3, "same", 1, 1, 1),
        ((4, 2), "same", 1, (1, 3), 2),
        ((2, 5), "same", 1, (2, 1), 4),
        (3, "valid", (1, 2), 2, 2),
    ],
)
def test_patches_times_weight_are_the_convolution(mode, kernel, padding, stride, dilation, groups):
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 8, kernel, stride, padding, dilation, groups, bias=False, padding_mode=mode)
    x = torch.randn(3, 4, 9, 11)
    with torch.no_grad():
        wanted = layer(x)
        patches = rounding._patches(layer, x, 10_000)
        rows = patches @ layer.weight.reshape(groups, 8 // groups, -1).transpose(1, 2)  # [groups, places, rows]
    found = rows.reshape(groups, 3, *wanted.shape[2:], -1).permute(1, 0, 4, 2, 3).reshape(wanted.shape)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    count = patches.shape[1]
    assert torch.equal(rounding._patches(layer, x, count // 7), patches[:, :: count // (count // 7)])


class Padding(nn.Conv2d):
    """A convolution that pads in a way of its own, so that its inputs' patches are not those of its arguments."""

    def forward(self, x):
        return super().forward(F.pad(x, (1, 1, 1, 1)))


def test_layers_with_code_of_their_own_are_rounded_to_the_nearest():
    torch.manual_seed(0)
    model = Net(Padding(4, 6, 3)).eval()
    rounder = Rounder(fold(model), torch.randn(6, 3, 8, 8), ["layer.weight"])
    nearest = np.rint(model.layer.weight.detach().double().numpy() / 0.1)
    assert (rounder.integers("layer.weight", 0.1) == nearest).all()


def test_inputs_that_do_not_depend_on_each_other_give_the_nearest():
    weight = torch.randn(5, 7, dtype=torch.float64)
    order, factor = rounding._factor(torch.diag(torch.rand(7, dtype=torch.float64) + 1)[None])
    assert (rounding._round(weight[None] * 3, order, factor)[0] == torch.round(weight * 3)).all()


def test_blocks_change_nothing():
    torch.manual_seed(0)
    inputs, weight = torch.randn(60, 20, dtype=torch.float64).cumsum(1), torch.randn(1, 6, 20, dtype=torch.float64) * 9
    order, factor = rounding._factor((inputs.T @ inputs)[None])
    whole = rounding._round(weight, order, factor)
    assert (whole != weight.round()).any()
    for block in (1, 5, 19, 20):
        assert (rounding._round(weight, order, factor, block) == whole).all()


def test_more_pictures_than_fit_are_thinned():
    model, pictures = made("plain")
    folded = fold(model)
    whole, some = (
        rounding._grams(folded, {"layer.weight": folded.layer}, pictures, rows)["layer.weight"]
        for rows in (10_000, 100)
    )
    assert 0.1 < float(some.diagonal().sum() / whole.diagonal().sum()) < 0.5


def test_a_linear_layer_and_what_no_layer_owns():
    model, pictures = made("plain")
    folded = fold(model)
    rounder = Rounder(folded, pictures, ["head.weight", "layer.bias"])
    assert set(rounder._grams) == {"head.weight"}
    nearest = np.rint(model.layer.bias.detach().double().numpy() / 0.01)
    assert (rounder.integers("layer.bias", 0.01) == nearest).all()
    with pytest.raises(ValueError, match=r"`step` \(=1e-06\) is too fine: layer.bias reaches \d+ steps; at most 32767"):
        rounder.integers("layer.bias", 1e-6)


def test_dead_inputs_do_no_harm():
    model, pictures = made("plain")
    model.stem.weight.data.zero_()
    model.stem.bias.data.fill_(-1)
    integers = Rounder(fold(model), pictures, ["layer.weight"]).integers("layer.weight", 0.1)
    assert (integers == np.rint(model.layer.weight.detach().double().numpy() / 0.1)).all()


def test_steps_follow_the_fisher_information():
    model, pictures = made("plain")
    folded = fold(model)
    names = ["stem.weight", "layer.weight", "head.weight"]
    found = relative_steps(folded, pictures, names, seed=3)
    generator = torch.Generator().manual_seed(3)
    squares = dict.fromkeys(names, 0.0)
    for picture in pictures:
        logits = model(picture[None])
        label = torch.multinomial(logits.detach().softmax(1), 1, generator=generator)[:, 0]
        model.zero_grad()
        F.cross_entropy(logits, label).backward()
        for name in names:
            squares[name] += float(model.get_parameter(name).grad.square().mean())
    ratios = [found[name] * math.sqrt(squares[name]) for name in names]
    assert ratios == pytest.approx([ratios[0]] * 3)
    sizes = [model.get_parameter(name).numel() for name in names]
    logs = [math.log(found[name]) for name in names]
    assert sum(size * log for size, log in zip(sizes, logs, strict=True)) == pytest.approx(0, abs=1e-6)
    assert not any(parameter.requires_grad for parameter in folded.parameters())


def test_a_tensor_that_nothing_depends_on_has_a_step_all_the_same():
    model, pictures = made("plain")
    model.head.weight.data.zero_()
    found = relative_steps(fold(model), pictures, ["layer.weight", "head.weight"])
    assert math.isfinite(found["layer.weight"])
    assert found["layer.weight"] / found["head.weight"] == pytest.approx(1000)


@pytest.mark.parametrize("name", ["plain", "grouped", "depthwise", "strided"])
def test_few_changes_bring_the_answers_nearest(name):
    model, pictures = made(name)
    step, weight = 0.05, model.layer.weight.detach().clone()
    folded = fold(model)
    before = Rounder(folded, pictures, ["layer.weight"]).integers("layer.weight", step)
    torch.manual_seed(1)
    tuned = weight + torch.randn_like(weight) * 0.02
    folded.layer.weight.data.copy_(tuned)
    rounder = Rounder(folded, pictures, ["layer.weight"])
    gram = rounder._grams["layer.weight"]

    def error(integers):
        rows = (torch.from_numpy(integers.astype(np.float64)) * step - tuned).reshape(gram.shape[0], -1, gram.shape[2])
        return float(((rows @ gram) * rows).sum())

    changed, errors = [], []
    for price in (1e6, 2.0, 0.5, 0.0):
        integers = rounder.integers_near("layer.weight", step, before, price)
        changed.append(int((integers != before).sum()))
        errors.append(error(integers))
    assert changed[0] == 0
    assert errors[0] == error(before)
    assert changed == sorted(changed)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.7 * errors[0]
    # At a price of 0 no single step helps any more.
    best = torch.from_numpy(rounder.integers_near("layer.weight", step, before, 0.0).astype(np.float64))
    for index in range(0, best.numel(), 7):
        for move in (-1, 1):
            other = best.clone()
            other.view(-1)[index] += move
            assert error(other.numpy()) >= errors[-1] - 1e-9


def test_a_network_that_did_not_change_keeps_its_integers():
    model, pictures = made("plain")
    rounder = Rounder(fold(model), pictures, ["layer.weight", "layer.bias"])
    for name in ("layer.weight", "layer.bias"):
        before = rounder.integers(name, 0.02)
        assert (rounder.integers_near(name, 0.02, before, 0.5) == before).mean() > 0.99


def test_opening_a_tensor_has_a_price():
    model, pictures = made("plain")
    step, folded = 0.05, fold(model)
    names = ["layer.weight", "layer.bias"]
    before = {name: Rounder(folded, pictures, names).integers(name, step) for name in names}
    torch.manual_seed(1)
    for parameter in (folded.layer.weight, folded.layer.bias):
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    rounder = Rounder(folded, pictures, names)
    for name in names:
        free, dear = (rounder.integers_near(name, step, before[name], 0.5, opening) for opening in (0, 10**6))
        assert (free != before[name]).any()
        assert (dear == before[name]).all()
        # It is all changes or none, by what all of them bring.
        some = {(rounder.integers_near(name, step, before[name], 0.5, 2**n) != before[name]).sum() for n in range(20)}
        assert some == {0, (free != before[name]).sum()}
        assert (rounder.integers_near(name, step, before[name], 0.0, 10**6) != before[name]).any()
