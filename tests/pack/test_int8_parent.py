"""An int8 child: its delta leads to exactly what is shipped, and a parent of the other kind is refused at once."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from seedcnn.bundle import read_bundle
from seedcnn.bundle.delta import apply_delta, read_delta
from seedcnn.convert import GroupNLConfig, convert_
from seedcnn.errors import BundleError, ExportError
from seedcnn.evaluate import accuracy, bundle_predictor, torch_predictor
from seedcnn.models.resnet_cifar import BasicBlock, ResNetCifar
from seedcnn.pack import Int8, Parent, Search, draw_calibration, pack
from tests.pack.trained import INFO, small_trained

NEXT = dataclasses.replace(INFO, release=5)


@pytest.fixture(scope="module")
def trained():
    return small_trained()


@pytest.fixture(scope="module")
def tuned(trained):
    model = copy.deepcopy(trained[0])
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 1e-3)
    return model


@pytest.fixture(scope="module")
def parents(trained):
    """The same release as float32 and as int8."""
    model, images, labels = trained
    int8 = Int8(draw_calibration(images, labels, 64), force=True, rounds=2)
    exact, quantized = (pack(model, INFO, images[:64], labels[:64], step=0.01, int8=each) for each in (None, int8))
    return {"float32": read_bundle(exact.data), "int8": read_bundle(quantized.data)}


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_the_delta_leads_to_what_is_shipped(trained, tuned, parents, kind):
    _, images, labels = trained
    int8 = Int8(force=True, rounds=2) if kind == "int8" else None
    child = pack(tuned, NEXT, images, labels, parent=Parent(parents[kind]), int8=int8)
    delta = read_delta(child.delta)
    shipped, made = read_bundle(child.data), read_bundle(apply_delta(parents[kind], delta))
    assert delta.tensors
    assert delta.result == made.manifest.content_sha256() == shipped.manifest.content_sha256()
    assert shipped.graph() == made.graph() == parents[kind].graph()
    assert (child.int8 is not None) == (b"QuantizeLinear" in shipped.graph()) == (kind == "int8")
    assert accuracy(bundle_predictor(made), images, labels).top1 == child.after.top1
    if child.int8 is not None:
        assert child.int8.calibration == 0
        assert child.int8.logits.agreement > 97


class Untouched(nn.Module):
    def forward(self, *_):
        raise AssertionError("the network was run")


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_a_parent_of_the_other_kind_is_refused_before_any_work(trained, parents, kind):
    _, images, labels = trained
    other, int8 = ("int8", Int8(force=True)) if kind == "float32" else ("float32", None)
    words = rf"the parent, small release 4, has a graph in {kind} and the child one in {other}: no delta leads"
    with pytest.raises(BundleError, match=words):
        pack(Untouched(), NEXT, images, labels, parent=Parent(parents[kind]), int8=int8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"release": 4}, "the child is release 4 and the parent release 4: a delta leads to a later release"),
        ({"release": 3}, "the child is release 3 and the parent release 4: a delta leads to a later release"),
        ({"family": "other"}, r"the child has the family other and the parent .*: no delta leads"),
        ({"model": "large"}, r"the child has the model large and the parent small: no delta leads"),
        ({"labels": ["a", "b"]}, r"the child has the labels \('a', 'b'\) and the parent"),
    ],
)
def test_a_child_of_other_facts_is_refused_before_any_work(trained, parents, change, words):
    _, images, labels = trained
    info = dataclasses.replace(NEXT, **change)
    with pytest.raises(BundleError, match=words):
        pack(Untouched(), info, images, labels, parent=Parent(parents["float32"]))


def test_a_child_for_another_target_is_refused_before_rounding(trained, parents):
    model, images, labels = trained
    parent = Parent(parents["float32"], np.zeros((1, 1, 1, 3), np.uint8))  # images that no rounding could use
    with pytest.raises(BundleError, match="the parent, small release 4, has another graph: no delta leads from it"):
        pack(model, NEXT, images, labels, parent=parent, target="openvino")


def test_ranges_come_from_images_or_from_the_parent(trained, parents):
    _, images, labels = trained
    with pytest.raises(ValueError, match=r"`int8\.calibration` is None; only the child of an int8 parent"):
        pack(Untouched(), NEXT, images, labels, int8=Int8())
    with pytest.raises(ValueError, match=r"`int8\.calibration` holds 9 images; leave it out: the child of an int8"):
        pack(Untouched(), NEXT, images, labels, parent=Parent(parents["int8"]), int8=Int8(images[:9]))


def test_a_child_that_computes_something_else_is_refused(trained, parents):
    """Its tensors have the parent's names and shapes, so the graph alone tells them apart."""
    model, images, labels = trained
    other = ResNetCifar(BasicBlock, (1, 1), (16, 32), patch=4)
    convert_(other, GroupNLConfig.paper(normalize="batch", nlf="gaussian"))
    other.load_state_dict(model.state_dict())
    with pytest.raises(BundleError, match="the parent, small release 4, has another int8 graph than the network"):
        pack(other.eval(), NEXT, images[:64], labels[:64], parent=Parent(parents["int8"]), int8=Int8(), max_drop=100)


def test_the_bound_of_a_search_holds_for_int8(trained):
    """One grey image says nothing about the ranges of the others."""
    model, images, labels = trained
    noise = np.random.default_rng(5).integers(0, 256, (100, 32, 32, 3), np.uint8)
    own = torch_predictor(model, (0.5,) * 3, (0.25,) * 3)(noise).argmax(1)
    search = Search(noise, own, 4.0)
    grey = Int8(np.full((1, 32, 32, 3), 128, np.uint8), force=True, rounds=2)
    with pytest.raises(ExportError, match=r"int8 costs .* at most 4\.0 is accepted: use float32"):
        pack(model, INFO, images, labels, search=search, int8=grey)
    with pytest.raises(ExportError, match=r"int8 costs .* at most 3\.0 is accepted: use float32"):
        pack(model, INFO, images, labels, search=search, int8=grey, max_drop=3.0)
