"""Memory as text, and how many images fit into it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from seedcnn.errors import ConfigError
from seedcnn.export import fold
from seedcnn.pack import preprocessing_of
from seedcnn.pack.memory import Activations, Inputs, Memory, bytes_of


@pytest.mark.parametrize(
    ("text", "size"),
    [("2GB", 2 * 10**9), ("1500 MB", 1_500_000_000), ("1.5gib", 3 * 2**29), (" 64KiB ", 2**16), ("1mb", 10**6)],
)
def test_memory_is_a_number_with_a_unit(text, size):
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "2", "GB", "-1GB", "0GB", "2 TB", "1e3MB", "2GB 3", "0.0001KB"])
def test_anything_else_is_refused(text):
    with pytest.raises(ConfigError, match=r"`memory` is '.*'; it must be a number with a unit, such as 2GB or 1500MB"):
        bytes_of(text)


def test_images_at_once_follow_the_limit():
    much = Memory(10**15)
    assert much.at_once(10**6) == 500
    assert much.at_once(10**6, most=16) == 16
    little = Memory(60 * 10**6)
    assert little.at_once(10**6) == 10
    with pytest.raises(ConfigError) as refused:
        little.at_once(10_500_000)
    assert str(refused.value) == (
        "`memory` is 60.0 MB, and a sixth of it is for activations; those of one image take 10.5 MB: give at least "
        "63.0 MB"
    )
    assert Memory(63 * 10**6).at_once(10_500_000) == 1


def test_a_limit_that_the_process_exceeds_already_is_refused():
    assert Memory.of(None).total == 2 * 10**9
    assert Memory.of("1000GB").total == 10**12
    with pytest.raises(ConfigError, match=r"`memory` is 20.0 MB, but Python, torch and the network take [0-9.]+ .B"):
        Memory.of("20MB")


def test_activations_are_those_of_all_nodes():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5)).eval()
    found = Activations.of(fold(net), (3, 4, 4))
    assert found.forward == 4 * 4 * 8 * 16
    assert 1 <= found.backward / (2 * 4 * (3 * 16 + 3 * 8 * 16 + 5)) < 1.1


def test_inputs_come_in_pieces_and_spread():
    images = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 3), np.uint8)
    inputs = Inputs(images, preprocessing_of((0.5,) * 3, (0.25,) * 3, (4, 4)))
    whole = next(inputs.batches(10))
    assert [len(part) for part in inputs.batches(3)] == [3, 3, 1]
    assert torch.equal(torch.cat(list(inputs.batches(3))), whole)
    assert len(inputs.spread(3)) == 3
    assert len(inputs.spread(100)) == 7
