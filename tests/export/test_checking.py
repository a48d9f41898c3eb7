"""A folded network is compared with the network as it was given."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seedcnn.errors import ExportError
from seedcnn.export import fold
from seedcnn.export.checking import FOLD_TOLERANCE, check_folded
from seedcnn.layers import GroupNLConv2d
from tests.export.alike import SIZE, around, conv, settled


@pytest.fixture
def network():
    torch.manual_seed(0)
    layer = GroupNLConv2d(8, 8, 3, padding=1, normalize="batch", seed=5)
    return settled(around(nn.BatchNorm2d(8), layer, nn.BatchNorm2d(8), nn.ReLU(), conv(), nn.BatchNorm2d(8)))


def noise():
    return torch.randn(70, *SIZE, generator=torch.Generator().manual_seed(1))


def test_what_folding_gets_right_passes_and_the_network_stays_as_it_was(network):
    network.train()
    network[1].eval()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    assert check_folded(network, fold(network), noise()) < 1e-5
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in state.items())
    assert network.training
    assert not network[1].training


@pytest.mark.parametrize("name", ["0.weight", "2.omega", "2.scale", "5.bias"])
def test_any_error_of_a_percent_is_found(network, name):
    folded = fold(network)
    values = folded.get_parameter(name)
    values[0] += 0.1 * values.abs().max()
    with pytest.raises(ExportError, match=r"form of Sequential answers differently from the network, by \d\.\de-0\d"):
        check_folded(network, folded, noise())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_rounding_of_the_network_s_own_type_is_no_error(network, dtype):
    network.to(dtype)
    apart = check_folded(network, fold(network), noise())
    assert (apart > FOLD_TOLERANCE) == (dtype is torch.bfloat16)


def test_an_error_in_a_network_of_low_precision_is_found(network):
    folded = fold(network.to(torch.bfloat16))
    folded.get_parameter("2.scale")[0] *= 1.1
    with pytest.raises(ExportError, match="answers differently"):
        check_folded(network, folded, noise())


class Sly(nn.Module):
    """Code that does something else while it is traced."""

    def forward(self, x):
        return -x if isinstance(x, torch.Tensor) else x


def test_fold_itself_compares_if_it_is_given_inputs():
    model = settled(around(Sly()))
    fold(model)
    with pytest.raises(ExportError, match="answers differently"):
        fold(model, check=noise())
    fold(settled(around(nn.ReLU())), check=noise())


class Dropping(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5)


class Squeezing(nn.Module):
    def forward(self, x):
        return x.squeeze()


def test_answers_that_depend_on_the_batch_are_refused():
    alone = "answers an image differently when it is alone"
    for layers, words in (
        ((nn.BatchNorm2d(8, track_running_stats=False),), alone),
        ((Dropping(),), "answers the same images differently each time, by"),
    ):
        with pytest.raises(ExportError, match=words):
            fold(settled(around(*layers)), check=noise())
    with pytest.raises(ExportError, match=alone):
        fold(nn.Sequential(*settled(around()), Squeezing()).eval(), check=noise())


class Amplifying(nn.Module):
    """The sine of numbers so large that their rounding is all that is left."""

    def forward(self, x):
        return torch.sin(1e7 * x)


def test_a_network_that_is_too_sensitive_is_told_apart_from_an_error():
    torch.manual_seed(0)
    model = settled(around(conv(), nn.BatchNorm2d(8), Amplifying()))
    with pytest.raises(ExportError, match=r"so sensitive that rounding alone changes its logits by \d"):
        fold(model, check=noise())


def test_inputs_that_do_not_fit_are_refused_in_words():
    with pytest.raises(ExportError, match=r"cannot answer inputs of shape \(3, 12, 12\): .* to have 1 channels, but"):
        fold(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten()), check=noise())


def test_answers_that_are_not_numbers_are_refused(network):
    network[-1].bias.data[0] = float("nan")
    with pytest.raises(ExportError, match="answers differently from the network, by nan"):
        fold(network, check=noise())
