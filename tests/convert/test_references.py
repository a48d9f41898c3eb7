"""What is replaced is what answers: second references, ties, additions, frozen convolutions."""

from __future__ import annotations

import copy
import functools
from collections import deque, namedtuple

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seedcnn.convert import GhostConfig, GroupNLConfig, MonoConfig, convert_
from seedcnn.convert.references import tied_parameters, uncalled
from seedcnn.errors import ConversionError
from seedcnn.layers import ConvLayer, GroupNLConv2d


def conv():
    return nn.Conv2d(8, 8, 3, padding=1)


class Holder:
    """An object of the user's own."""

    def __init__(self, module):
        self.module = module


Pair = namedtuple("Pair", "first second")
HELD = {
    "list": (lambda a, b: [a, b], lambda held: list(held)),
    "nested list": (lambda a, b: [[a], [b]], lambda held: [each[0] for each in held]),
    "tuple": (lambda a, b: (a, b), lambda held: list(held)),
    "named tuple": (Pair, lambda held: [held.first, held.second]),
    "dict": (lambda a, b: {"a": a, "b": b}, lambda held: [held["a"], held["b"]]),
    "deque": (lambda a, b: deque([a, b]), lambda held: list(held)),
    "partial": (
        lambda a, b: (functools.partial(a.__call__), functools.partial(lambda layer, x: layer(x), b)),
        lambda held: list(held),
    ),
    "closure": (lambda a, b: [lambda x: a(x), lambda x: b(x)], lambda held: list(held)),
    "default": (lambda a, b: [lambda x, layer=a: layer(x), lambda x, layer=b: layer(x)], lambda held: list(held)),
    "method": (lambda a, b: [a.forward, b.forward], lambda held: list(held)),
    "object": (lambda a, b: [Holder(a), Holder(b)], lambda held: [each.module for each in held]),
}


class Held(nn.Module):
    """Registers two convolutions, and calls them on another way."""

    def __init__(self, how):
        super().__init__()
        make, self.calls = HELD[how]
        self.stem, self.a, self.b, self.fc = nn.Conv2d(3, 8, 3), conv(), conv(), nn.Linear(8, 4)
        self.held = make(self.a, self.b)

    def forward(self, x):
        x = self.stem(x)
        for call in self.calls(self.held):
            x = F.relu(call(x))
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("how", HELD)
def test_a_second_reference_follows(how):
    model = Held(how)
    x = torch.randn(2, 3, 12, 12)
    before = model(x)
    report = convert_(model, GroupNLConfig())
    assert [item.name for item in report.replaced] == ["a", "b"]
    after = model(x)
    assert not torch.equal(before, after)
    after.sum().backward()
    assert model.a.weight.grad is not None
    assert model.b.weight.grad is not None
    assert not any(type(module) is nn.Conv2d and module is not model.stem for module in model.modules())


EVERYWHERE = []


class Global(nn.Module):
    """Calls its convolution through a global list, which nothing in the model leads to."""

    def __init__(self):
        super().__init__()
        self.stem, self.hidden, self.plain = nn.Conv2d(3, 8, 3), conv(), conv()
        EVERYWHERE[:] = [self.hidden]

    def __deepcopy__(self, memo):
        copied = Global.__new__(Global)
        memo[id(self)] = copied
        for key, value in vars(self).items():
            setattr(copied, key, copy.deepcopy(value, memo)) if key[0] != "_" else copied.__dict__.update(
                {key: copy.deepcopy(value, memo)}
            )
        EVERYWHERE[:] = [copied.hidden]
        return copied

    def forward(self, x):
        return self.plain(EVERYWHERE[0](self.stem(x)))


def test_a_reference_from_outside_leaves_the_layer():
    model = Global()
    assert uncalled(model, ["hidden", "plain"]) == {"hidden"}
    EVERYWHERE[:] = [model.hidden]
    report = convert_(model, GroupNLConfig())
    assert [item.name for item in report.replaced] == ["plain"]
    reasons = {item.name: item.reason for item in report.skipped}
    assert reasons["hidden"].startswith("called on another way than through its place in the model")


