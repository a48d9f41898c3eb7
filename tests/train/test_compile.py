"""Compiled runs: the loss of eager runs within rounding, the same checkpoints, and resuming (takes minutes)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from seedcnn.convert import GroupNLConfig
from seedcnn.train import DistillConfig, build_model
from tests.train.runs import changed, coloured, run, same

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CONVERSIONS = [
    None,
    GroupNLConfig.paper(nlf_groups=2, normalize="batch"),
    GroupNLConfig.paper(nlf_groups=2, sparse=True),
]
NAMES = ["vanilla", "dense", "sparse"]


def losses(state):
    return [row["loss"] for row in state.history]


def graphs():
    return counters["stats"]["unique_graphs"]


def check_like_eager(tmp_path, config, **options):
    """Two small steps: inductor's kernels round differently, which a dozen steps amplify a thousandfold."""
    config = replace(config, epochs=1, lr=1e-3, warmup_epochs=0.0, momentum=0.9)
    eager = run(tmp_path / "eager.ckpt", config, data=coloured(32), **options)[1]
    before = graphs()
    network, compiled = run(tmp_path / "compiled.ckpt", replace(config, compile=True), data=coloured(32), **options)
    assert graphs() > before
    assert losses(compiled) == pytest.approx(losses(eager), rel=1e-5)
    for part in ("model", "task", "ema", "optimizer"):
        ours, theirs = getattr(compiled, part), getattr(eager, part)
        assert ours.keys() == theirs.keys()
        assert not any("_orig_mod" in name for name in ours)
    for name, momentum in eager.optimizer.items():  # the gradients of both steps
        assert (compiled.optimizer[name] - momentum).norm() <= 1e-3 * momentum.norm(), name
    assert type(network).__name__ == "ResNetCifar"


@pytest.mark.parametrize("convert", CONVERSIONS, ids=NAMES)
def test_compiled_networks_train_like_eager_ones(tmp_path, convert):
    check_like_eager(tmp_path, changed(convert=convert, ema=0.5))


@pytest.mark.parametrize(
    ("convert", "distill"),
    [
        (CONVERSIONS[1], DistillConfig()),
        (CONVERSIONS[2], DistillConfig(kind="stagewise")),
        (CONVERSIONS[2], DistillConfig(cache=True)),
    ],
    ids=["dense-logits", "sparse-stagewise", "sparse-cached"],
)
def test_compiled_distillation(tmp_path, convert, distill):
    teacher = build_model(changed(convert=None, seed=7))
    config = changed(convert=convert, distill=distill, augment="none" if distill.cache else "crop")
    check_like_eager(tmp_path, config, teacher=teacher)


def test_a_compiled_run_is_resumed(tmp_path):
    config = changed(convert=CONVERSIONS[1], compile=True, deterministic=True, ema=0.5, grad_accumulation=4)
    whole = run(tmp_path / "a.ckpt", config)[1]
    run(tmp_path / "b.ckpt", config, until=1)
    again = run(tmp_path / "b.ckpt", config, until=2, resume=True)[1]
    assert losses(again) == losses(whole)
    assert same(again.model, whole.model)
    assert same(again.ema, whole.ema)


def test_every_network_of_a_process_is_compiled(tmp_path):
    """Dynamo runs a function eagerly after it has compiled it too often; here once is too often."""
    with torch._dynamo.config.patch(recompile_limit=1):
        for hidden in (3, 4):
            before = graphs()
            network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, hidden), nn.Linear(hidden, 10))
            run(tmp_path / "a.ckpt", changed(epochs=1, convert=None, compile=True), model=network)
            assert graphs() > before
