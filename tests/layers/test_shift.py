"""ShiftConv2d: the move written out, the gradient of the offsets, what is refused."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from seedcnn.layers import ShiftConv2d
from seedcnn.layers.shift import ChannelShift

OFFSETS = [(0.4, -0.4), (0.6, 0.0), (-1.7, 1.2), (0.0, 9.0), (-7.3, -0.2)]


def shift(offsets, dtype=torch.float64):
    module = ChannelShift(len(offsets), dtype=dtype)
    with torch.no_grad():
        module.offsets.copy_(torch.tensor(offsets, dtype=dtype))
    return module


def interpolated(x, offsets):
    """Bilinear interpolation with zeros outside, by torch's own sampler: each channel as an image of a batch."""
    height, width = x.shape[-2:]
    rows = torch.arange(height, dtype=x.dtype)[None, :, None] + offsets[:, 0, None, None]
    columns = torch.arange(width, dtype=x.dtype)[None, None, :] + offsets[:, 1, None, None]
    rows, columns = torch.broadcast_tensors(rows, columns)
    grid = torch.stack([2 * columns / (width - 1) - 1, 2 * rows / (height - 1) - 1], -1)
    return F.grid_sample(x[:, None], grid, mode="bilinear", padding_mode="zeros", align_corners=True)[:, 0]


def test_channels_move_by_their_rounded_offsets():
    x = torch.randn(2, 5, 6, 7, dtype=torch.float64)
    y = shift(OFFSETS)(x)
    for c, (down, right) in enumerate(OFFSETS):
        for i in range(6):
            for j in range(7):
                row, column = i + round(down), j + round(right)
                inside = 0 <= row < 6 and 0 <= column < 7
                expected = x[:, c, row, column] if inside else torch.zeros(2, dtype=torch.float64)
                assert torch.equal(y[:, c, i, j], expected)


def test_offsets_get_the_gradient_of_bilinear_interpolation():
    x = torch.randn(5, 6, 7, dtype=torch.float64)
    between = [(0.4, -0.4), (0.6, 0.1), (-1.7, 1.2), (0.2, 5.5), (-4.3, -0.2)]  # the slope jumps at whole pixels
    module = shift(between)
    weight = torch.randn(5, 6, 7, dtype=torch.float64)
    (module(x) * weight).sum().backward()
    offsets = torch.tensor(between, dtype=torch.float64, requires_grad=True)
    (interpolated(x, offsets) * weight).sum().backward()
    torch.testing.assert_close(module.offsets.grad, offsets.grad)
    assert module.offsets.grad.abs().sum() > 0


def test_input_gets_the_gradient_of_the_rounded_move():
    x = torch.randn(1, 5, 4, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(1, 5, 4, 4, dtype=torch.float64)
    (shift(OFFSETS)(x) * weight).sum().backward()
    back = shift([(-round(down), -round(right)) for down, right in OFFSETS])
    torch.testing.assert_close(x.grad, back(weight).detach())


def test_training_and_inference_give_the_same_values():
    module = shift(OFFSETS, torch.float32)
    x = torch.randn(2, 5, 6, 7)
    trained = module(x)
    with torch.no_grad():
        assert torch.equal(module(x), trained)


def test_the_layer_written_out():
    torch.manual_seed(0)
    module = ShiftConv2d(5, 8, 3, padding=1, stride=2, bias=True)
    x = torch.randn(2, 5, 6, 7)
    y = F.conv2d(module.shift(x).relu(), module.pointwise.weight, module.pointwise.bias, stride=2)
    torch.testing.assert_close(module(x), y)
    assert y.shape == (2, 8, 3, 4)
    assert sum(p.numel() for p in module.parameters()) == 2 * 5 + 5 * 8 + 8
    assert module.shift.offsets.abs().max() <= 1


@pytest.mark.parametrize("option", [{"stride": 2}, {"groups": 2}, {"bias": True}], ids=str)
def test_every_argument_has_an_effect(option):
    x = torch.randn(1, 4, 6, 6)
    torch.manual_seed(0)
    base = ShiftConv2d(4, 8, 3, padding=1)(x)
    torch.manual_seed(0)
    changed = ShiftConv2d(4, 8, 3, padding=1, **option)(x)
    assert base.shape != changed.shape or not torch.allclose(base, changed)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ["padding", "(0, 0)", "same"]),
        ({"padding": 1, "dilation": 2}, ["padding", "(1, 1)", "dilation"]),
        ({"padding": 1, "padding_mode": "circular"}, ["padding_mode", "circular"]),
        ({"padding": 1, "groups": 3}, ["in_channels", "4", "groups", "3"]),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_by_name(options, words):
    with pytest.raises(ValueError) as caught:
        ShiftConv2d(4, 8, 3, **options)
    for word in words:
        assert word in str(caught.value)