def tied(kind):
    a, spare = conv(), conv()
    twin = {
        "conv": lambda: nn.Conv2d(8, 8, 3, padding=2, dilation=2),
        "transposed": lambda: nn.ConvTranspose2d(8, 8, 3, padding=1),
        "bias": conv,
        "data": conv,
        "view": conv,
        "linear": lambda: nn.Linear(8, 8),
    }[kind]()
    if kind == "bias":
        twin.bias = a.bias
    elif kind == "data":
        twin.weight = nn.Parameter(a.weight.data)
    elif kind == "view":
        whole = torch.randn(2, 8, 8, 3, 3)
        a.weight, twin.weight = nn.Parameter(whole[0]), nn.Parameter(whole.flatten()[288:864].view(8, 8, 3, 3))
    elif kind == "linear":
        a.bias = twin.bias
    else:
        twin.weight = a.weight
    middle = [nn.Flatten(), nn.Unflatten(1, (8, 1, 1))] if kind == "linear" else []
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), twin, nn.Unflatten(1, (8, 1, 1))] if kind == "linear" else [twin]
    return nn.Sequential(nn.Conv2d(3, 8, 3), a, spare, *pool, *middle)


@pytest.mark.parametrize("kind", ["conv", "transposed", "bias", "data", "view", "linear"])
def test_a_tied_convolution_is_left_with_its_twin(kind):
    model = tied(kind)
    report = convert_(model, GroupNLConfig())
    assert [item.name for item in report.replaced] == ["2"]
    reason = next(item.reason for item in report.skipped if item.name == "1")
    assert "is shared with" in reason


def test_a_parameter_of_the_parent_is_a_tie():
    class Parent(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.a, self.b = nn.Conv2d(3, 8, 3), conv(), conv()
            self.scale = self.a.weight

        def forward(self, x):
            return self.b(self.a(self.stem(x))) * self.scale.mean()

    model = Parent()
    report = convert_(model, GroupNLConfig())
    assert {item.name: item.reason for item in report.skipped}["a"] == "its weight is shared with scale"
    assert [item.name for item in report.replaced] == ["b"]


def test_neighbours_in_one_storage_are_no_tie():
    model = nn.Sequential(conv(), conv())
    flat = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    start = 0
    for parameter in model.parameters():
        parameter.data = flat[start : start + parameter.numel()].view(parameter.shape)
        start += parameter.numel()
    assert tied_parameters(model) == {}


def touched(change):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), conv(), conv())
    change(model[1])
    return model


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.register_forward_hook(lambda *_: None), "has hooks (forward hooks)"),
        (lambda c: c.register_forward_pre_hook(lambda *_: None), "has hooks (forward pre-hooks)"),
        (lambda c: c.register_full_backward_hook(lambda *_: None), "has hooks (backward hooks)"),
        (lambda c: c.register_full_backward_pre_hook(lambda *_: None), "has hooks (backward pre-hooks)"),
        (lambda c: c.register_state_dict_pre_hook(lambda *_: None), "has hooks (state_dict pre-hooks)"),
        (lambda c: c.register_load_state_dict_post_hook(lambda *_: None), "has hooks (load_state_dict post-hooks)"),
        (lambda c: c.weight.register_hook(lambda grad: grad), "has hooks on its weight"),
        (lambda c: c.weight.register_post_accumulate_grad_hook(lambda p: None), "has hooks on its weight"),
        (lambda c: setattr(c, "forward", lambda x: x), "has a forward of its own"),
        (lambda c: c.register_parameter("gain", nn.Parameter(torch.ones(1))), "has the parameter 'gain' added"),
        (lambda c: c.register_buffer("mask", torch.ones(1)), "has the buffer 'mask' added"),
        (lambda c: c.add_module("inner", nn.ReLU()), "has the module 'inner' added"),
        (lambda c: setattr(c, "rank", 3), "has the attribute 'rank' added"),
    ],
)
def test_what_somebody_added_is_a_reason_to_leave(change, words):
    report = convert_(touched(change), GroupNLConfig())
    assert words in {item.name: item.reason for item in report.skipped}["1"]
    assert [item.name for item in report.replaced] == ["2"]


