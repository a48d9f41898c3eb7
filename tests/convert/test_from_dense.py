"""Initialisation from a trained dense network: what is kept exactly, how channels move, what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from seedcnn.convert import GroupNLConfig, MonoConfig, convert_
from seedcnn.convert._seed_choice import choose_order, cosines, responses
from seedcnn.convert.from_dense import reestimate_batchnorm_, seed_from_dense_
from seedcnn.errors import ConversionError
from seedcnn.layers import GroupNLConv2d
from seedcnn.models import create_model
from seedcnn.ops.group_nl import nlf_index


def trained(name="resnet8_cifar", **options):
    """A network whose weights and norms are all different, as after training."""
    torch.manual_seed(0)
    model = create_model(name, **options)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


def converted(dense, *, seed=1, **options):
    torch.manual_seed(seed)
    model = copy.deepcopy(dense)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    convert_(model, GroupNLConfig.paper(**options), seed=seed)
    return model.eval()


@pytest.mark.parametrize(("name", "size"), [("resnet8_cifar", 32), ("vgg11_cifar", 32), ("resnet101_cifar", 16)])
@pytest.mark.parametrize("normalize", ["none", "batch"])
def test_without_generated_channels_the_function_is_kept(name, size, normalize):
    """With r = 1 every filter is a seed, so that only the reordering of channels is left to go wrong."""
    widths = (8, 16, 24) if name == "resnet8_cifar" else ((16,) * 5 if "vgg" in name else (8, 8, 16, 16))
    dense = trained(name, widths=widths)
    filters = (lambda module, _: min(module.kernel_size) == 3) if name == "resnet101_cifar" else None
    model = copy.deepcopy(dense)
    convert_(model, GroupNLConfig.paper(reduction_ratio=1, normalize=normalize), filter_fn=filters)
    report = seed_from_dense_(model, dense)
    assert not report.in_order
    assert set(report.explained.values()) == {1.0}
    x = torch.randn(4, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), dense(x), rtol=1e-3, atol=1e-3)
    layer = dense.get_submodule(report.reordered[0])
    assert not torch.equal(model.get_submodule(report.reordered[0]).weight, layer.weight)


@pytest.mark.parametrize("options", [{}, {"normalize": "batch"}, {"reduction_ratio": 4}, {"nlf": "abs"}])
def test_seed_channels_of_a_layer_are_the_dense_ones(options):
    """Up to the order and the norm: the map after the norm is the dense map of the filter that was chosen."""
    dense = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1), nn.BatchNorm2d(8))
    norm = dense[1]
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.running_mean)
    model = copy.deepcopy(dense)
    convert_(model, GroupNLConfig.paper(**options), filter_fn=lambda _, name: name == "0")
    report = seed_from_dense_(model.eval(), dense.eval())
    assert report.reordered == ("0",)
    layer, x = model[0], torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        ours, theirs = model[1](layer(x))[:, : layer.seed_channels], dense[1](dense[0](x))
    nearest = (ours[:, :, None] - theirs[:, None]).abs().amax((0, 3, 4))  # [c_seed, c_out]
    assert nearest.min(1).values.max() < 1e-4
    assert len(set(nearest.argmin(1).tolist())) == layer.seed_channels
    order = nearest.argmin(1)
    # The reader follows: input channel p of the next convolution is the chosen filter's.
    torch.testing.assert_close(model[3].weight[:, : len(order)], dense[3].weight[:, order])


def test_seeds_are_chosen_for_the_filters_they_stand_for():
    """Eight filters and their negatives: one of each pair becomes a seed, the other its generated channel."""
    torch.manual_seed(0)
    half = torch.randn(8, 3, 3, 3)
    weight = torch.cat([half, -half])[torch.randperm(16)]
    layer = GroupNLConv2d(3, 16, 3, seed_channels=8)
    order = choose_order(layer, cosines([weight]), torch.ones(16, dtype=torch.float64))
    assert sorted(order.tolist()) == list(range(16))
    source, _ = nlf_index(8, 16, 4)
    for generated in range(8):
        torch.testing.assert_close(weight[order[8 + generated]], -weight[order[source[generated]]])


def test_filters_the_network_does_not_listen_to_are_given_up():
    torch.manual_seed(0)
    importance = torch.cat([torch.full((8,), 1e-3), torch.ones(8)]).double()
    layer = GroupNLConv2d(3, 16, 3, seed_channels=8)
    order = choose_order(layer, cosines([torch.randn(16, 3, 3, 3)]), importance)
    assert sorted(order[:8].tolist()) == list(range(8, 16))


@pytest.mark.parametrize(("c_out", "c_seed"), [(16, 4), (18, 8), (20, 8), (8, 8)])
def test_every_filter_has_one_place(c_out, c_seed):
    torch.manual_seed(0)
    layer = GroupNLConv2d(3, c_out, 3, seed_channels=c_seed)
    order = choose_order(layer, cosines([torch.randn(c_out, 3, 3, 3)]), torch.ones(c_out, dtype=torch.float64))
    assert sorted(order.tolist()) == list(range(c_out))


def test_responses_are_what_gaussian_maps_give():
    layer = GroupNLConv2d(1, 8, 1, seed_channels=4, nlf_groups=2)
    mean, variance, correlation = responses(layer, torch.full((4,), 0.3))
    torch.manual_seed(0)
    seeds = torch.randn(400_000) + 0.3
    _, which = nlf_index(4, 8, 2)
    for channel in range(4):
        maps = torch.sin(layer.omega[which[channel]] * (seeds + layer.phi[which[channel]]))
        assert abs(float(mean[4 + channel] - maps.mean())) < 0.01
        assert abs(float(variance[4 + channel] - maps.var())) < 0.01
        found = torch.corrcoef(torch.stack([maps, seeds]))[0, 1]
        assert abs(float(correlation[4 + channel] - found)) < 0.01
    torch.testing.assert_close(correlation[:4], torch.ones(4).double())


def test_statistics_are_those_of_the_pictures():
    dense = trained()
    model = converted(dense, normalize="batch")
    seed_from_dense_(model, dense, images=torch.randn(500, 3, 32, 32))
    x = torch.randn(200, 3, 32, 32)
    with torch.no_grad():
        model.eval()
        maps = model.conv1(x)
        mean, variance = maps.mean((0, 2, 3)), maps.var((0, 2, 3))
    torch.testing.assert_close(model.bn1.running_mean, mean, atol=0.03, rtol=0.1)
    torch.testing.assert_close(model.bn1.running_var, variance, atol=0.03, rtol=0.1)
    assert model.bn1.momentum == 0.1
    assert not any(module.training for module in model.modules())
    with pytest.raises(ValueError, match="is empty"):
        reestimate_batchnorm_(model, [])


def test_grouped_seeds_keep_the_order_and_say_so():
    dense = trained(widths=(8, 16, 24))
    model = converted(dense, sparse=True)
    report = seed_from_dense_(model, dense)
    assert "stages.0.0.conv1" in report.in_order
    assert "grouped seed convolution" in report.in_order["stages.0.0.conv1"]
    layer, conv = model.stages[0][0].conv1, dense.stages[0][0].conv1
    assert (layer.conv_groups, layer.weight.shape[1]) == (4, 2)
    scale = (dense.stages[0][0].bn1.running_var + 1e-5).rsqrt()
    torch.testing.assert_close(layer.weight[3], conv.weight[3, 6:8] * scale[3])


def test_a_network_that_cannot_be_traced_keeps_the_order():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.conv, self.norm = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)

        def forward(self, x):
            x = self.stem(x)
            return self.norm(self.conv(x)) if x.sum() > 0 else x

    dense = Branching()
    model = copy.deepcopy(dense)
    convert_(model, GroupNLConfig.paper())
    report = seed_from_dense_(model, dense)
    assert report.in_order == {"conv": "the network cannot be traced"}
    torch.testing.assert_close(model.conv.weight, dense.conv.weight[:4])
    torch.testing.assert_close(model.stem.weight, dense.stem.weight)


def test_one_layer_by_itself():
    conv = nn.Conv2d(6, 8, 3, bias=True)
    layer = GroupNLConv2d(6, 8, 3, bias=True, seed_channels=4)
    layer.start_from(conv)
    assert torch.equal(layer.weight, conv.weight[:4])
    assert torch.equal(layer.bias, conv.bias[:4])
    grouped = GroupNLConv2d(6, 8, 3, seed_channels=4, groups=2)
    grouped.start_from(conv)
    assert torch.equal(grouped.weight[0], conv.weight[0, :3])
    assert torch.equal(grouped.weight[3], conv.weight[3, 3:])
    with pytest.raises(ValueError, match=r"has weight \(8, 6, 1, 1\); the layer needs \(8, 6, 3, 3\)"):
        layer.start_from(nn.Conv2d(6, 8, 1))


def test_the_dense_network_is_left_alone():
    dense = trained()
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    seed_from_dense_(converted(dense), dense, images=torch.randn(8, 3, 32, 32))
    assert all(torch.equal(before[name], value) for name, value in dense.state_dict().items())


def test_misfits_are_named():
    dense = trained()
    with pytest.raises(ConversionError, match="has no GroupNLConv2d; convert it first"):
        seed_from_dense_(copy.deepcopy(dense), dense)
    with pytest.raises(ConversionError, match=r"stages.0.0.conv1: `conv` .* has weight"):
        seed_from_dense_(converted(trained(widths=(8, 16, 24))), dense)
    mono = copy.deepcopy(dense)
    convert_(mono, MonoConfig())
    with pytest.raises(ConversionError, match=r"MonoConv2d .*only GroupNLConv2d"):
        seed_from_dense_(mono, dense)
    other = converted(dense)
    other.extra = nn.Linear(2, 2)
    with pytest.raises(ConversionError, match="no extra module"):
        seed_from_dense_(other, dense)


def test_convert_takes_the_weights_itself():
    dense = trained()
    images = torch.randn(32, 3, 32, 32)
    one, two = copy.deepcopy(dense), copy.deepcopy(dense)
    convert_(one, GroupNLConfig.paper(normalize="batch"), seed=3, init="from_dense", images=images)
    convert_(two, GroupNLConfig.paper(normalize="batch"), seed=3)
    seed_from_dense_(two, dense, images=images)
    assert all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())
    fresh = copy.deepcopy(dense)
    convert_(fresh, GroupNLConfig.paper(normalize="batch"), seed=3)
    assert not torch.equal(fresh.stages[0][0].conv1.weight, one.stages[0][0].conv1.weight)


def test_convert_refuses_what_has_no_effect():
    with pytest.raises(ValueError, match=r"init.*'dense'.*from_dense"):
        convert_(trained(), GroupNLConfig.paper(), init="dense")
    with pytest.raises(ValueError, match=r"images.*from_dense"):
        convert_(trained(), GroupNLConfig.paper(), images=torch.zeros(1, 3, 32, 32))
    with pytest.raises(ConversionError, match=r"is for GroupNL; stages\.0\.0\.conv1 becomes a MonoConv2d"):
        convert_(trained(), MonoConfig(scope="stride1"), init="from_dense")


class AddsOneChannel(nn.Module):
    """A map of one channel is added to all, as spatial attention does."""

    def __init__(self):
        super().__init__()
        self.stem, self.c1, self.bn1 = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)
        self.a, self.c2, self.fc = nn.Conv2d(8, 1, 1), nn.Conv2d(8, 8, 3), nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.bn1(self.c1(self.stem(x))))
        x = x + self.a(x)
        return self.fc(torch.relu(self.c2(x)).mean((2, 3)))


class LinearAlongTheWidth(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.c1 = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.mix, self.c2 = nn.Linear(8, 8), nn.Conv2d(8, 8, 3)

    def forward(self, x):
        return self.c2(self.mix(self.c1(self.stem(x)))).mean((2, 3))


class NormCalledTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.c1, self.c2 = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)
        self.bn = nn.BatchNorm2d(8)

    def forward(self, x):
        return self.bn(self.c2(self.bn(self.c1(self.stem(x))))).mean((2, 3))


@pytest.mark.parametrize("network", [AddsOneChannel, LinearAlongTheWidth, NormCalledTwice])
def test_what_is_no_channel_space_keeps_its_order(network):
    model = network().eval()
    report = convert_(model, GroupNLConfig(), init="from_dense")
    assert set(report.from_dense.in_order) | set(report.from_dense.reordered) == {"c1", "c2"}
    assert "c1" in report.from_dense.in_order
    assert "of the replaced filters explained; its first filters stay" in str(report)
    assert torch.isfinite(model(torch.randn(2, 3, 12, 12))).all()


def test_a_second_call_on_other_layers_keeps_the_first():
    torch.manual_seed(0)
    model = create_model("resnet8_cifar", widths=(8, 8, 16), patch=4).eval()
    convert_(model, GroupNLConfig(), init="from_dense", filter_fn=lambda _, name: name.startswith("stages.0"))
    first = {name: value.clone() for name, value in model.stages[0].state_dict().items()}
    report = convert_(model, GroupNLConfig(), init="from_dense", filter_fn=lambda _, name: name.startswith("stages.2"))
    assert {item.name for item in report.replaced} == set(report.from_dense.explained)
    assert all(name.startswith("stages.2") for name in report.from_dense.explained)
    for name, value in model.stages[0].state_dict().items():
        assert value.shape == first[name].shape
        if "conv" in name and name.endswith("weight"):
            torch.testing.assert_close(value.flatten().sort()[0], first[name].flatten().sort()[0])


def test_a_model_without_numbers_is_refused():
    with torch.device("meta"):
        model = create_model("resnet8_cifar")
    with pytest.raises(ConversionError, match="needs trained filters, and this model is on the meta device"):
        convert_(model, GroupNLConfig(), init="from_dense")
    assert isinstance(model.stages[0][0].conv1, nn.Conv2d)
