"""Benchmarks: what is timed is checked first, and what is kept says what it was measured with."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from seedcnn.convert import GroupNLConfig, convert_
from seedcnn.errors import ExportError
from seedcnn.evaluate.benchmark import bench_latency, bench_training, conditions
from seedcnn.evaluate.runners import RUNNERS, runner, settled

SIZE = (3, 8, 8)


def small(config=None):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 4),
    )
    if config is not None:
        convert_(model, config)
    return model


class Restless(nn.Module):
    """Answers differently each time, so no export can be the same function."""

    def forward(self, x):
        return (x + torch.rand_like(x)).mean((2, 3))


@pytest.mark.parametrize(
    "runtime", [pytest.param(name, marks=[pytest.mark.slow] if name == "torch-compile" else []) for name in RUNNERS]
)
def test_a_runner_is_the_same_function(runtime):
    model = settled(small(GroupNLConfig.paper(sparse=True)), SIZE)
    images = np.random.default_rng(0).standard_normal((2, *SIZE)).astype(np.float32)
    ready = runner(model, images, runtime)
    with torch.no_grad():
        wanted = model(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(ready.run(images), wanted, atol=1e-4)
    assert 0 <= ready.error < 1e-4
    assert ready.load_s > 0
    assert ready.size > 4 * (3 * 16 * 9)


def test_a_network_that_changed_on_the_way_is_not_timed():
    images = np.zeros((1, *SIZE), np.float32)
    with pytest.raises(ExportError, match=r"in onnxruntime the network's logits differ by .* 1e-02 is the limit"):
        runner(Restless().eval(), images, "onnxruntime")


def test_unknown_runtime_is_refused():
    with pytest.raises(ValueError, match=r"`runtime` \(='tflite'\) must be one of 'torch', 'torch-compile'"):
        runner(small().eval(), np.zeros((1, *SIZE), np.float32), "tflite")


def test_settled_is_a_copy_with_the_statistics_of_noise():
    model = small()
    before = model[1].running_mean.clone()
    other = settled(model, SIZE, passes=2)
    assert torch.equal(model[1].running_mean, before)
    assert other[1].momentum == model[1].momentum == 0.1
    noise = torch.randn(64, *SIZE)
    with torch.no_grad():
        normed = other[1](other[0](noise))
    assert abs(float(normed.std()) - 1) < 0.1


def test_ratios_are_to_the_first_network_of_the_same_runtime():
    models = {"vanilla": small(), "groupnl": small(GroupNLConfig.paper())}
    found = bench_latency(models, SIZE, runtimes=("onnxruntime", "torch"), rounds=5)
    assert [(one.form, one.runtime) for one in found] == [
        (form, runtime) for form in models for runtime in ("onnxruntime", "torch")
    ]
    medians = {(one.form, one.runtime): one.latency.median_ms for one in found}
    for one in found:
        assert one.ratio == pytest.approx(one.latency.median_ms / medians["vanilla", one.runtime])
        assert one.latency.q1_ms <= one.latency.median_ms <= one.latency.q3_ms
    assert json.loads(json.dumps([one.to_dict() for one in found]))[0]["n"] == 5


def test_a_training_step_trains_a_copy():
    model = small(GroupNLConfig.paper(sparse=True))
    before = model[3].weight.detach().clone()
    found = bench_training({"vanilla": small(), "sparse": model}, SIZE, batch=4, modes=("eager",), rounds=2)
    assert [one.form for one in found] == ["vanilla", "sparse"]
    assert torch.equal(model[3].weight, before)


SEEN = []


@torch.fx.wrap
def note(x):
    """Remember what a network was given; folding keeps the call as it is."""
    SEEN.append((tuple(x.shape), x.is_contiguous(memory_format=torch.channels_last)))
    return x


class Watched(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = small()

    def forward(self, x):
        return self.body(note(x))


def test_batches_and_layouts_are_those_asked_for():
    bench_latency({"vanilla": Watched()}, SIZE, runtimes=("torch",), rounds=2, batch=3)
    assert SEEN[-1][0] == (3, *SIZE)
    for mode, last in (("eager", False), ("eager channels_last", True)):
        found = bench_training({"vanilla": Watched()}, SIZE, batch=5, modes=(mode,), rounds=1)
        assert SEEN[-1] == ((5, *SIZE), last)
        assert found[0].runtime == mode


def test_a_compiled_training_step_runs():
    (found,) = bench_training({"vanilla": small()}, SIZE, batch=4, modes=("compile",), rounds=1)
    assert (found.runtime, found.latency.n) == ("compile", 1)


def test_conditions_name_what_a_number_depends_on():
    about = conditions(threads=1, rounds=7, process="pinned")
    assert {"machine", "commit", "versions", "command", "threads", "rounds", "process", "how"} <= set(about)
    assert about["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
