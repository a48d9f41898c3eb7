"""SineFMConv2d: the function written out, what every argument does, what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seedcnn.layers import SineFMConv2d
from tests.layers.families import settle


def layer(**kwargs):
    options = {"in_channels": 4, "out_channels": 14, "kernel_size": 3, "padding": 1} | kwargs
    torch.manual_seed(0)
    return SineFMConv2d(**options)


def test_equations_7_to_9_written_out_channel_by_channel():
    module = settle(layer(seed_channels=5, t=3)).double()
    x = torch.randn(2, 4, 6, 7, dtype=torch.float64)
    s = F.conv2d(x, module.weight, padding=1)
    omega, phi = module.omega.tolist(), module.phi.tolist()
    views = [norm(torch.sin(omega[i] * (s + phi[i]))) for i, norm in enumerate(module.norms)]
    generated = []
    for seed in range(5):
        for copy in range(2):  # ceil(14 / 5) - 1 generated channels of each seed
            weight = module.align.weight[2 * seed + copy].flatten()
            assert len(weight) == 3
            generated.append(sum(weight[i] * views[i][:, seed] for i in range(3)))
    torch.testing.assert_close(module(x), torch.cat([s, torch.stack(generated, 1)], 1)[:, :14])


def test_parameters_are_those_of_equation_15():
    module = SineFMConv2d(16, 32, 3)
    assert sum(p.numel() for p in module.parameters()) == 16 * 16 * 9 + 5 * 16 + 2 * 5 * 16
    assert len(list(module.parameters())) == 2 + 2 * 5


def test_norms_learn_statistics_of_their_own():
    module = layer(t=2)
    module(torch.randn(4, 4, 6, 6))
    first, second = (norm.running_mean for norm in module.norms)
    assert not torch.allclose(first, second)


def test_no_generated_channels_is_a_plain_convolution():
    module = layer(reduction_ratio=1)
    x = torch.randn(1, 4, 5, 5)
    torch.testing.assert_close(module(x), F.conv2d(x, module.weight, padding=1))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in module.modules())


@pytest.mark.parametrize(
    "option",
    [
        {"reduction_ratio": 7},
        {"seed_channels": 3},
        {"t": 2},
        {"omega_range": (3, 4)},
        {"phi_range": (-2, -1)},
        {"groups": 2, "seed_channels": 6},
        {"bias": True},
        {"seed": 9},
        {"stride": 2},
        {"dilation": 2, "padding": 2},
        {"padding_mode": "circular"},
    ],
    ids=str,
)
def test_every_argument_has_an_effect(option):
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(2))
    base, changed = layer()(x), layer(**option)(x)
    assert base.shape != changed.shape or not torch.allclose(base, changed)


@pytest.mark.parametrize(("option", "name"), [({"omega_range": (7, 8)}, "omega"), ({"phi_range": (7, 8)}, "phi")])
def test_each_range_moves_its_own_numbers_and_stays_inside(option, name):
    values = getattr(layer(**option), name)
    assert values.shape == (5,)
    assert ((values >= 7) & (values < 8)).all()
    other = {"omega": "phi", "phi": "omega"}[name]
    assert torch.equal(getattr(layer(), other), getattr(layer(**option), other))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"t": 0}, ["`t`", "0"]),
        ({"reduction_ratio": 0}, ["reduction_ratio", "0"]),
        ({"seed_channels": 15}, ["seed_channels", "15", "out_channels", "14"]),
        ({"groups": 3}, ["in_channels", "4", "groups", "3"]),
        ({"groups": 2}, ["seed_channels", "7", "groups", "2"]),
        ({"omega_range": (2, 1)}, ["omega_range", "(2, 1)"]),
        ({"phi_range": (1, float("inf"))}, ["phi_range", "inf"]),
        ({"seed": 2**64}, ["seed", "2**64"]),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_by_name(options, words):
    with pytest.raises(ValueError) as caught:
        layer(**options)
    for word in words:
        assert word in str(caught.value)
