"""The binomial filter: its numbers, its border, its size; and layers that have it."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seedcnn.layers import LowPass
from seedcnn.layers.low_pass import LowPassed, binomial, low_pass_, plain_, plain_type

REFERENCE = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 1, 5, 9), (3, 7, 6)])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_it_is_the_binomial_filter_of_each_channel(shape, stride):
    x = noise(*shape)
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    wanted = torch.zeros_like(x)
    for row in range(3):
        for column in range(3):
            wanted += REFERENCE[row, column] * padded[..., row : row + x.shape[-2], column : column + x.shape[-1]]
    torch.testing.assert_close(LowPass(stride)(x), wanted[..., ::stride, ::stride])


def test_an_even_map_stays_even_and_any_map_keeps_its_mean():
    flat = torch.full((1, 2, 6, 6), 3.0)
    assert torch.equal(binomial(flat), flat)
    x = noise(4, 3, 7, 10).double()
    torch.testing.assert_close(binomial(x).mean((2, 3)), x.mean((2, 3)))
    assert torch.equal(binomial(x[..., :1, :1]), x[..., :1, :1])  # one pixel is all border


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtype_and_memory_format_are_kept(dtype):
    x = noise(2, 4, 8, 8).to(dtype).contiguous(memory_format=torch.channels_last)
    y = binomial(x)
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y.float(), binomial(x.float()), atol=0.02, rtol=0.02)
    with torch.autocast("cpu", torch.bfloat16):
        assert binomial(x.float()).dtype == torch.bfloat16


def test_gradient():
    x = noise(1, 2, 5, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(binomial, (x,))
    assert torch.autograd.gradcheck(LowPass(2), (x,))


@pytest.mark.parametrize("stride", [0, -1, True, 1.0])
def test_a_wrong_stride_is_refused(stride):
    with pytest.raises(ValueError, match=r"`stride` \(=.*\) must be a positive integer"):
        LowPass(stride)


def test_nothing_is_learned_or_stored():
    layer = nn.Conv2d(3, 4, 3)
    keys = list(layer.state_dict())
    low_pass_(layer)
    assert list(layer.state_dict()) == keys
    assert not list(LowPass().parameters()) + list(LowPass().buffers())


def test_a_layer_filters_its_input_and_stays_what_it_was():
    layer = nn.Conv2d(3, 4, 3, padding=1)
    x = noise(2, 3, 8, 8)
    plain, filtered = layer(x), layer(binomial(x))
    low_pass_(layer)
    low_pass_(layer)  # once is enough
    assert isinstance(layer, nn.Conv2d)
    assert plain_type(layer) is nn.Conv2d
    assert repr(layer).startswith("LowPassedConv2d(3, 4")
    assert torch.equal(layer(x), filtered)
    plain_(layer)
    assert type(layer) is nn.Conv2d
    assert torch.equal(layer(x), plain)


@pytest.mark.parametrize(
    "pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d((2, 3), (2, 1), (1, 0)), nn.MaxPool2d(2, 3)]
)
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (6, 11)])
def test_a_pooling_keeps_its_size_and_blurs_between_maxima_and_stride(pool, size):
    x = noise(2, 3, *size)
    before = pool(x).shape
    low_pass_(pool)
    found = pool(x)
    assert found.shape == before
    strides = pool.stride if isinstance(pool.stride, tuple) else (pool.stride,) * 2
    maxima = F.max_pool2d(x, pool.kernel_size, 1, pool.padding)
    torch.testing.assert_close(found, binomial(maxima)[..., :: strides[0], :: strides[1]])


def test_copies_and_pickles_keep_the_filter():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2))
    for layer in network:
        low_pass_(layer)
    x = noise(1, 1, 8, 8)
    stored = io.BytesIO()
    torch.save(network, stored)
    stored.seek(0)
    again = torch.load(stored, weights_only=False)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network)), again):
        assert all(isinstance(layer, LowPassed) for layer in other)
        assert torch.equal(other(x), network(x))
        other[0].weight.data.zero_()
    assert network[0].weight.abs().sum() > 0
