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
from seedcnn.pack import rounding, statistics
from seedcnn.pack.memory import Memory
from seedcnn.pack.rounding import Rounder, integers_near
from seedcnn.pack.statistics import fisher_information, input_grams

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


class Floats:
    """Inputs that need no rule."""

    def __init__(self, pictures):
        self.pictures = pictures

    def __len__(self):
        return len(self.pictures)

    def batches(self, at_once):
        return iter(self.pictures.split(at_once))


def grams_of(folded, pictures, names=("layer.weight",), memory=10**9, at_once=64):
    return dict(input_grams(folded, names, Floats(pictures), Memory(memory), at_once))


def rounder_of(folded, pictures, names=("layer.weight",)):
    weights = {name: folded.get_parameter(name).detach() for name in names}
    return Rounder(weights, input_grams(folded, names, Floats(pictures), Memory(10**9)))


def made(name):
    torch.manual_seed(0)
    return Net(LAYERS[name]()).eval(), torch.randn(6, 3, 8, 8)


@pytest.mark.parametrize("name", LAYERS)
def test_the_statistics_are_those_of_the_layer_s_inputs(name):
    model, pictures = made(name)
    folded = fold(model)
    gram = grams_of(folded, pictures)["layer.weight"].double()
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
    rounder = rounder_of(fold(model), pictures)
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
        patches = statistics._patches(layer, x, 10_000)
        rows = patches @ layer.weight.reshape(groups, 8 // groups, -1).transpose(1, 2)  # [groups, places, rows]
    found = rows.reshape(groups, 3, *wanted.shape[2:], -1).permute(1, 0, 4, 2, 3).reshape(wanted.shape)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    count = patches.shape[1]
    assert torch.equal(statistics._patches(layer, x, count // 7), patches[:, :: count // (count // 7)])


class Padding(nn.Conv2d):
    """A convolution that pads in a way of its own, so that its inputs' patches are not those of its arguments."""

    def forward(self, x):
        return super().forward(F.pad(x, (1, 1, 1, 1)))


def test_layers_with_code_of_their_own_are_rounded_to_the_nearest():
    torch.manual_seed(0)
    model = Net(Padding(4, 6, 3)).eval()
    rounder = rounder_of(fold(model), torch.randn(6, 3, 8, 8))
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


def test_more_patches_than_needed_are_thinned():
    """Of 25,600 patches about 4,096 are taken, evenly."""
    model, _ = made("plain")
    torch.manual_seed(0)
    pictures = torch.randn(400, 3, 8, 8)
    with torch.no_grad():
        whole = F.unfold(F.relu(model.stem(pictures)), 3, padding=1).square().sum()
    some = grams_of(fold(model), pictures)["layer.weight"].diagonal(dim1=1, dim2=2).sum()
    assert float(some / whole) == pytest.approx(4096 / 25_600, rel=0.4)  # edges have fewer inputs


@pytest.mark.parametrize("size", [5, 1030])
def test_a_gram_matrix_in_blocks_is_the_product(size):
    torch.manual_seed(0)
    patches = torch.randn(2, 7, size)
    gram = torch.ones(2, size, size)
    statistics._add_gram(gram, patches)
    torch.testing.assert_close(gram, 1 + patches.transpose(1, 2) @ patches)


def test_pieces_of_the_images_give_the_same_statistics():
    model, pictures = made("plain")
    folded = fold(model)
    whole, pieces = (grams_of(folded, pictures, at_once=n)["layer.weight"] for n in (64, 2))
    torch.testing.assert_close(pieces, whole)


def test_layers_that_do_not_fit_together_come_one_after_another():
    model, pictures = made("grouped")
    folded, names = fold(model), ("stem.weight", "layer.weight", "head.weight")
    whole = grams_of(folded, pictures, names)
    forward = []
    folded.stem.register_forward_hook(lambda *_: forward.append(1))
    some = grams_of(folded, pictures, names, memory=3 * 4 * 27 * 27)
    assert len(forward) == 2  # the stem's matrix alone, then the other two
    assert list(some) == list(names)
    for name in names:
        torch.testing.assert_close(some[name], whole[name])


@pytest.mark.parametrize("name", ["plain", "grouped", "depthwise"])
def test_a_layer_that_does_not_fit_is_cut_into_pieces_of_its_inputs(name):
    model, pictures = made(name)
    folded = fold(model)
    layer = model.layer
    groups, width = layer.groups, layer.weight[0].numel()
    whole = grams_of(folded, pictures)["layer.weight"]
    cut = grams_of(folded, pictures, memory=3 * 4 * groups * 3 * (width // 3) ** 2)["layer.weight"]
    assert cut.shape == (groups * 3, width // 3, width // 3)
    inner = whole.reshape(groups, 3, width // 3, 3, width // 3).diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)
    torch.testing.assert_close(cut, inner.reshape(cut.shape))
    rows = rounding._rows(layer.weight.detach(), cut.shape)
    assert torch.equal(rounding._as_before(rows, layer.weight), layer.weight)
    flat = layer.weight.detach().reshape(groups, -1, 3, width // 3)
    for group in range(groups):
        for piece in range(3):
            assert torch.equal(rows[group * 3 + piece], flat[group, :, piece])
    rounded = Rounder({"layer.weight": layer.weight.detach()}, [("layer.weight", cut)]).integers("layer.weight", 0.1)
    assert np.abs(rounded - layer.weight.detach().numpy() / 0.1).max() < 5


def test_a_linear_layer_and_what_no_layer_owns():
    model, pictures = made("plain")
    folded = fold(model)
    names = ("head.weight", "layer.bias")
    assert set(grams_of(folded, pictures, names)) == {"head.weight"}
    rounder = rounder_of(folded, pictures, names)
    nearest = np.rint(model.layer.bias.detach().double().numpy() / 0.01)
    assert (rounder.integers("layer.bias", 0.01) == nearest).all()
    with pytest.raises(ValueError, match=r"`step` \(=1e-06\) is too fine: layer.bias reaches \d+ steps; at most 32767"):
        rounder.integers("layer.bias", 1e-6)


def test_dead_inputs_do_no_harm():
    model, pictures = made("plain")
    model.stem.weight.data.zero_()
    model.stem.bias.data.fill_(-1)
    integers = rounder_of(fold(model), pictures).integers("layer.weight", 0.1)
    assert (integers == np.rint(model.layer.weight.detach().double().numpy() / 0.1)).all()


def test_steps_follow_the_fisher_information():
    model, pictures = made("plain")
    folded = fold(model)
    names = ["stem.weight", "layer.weight"]
    found = fisher_information(folded, Floats(pictures), names, other=["head.weight"], seed=3, at_once=1)
    generator = torch.Generator().manual_seed(3)
    squares = dict.fromkeys([*names, "head.weight"], 0.0)
    for picture in pictures:
        logits = model(picture[None])
        label = torch.multinomial(logits.detach().softmax(1), 1, generator=generator)[:, 0]
        model.zero_grad()
        F.cross_entropy(logits, label).backward()
        for name in squares:
            squares[name] += float(model.get_parameter(name).grad.square().mean()) / len(pictures)
    for name, square in squares.items():
        assert found.shares[name] * math.sqrt(square) == pytest.approx(math.sqrt(found.typical))
    sizes = [model.get_parameter(name).numel() for name in names]
    logs = [math.log(found.shares[name]) for name in names]
    assert sum(size * log for size, log in zip(sizes, logs, strict=True)) == pytest.approx(0, abs=1e-6)
    assert found.count == sum(sizes)
    assert not any(parameter.requires_grad for parameter in folded.parameters())


def test_one_backward_pass_of_several_images_estimates_the_same():
    model, _ = made("plain")
    folded = fold(model)
    pictures = torch.randn(2000, 3, 8, 8)
    alone, together = (
        fisher_information(folded, Floats(pictures), ["stem.weight", "layer.weight"], other=["head.weight"], at_once=n)
        for n in (1, 16)
    )
    assert together.typical == pytest.approx(alone.typical, rel=0.25)
    for name, share in alone.shares.items():
        assert together.shares[name] == pytest.approx(share, rel=0.15)


def test_a_step_for_a_loss_raises_the_loss_by_so_much():
    """Rounding to the nearest, on average over the network's own answers."""
    torch.manual_seed(0)
    model, pictures = nn.Sequential(nn.Flatten(), nn.Linear(48, 5)).eval(), torch.randn(4000, 3, 4, 4)
    folded = fold(model)
    found = fisher_information(folded, Floats(pictures), ["1.weight"], at_once=16)
    step = found.step_for(0.01)
    with torch.no_grad():
        before = model(pictures).log_softmax(1)
        model[1].weight.copy_(torch.round(model[1].weight / step) * step)
        raised = (before.exp() * (before - model(pictures).log_softmax(1))).sum(1).mean()
    assert float(raised) == pytest.approx(0.01, rel=0.3)


def test_a_tensor_that_nothing_depends_on_has_a_step_all_the_same():
    model, pictures = made("plain")
    model.head.weight.data.zero_()
    found = fisher_information(fold(model), Floats(pictures), ["layer.weight", "head.weight"]).shares
    assert math.isfinite(found["layer.weight"])
    assert found["layer.weight"] / found["head.weight"] == pytest.approx(1000)


@pytest.mark.parametrize("name", ["plain", "grouped", "depthwise", "strided"])
def test_few_changes_bring_the_answers_nearest(name):
    model, pictures = made(name)
    step, weight = 0.05, model.layer.weight.detach().clone()
    folded = fold(model)
    before = rounder_of(folded, pictures).integers("layer.weight", step)
    torch.manual_seed(1)
    tuned = weight + torch.randn_like(weight) * 0.02
    gram = grams_of(folded, pictures)["layer.weight"].double()

    def near(price):
        return integers_near("layer.weight", tuned, gram, step, before, price)

    def error(integers):
        rows = (torch.from_numpy(integers.astype(np.float64)) * step - tuned).reshape(gram.shape[0], -1, gram.shape[2])
        return float(((rows @ gram) * rows).sum())

    changed, errors = [], []
    for price in (1e6, 2.0, 0.5, 0.0):
        integers = near(price)
        changed.append(int((integers != before).sum()))
        errors.append(error(integers))
    assert changed[0] == 0
    assert errors[0] == error(before)
    assert changed == sorted(changed)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.7 * errors[0]
    # At a price of 0 no single step helps any more.
    best = torch.from_numpy(near(0.0).astype(np.float64))
    for index in range(0, best.numel(), 7):
        for move in (-1, 1):
            other = best.clone()
            other.view(-1)[index] += move
            assert error(other.numpy()) >= errors[-1] - 1e-9


def test_a_network_that_did_not_change_keeps_its_integers():
    model, pictures = made("plain")
    folded, names = fold(model), ("layer.weight", "layer.bias")
    rounder, grams = rounder_of(folded, pictures, names), grams_of(folded, pictures, names)
    for name in names:
        before = rounder.integers(name, 0.02)
        again = integers_near(name, folded.get_parameter(name).detach(), grams.get(name), 0.02, before, 0.5)
        assert (again == before).mean() > 0.99


def test_opening_a_tensor_has_a_price():
    model, pictures = made("plain")
    step, folded = 0.05, fold(model)
    names = ("layer.weight", "layer.bias")
    rounder, grams = rounder_of(folded, pictures, names), grams_of(folded, pictures, names)
    torch.manual_seed(1)
    for name in names:
        before = rounder.integers(name, step)
        weight = folded.get_parameter(name).detach()
        tuned = weight + torch.randn_like(weight) * 0.1

        def near(price, opening, name=name, tuned=tuned, before=before):
            return integers_near(name, tuned, grams.get(name), step, before, price, opening)

        free, dear = (near(0.5, opening) for opening in (0, 10**6))
        assert (free != before).any()
        assert (dear == before).all()
        # It is all changes or none, by what all of them bring.
        some = {(near(0.5, 2**n) != before).sum() for n in range(20)}
        assert some == {0, (free != before).sum()}
        assert (near(0.0, 10**6) != before).any()
