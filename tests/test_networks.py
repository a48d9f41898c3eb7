"""Random networks through the whole chain: right or refused, and nothing in between."""

from __future__ import annotations

import collections
import copy
import os

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings

from seedcnn.bundle import read_bundle
from seedcnn.convert import convert_
from seedcnn.errors import ConversionError, ExportError
from seedcnn.export import BundleInfo, fold, to_bundle, to_onnx
from seedcnn.export.bundles import encode_tensors
from seedcnn.layers import ConvLayer
from seedcnn.pack import preprocessing_of
from seedcnn.runtime.session import open_session
from tests.strategies import build, configs, plans

OUTCOMES: collections.Counter[str] = collections.Counter()
CHECKS = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}


def _runs(model, x):
    try:
        model(x)
    except RuntimeError:  # kernels larger than what is left of the map
        return False
    except ValueError as error:  # an instance norm of a single value
        if "Expected more than 1" not in str(error):
            raise
        return False
    return True


def _same(found, expected, tolerance):
    scale = float(expected.abs().max().clamp(min=1))
    return float((found.double() - expected.double()).abs().max()) <= tolerance * scale


def _converted(model, config):
    """Whether the model was converted; one that was refused is as it was, bit for bit."""
    modules = [id(module) for module in model.modules()]
    state = copy.deepcopy(model.state_dict())
    try:
        report = convert_(model, config)
    except ConversionError as error:
        OUTCOMES[f"convert_: {str(error).split(':')[0].split('(')[0]:.40}"] += 1
        assert [id(module) for module in model.modules()] == modules
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        return False
    for item in report.replaced:
        layer = model.get_submodule(item.name)
        assert any(isinstance(part, ConvLayer | torch.nn.Conv2d) for part in layer.modules())
    return True


def _trains(model, x):
    """One step; every learnable tensor of the network takes part in it."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    model.train()
    try:
        loss = model(x).square().mean()
    except ValueError as error:
        if "Expected more than 1" not in str(error):  # a norm over a single value, as in any framework
            raise
        return
    loss.backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert not parameter.requires_grad or parameter.grad is not None, name


def _learns(model, x):
    """Whether the network can be trained as it is: an activation in place may spoil what another one needs."""
    try:
        model(x).square().mean().backward()
    except (RuntimeError, ValueError):
        return False
    return True


def _check(plan, config, *, export):
    model, x = build(plan), torch.randn(4, *plan.size)
    x = x.to(next(model.parameters()).dtype)
    assume(_runs(model.eval(), x))
    assume(_learns(build(plan), x))
    if not _converted(model, config):
        return
    assume(_runs(model.eval(), x))  # a layer of another geometry leaves another map
    _trains(model, x)
    model.eval()
    with torch.no_grad():
        expected = model(x)
        try:
            # With a size, norms are folded inside modules whose code cannot be traced as well.
            folded = fold(model, input_size=plan.size if plan.head == "pool" else None)
        except ExportError as error:
            OUTCOMES[f"fold: {error!s:.60}"] += 1
            return
        assert _same(folded(x.float()), expected, 1e-3)
    OUTCOMES["folded"] += 1
    if not export:
        return
    try:
        exported = to_onnx(folded, plan.size)
    except ExportError as error:
        OUTCOMES[f"to_onnx: {error!s:.60}"] += 1
        return
    info = BundleInfo("random", "tests", 1, preprocessing_of((0.5,) * 3, (0.25,) * 3, plan.size[1:]), list("abcde"))
    if plan.channels == 3:
        bundle = read_bundle(to_bundle(exported, info, step=None))
        session = open_session(bundle.graph(), bundle.tensors())
    else:  # bundles are of colour images
        session = open_session(exported.graph, {item.entry.name: item.expanded for item in encode_tensors(exported)})
    (logits,) = session.run(["logits"], {"image": x.float().numpy()})
    assert _same(torch.from_numpy(logits), expected, 1e-3)
    OUTCOMES["exported"] += 1


@settings(max_examples=80, derandomize=True, **CHECKS)
@given(plan=plans(), config=configs())
def test_networks_are_folded_right_or_refused(plan, config):
    _check(plan, config, export=False)


@settings(max_examples=8, derandomize=True, **CHECKS)
@given(plan=plans(), config=configs())
def test_networks_are_exported_right_or_refused(plan, config):
    _check(plan, config, export=True)


def test_most_networks_are_not_refused():
    """Runs after the two above: a chain that refuses everything would be right, and of no use."""
    done, refused = OUTCOMES["folded"], sum(count for what, count in OUTCOMES.items() if ":" in what)
    if done + refused < 50:
        pytest.skip("the networks were not run in this process")
    assert done > refused, OUTCOMES


@pytest.mark.slow
@settings(max_examples=int(os.environ.get("SEEDCNN_NETWORKS", "500")), **CHECKS)
@given(plan=plans(), config=configs())
def test_as_many_networks_as_asked(plan, config):
    """SEEDCNN_NETWORKS=5000 make test-slow ARGS="tests/test_networks.py -s" for more."""
    _check(plan, config, export=OUTCOMES["folded"] % 5 == 0)
