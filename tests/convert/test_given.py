"""Networks as users hold them: what is inside a wrapper, and where the logits are."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import pytest
import torch
from torch import distributed, nn

from seedcnn.convert.given import evaluating, logits_entry, logits_of, unwrapped
from seedcnn.errors import DataError

LOGITS, AUXILIARY = torch.zeros(2, 3), torch.ones(2, 3)
Auxiliary = namedtuple("Auxiliary", "aux logits")
Nameless = namedtuple("Nameless", "first second")


@dataclass
class Answer:
    loss: object
    logits: torch.Tensor


@dataclass
class Odd:
    scores: torch.Tensor


@pytest.fixture
def one_process():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_wrappers_are_taken_off_one_inside_the_other():
    network = nn.Linear(2, 2)
    assert unwrapped(network) is network
    assert unwrapped(nn.DataParallel(network)) is network
    compiled = torch.compile(nn.DataParallel(network), backend="eager")
    assert unwrapped(compiled) is network


def test_distributed_networks_are_taken_off_too(one_process):
    network = nn.Linear(2, 2)
    assert unwrapped(nn.parallel.DistributedDataParallel(network)) is network


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        {"aux": AUXILIARY, "logits": LOGITS},
        OrderedDict(aux=AUXILIARY, out=LOGITS),
        {"out": AUXILIARY, "logits": LOGITS},
        (LOGITS, AUXILIARY),
        [LOGITS],
        Auxiliary(AUXILIARY, LOGITS),
        Nameless(LOGITS, AUXILIARY),
        Answer(AUXILIARY, LOGITS),
    ],
)
def test_the_logits_are_found_by_name_or_come_first(output):
    assert logits_of(output) is LOGITS


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ({"aux": AUXILIARY}, "a mapping with the keys 'aux'"),
        ({}, r"a mapping with the keys \(none\)"),
        ((), "an empty tuple"),
        (None, "NoneType"),
        (Odd(LOGITS), "Odd"),
    ],
)
def test_an_output_without_logits_is_refused_in_words(output, words):
    with pytest.raises(DataError, match=f"the network answers with {words}; the logits must be"):
        logits_entry(output)


def test_logits_that_are_no_tensor_are_refused():
    with pytest.raises(DataError, match="the network's logits are a tuple; they must be a tensor"):
        logits_of(((LOGITS, AUXILIARY), AUXILIARY))


def test_the_mode_of_every_module_is_restored():
    network = nn.Sequential(nn.Dropout(), nn.BatchNorm2d(2)).train()
    network[1].eval()
    with evaluating(network):
        assert not any(module.training for module in network.modules())
        assert torch.is_inference_mode_enabled()
    assert [module.training for module in network.modules()] == [True, True, False]
    with pytest.raises(TypeError), evaluating(network):
        network()
    assert [module.training for module in network.modules()] == [True, True, False]
