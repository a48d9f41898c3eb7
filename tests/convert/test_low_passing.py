"""lowpass_: where filters go, that conversion and filters commute, and what is refused."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from seedcnn.convert import (
    DepthwiseSeparableConfig,
    GhostConfig,
    GroupNLConfig,
    LocalBinaryConfig,
    MonoConfig,
    PerturbativeConfig,
    ShiftConfig,
    SineFMConfig,
    convert_,
    lowpass_,
)
from seedcnn.errors import ConversionError
from seedcnn.evaluate import cost
from seedcnn.layers.low_pass import LowPassed, binomial
from seedcnn.models import create_model

STRIDED = ["stages.1.0.conv1", "stages.1.0.downsample.0", "stages.2.0.conv1", "stages.2.0.downsample.0"]
CONFIGS = [
    GroupNLConfig(normalize="batch"),
    GroupNLConfig.paper(),
    MonoConfig(),
    GhostConfig(),
    SineFMConfig(),
    DepthwiseSeparableConfig(scope="spatial"),
    LocalBinaryConfig(scope="stride1"),
    PerturbativeConfig(scope="stride1"),
    ShiftConfig(scope="stride1"),
]


def small(**options):
    torch.manual_seed(0)
    return create_model("resnet8_cifar", widths=(8, 16, 16), **options)


def images(count=2, size=32):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def filtered(model):
    return [name for name, module in model.named_modules() if isinstance(module, LowPassed)]


@pytest.mark.parametrize(
    ("where", "patch", "wanted"),
    [
        ("stem", 1, ["conv1"]),
        ("strides", 1, STRIDED),
        ("stem+strides", 1, ["conv1", *STRIDED]),
        ("strides", 2, ["conv1", *STRIDED]),
        ("stem+strides", 2, ["conv1", *STRIDED]),
    ],
)
def test_places(where, patch, wanted):
    model = small(patch=patch)
    assert lowpass_(model, where) == tuple(wanted)
    assert filtered(model) == wanted


def test_the_stem_sees_filtered_images():
    model, other = small().eval(), small().eval()
    lowpass_(model)
    assert torch.equal(model(images()), other(binomial(images())))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
@pytest.mark.parametrize("where", ["stem", "stem+strides"])
def test_conversion_may_come_before_or_after(config, where):
    first, second = small(), small()
    first_names = lowpass_(first, where)
    torch.manual_seed(2)
    convert_(first, config, seed=3)
    torch.manual_seed(2)
    report = convert_(second, config, seed=3)
    assert lowpass_(second, where) == first_names == tuple(filtered(first))
    assert "conv1" not in [item.name for item in report.replaced]
    left, right = first.state_dict(), second.state_dict()
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert torch.equal(first.eval()(images()), second.eval()(images()))


def test_a_replaced_stem_hands_its_filter_on():
    model, plain = small(), small()
    lowpass_(model)
    for each in (model, plain):
        torch.manual_seed(2)
        convert_(each, GroupNLConfig(normalize="batch"), filter_fn=lambda _, name: name == "conv1")
    assert filtered(model) == ["conv1"]
    assert torch.equal(model.eval()(images()), plain.eval()(binomial(images())))


def test_a_converted_stem_is_the_stem():
    model = small()
    convert_(model, GhostConfig(), filter_fn=lambda _, name: name == "conv1")
    assert lowpass_(model) == ("conv1",)


def test_seeds_from_trained_filters_pass_through():
    model = small()
    lowpass_(model, "stem+strides")
    model(images(8))
    before = filtered(model)
    report = convert_(model, GroupNLConfig(normalize="batch"), init="from_dense", images=images(8))
    assert report.from_dense is not None
    assert filtered(model) == before


def test_grouped_pointwise_replacements_keep_the_filter():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1, 2, bias=False), nn.BatchNorm2d(8))
    lowpass_(model, "strides")
    convert_(model, GroupNLConfig(scope="pointwise"))
    assert model[1].groups == 2
    assert filtered(model) == ["1"]


def test_weights_of_a_network_without_filters_load_and_none_is_added():
    model, plain = small(), small()
    lowpass_(model, "stem+strides")
    assert model.load_state_dict(plain.state_dict()) is not None
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in plain.parameters())
    assert not [name for name, _ in model.named_buffers() if name not in dict(plain.named_buffers())]


def test_macs_are_counted_in_the_layers_that_have_filters():
    model = small()
    before = cost(model)
    lowpass_(model, "stem+strides")
    after = cost(model)
    added = 9 * (3 * 32 * 32 + 2 * 8 * 32 * 32 + 2 * 16 * 16 * 16)
    assert after.macs - before.macs == added
    assert after.params == before.params
    assert after.fixed == before.fixed
    rows = {row.name: row.macs for row in after.layers}
    assert rows["conv1"] == 9 * 3 * 32 * 32 * (1 + 8)


def test_gradients_reach_all_weights_and_training_changes_them():
    model = small().to(memory_format=torch.channels_last)
    convert_(model, GroupNLConfig(normalize="batch"))
    lowpass_(model, "stem+strides")
    with torch.autocast("cpu", torch.bfloat16):
        model(images(4).to(memory_format=torch.channels_last)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_max_poolings_are_blurred_and_others_are_left():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(2), nn.AvgPool2d(2), nn.MaxPool2d(2, 1)
            )
            self.up = nn.ConvTranspose2d(4, 4, 2, 2)

        def forward(self, x):
            return F.max_pool2d(self.up(self.body(x)), 2).mean((2, 3))

    model = Net()
    shape = model(torch.randn(2, 1, 16, 16)).shape
    assert lowpass_(model, "strides") == ("body.1",)
    assert model(torch.randn(2, 1, 16, 16)).shape == shape


class Reading(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return F.conv2d(x, self.conv.weight).mean((2, 3))


def parametrized():
    model = small()
    parametrizations.weight_norm(model.conv1)
    return model


def own_forward():
    model = small()
    model.conv1.forward = lambda x: F.conv2d(x, model.conv1.weight)
    return model


def twice():
    model = small()
    lowpass_(model)
    return model


def lazy():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(nn.LazyConv2d(4, 3))


@pytest.mark.parametrize(
    ("make", "where", "words"),
    [
        (lambda: nn.Linear(3, 2), "stem", "Linear has no convolution, so there is no stem"),
        (lambda: nn.Conv2d(3, 2, 3), "strides", "Conv2d has no convolution and no max pooling that strides"),
        (lambda: nn.Sequential(nn.Conv1d(3, 2, 3)), "stem", "before 0: it is a Conv1d; only nn.Conv2d"),
        (lambda: nn.MaxPool2d(2, ceil_mode=True), "strides", "MaxPool2d: it is a max pooling with ceil_mode"),
        (lambda: nn.MaxPool2d(2, return_indices=True), "strides", "max pooling with return_indices"),
        (lazy, "stem", "before 0: it has no shape yet"),
        (parametrized, "stem", "before conv1: it is parametrized"),
        (own_forward, "stem+strides", "before conv1: it has a `forward` of its own"),
        (twice, "stem+strides", "before conv1: it has a low-pass filter already"),
        (Reading, "stem", "before conv: other code of the network reads its weight"),
    ],
)
def test_what_has_no_form_is_refused_and_nothing_changes(make, where, words):
    model = make()
    before = filtered(model)
    with pytest.raises(ConversionError, match=words):
        lowpass_(model, where)
    assert filtered(model) == before


def test_an_unknown_place_is_refused():
    with pytest.raises(ValueError, match=r"`where` \(='stems'\) is unknown; did you mean stem"):
        lowpass_(small(), "stems")


def test_a_single_convolution_can_have_a_filter():
    layer = nn.Conv2d(3, 2, 3)
    plain = copy.deepcopy(layer)
    assert lowpass_(layer) == ("",)
    assert torch.equal(layer(images()), plain(binomial(images())))