@pytest.mark.parametrize("config", [GroupNLConfig(), MonoConfig(), GhostConfig()], ids=lambda c: type(c).__name__)
def test_a_frozen_convolution_stays_frozen(config):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), conv(), conv())
    model[1].requires_grad_(False)
    report = convert_(model, config)
    assert not any(parameter.requires_grad for parameter in model[1].parameters())
    assert all(parameter.requires_grad for parameter in model[2].parameters())
    frozen, free = report.replaced
    assert (frozen.frozen, frozen.params_after, free.frozen) == (True, 0, False)
    assert "(frozen, as before)" in str(report)


def test_a_learnable_bias_of_a_frozen_weight_stays_learnable():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), conv())
    model[1].weight.requires_grad_(False)
    convert_(model, GroupNLConfig())
    assert model[1].bias.requires_grad
    assert not model[1].weight.requires_grad


def test_the_report_names_the_methods_of_overrides():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), conv(), conv())
    assert convert_(copy.deepcopy(model), GroupNLConfig(), overrides={"2": GhostConfig()}).method == "GroupNL, Ghost"
    assert convert_(copy.deepcopy(model), GroupNLConfig(), overrides={"*": GhostConfig()}).method == "Ghost"
    assert convert_(model, GroupNLConfig()).method == "GroupNL"


@pytest.mark.parametrize("place", ["first", "last", "images", "keyboard"])
def test_a_conversion_that_fails_changes_nothing(place):
    """The parent refuses one of the new layers, the images do not fit, somebody presses Ctrl-C."""

    class Picky(nn.Sequential):
        def __setattr__(self, name, value):
            if isinstance(value, ConvLayer) and name == {"first": "1", "last": "3", "keyboard": "3"}.get(place):
                raise KeyboardInterrupt if place == "keyboard" else RuntimeError("no")
            super().__setattr__(name, value)

    model = Picky(nn.Conv2d(3, 8, 3), conv(), nn.BatchNorm2d(8), conv())
    model.held = [model[1], model[3]]
    modules, state = list(model.modules()), {k: v.clone() for k, v in model.state_dict().items()}
    options = {"init": "from_dense", "images": torch.randn(2, 1, 12, 12)} if place == "images" else {}
    with pytest.raises((RuntimeError, KeyboardInterrupt, ConversionError)):
        convert_(model, GroupNLConfig(), **options)
    assert [id(module) for module in model.modules()] == [id(module) for module in modules]
    assert model.held == [model[1], model[3]]
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_the_model_s_random_state_and_modes_are_left():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), conv(), nn.Dropout(), conv().eval())
    convert_(model, GroupNLConfig())
    assert [module.training for module in model] == [True, True, True, False]
    assert isinstance(model[1], GroupNLConv2d)


class Functional(nn.Module):
    """Uses a convolution's weight in a function."""

    def __init__(self):
        super().__init__()
        self.stem, self.used, self.called = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)

    def forward(self, x):
        return self.called(nn.functional.conv2d(self.stem(x), self.used.weight, self.used.bias))


def test_a_weight_that_other_code_reads_stays():
    model = Functional()
    report = convert_(model, GroupNLConfig())
    assert [item.name for item in report.replaced] == ["called"]
    assert {item.name: item.reason for item in report.skipped}["used"].endswith("its weight is read by other code")
    assert model(torch.randn(1, 3, 9, 9)).shape == (1, 8, 3, 3)
