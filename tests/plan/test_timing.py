"""Measured latencies: every form, checked, with progress, and for no longer than need be."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from seedcnn.convert import convert_layers_
from seedcnn.errors import ExportError
from seedcnn.plan import FORMS
from seedcnn.plan.costs import cost_table
from seedcnn.plan.sites import find_sites
from seedcnn.plan.timing import Timing, add_latency, time_networks
from tests.plan.heard import Heard

SIZE = (3, 8, 8)


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime", "openvino"])
def test_latencies_are_measured_for_every_option(small, one_thread, runtime):
    sites, _ = find_sites(small, SIZE)
    table = cost_table(small, sites[1:3], {name: FORMS[name] for name in ("abs-r2", "cr")})
    heard = Heard()
    timed = add_latency(small, sites, table, Timing(runtime, 3, say=heard))
    assert heard.stages == [("exporting and timing 5 forms of 2 layers", 10)]
    first, second, *others = heard.notes
    assert (first, second) == ("exporting conv, point", "exported 5 forms")
    assert others == [f"{name} as {option.form}" for name, options in table.items() for option in options]
    assert heard.done == 10
    for name, options in table.items():
        assert [(o.form, o.costs.macs) for o in timed[name]] == [(o.form, o.costs.macs) for o in options]
        assert all(o.costs.latency_ms > 0 for o in timed[name])
        with pytest.raises(ValueError, match="was not measured"):
            options[0].costs.of("latency")


def test_equal_layers_are_timed_once_and_many_forms_are_exported_in_several_calls(one_thread):
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1))
    sites, _ = find_sites(model, SIZE)
    table = cost_table(model, sites, {name: FORMS[name] for name in ("copy-r2", "dws")})
    heard = Heard()
    timed = add_latency(model, sites, table, Timing("onnxruntime", 3, say=heard, together=2))
    assert heard.stages == [("exporting and timing 5 forms of 2 layers", 10)]
    assert [note for note in heard.notes if note.startswith("exp")] == [
        *("exporting 0", "exported 2 forms"),
        *("exporting 1", "exported 3 forms"),
    ]
    assert [o.costs.latency_ms for o in timed["1"]] == [o.costs.latency_ms for o in timed["2"]]


def test_rounds_are_as_many_as_asked_for_or_as_fit(small, one_thread):
    for seconds, rounds, made in [(100, 7, 7), (0, 7, 7), (100, None, 100), (0, None, 5)]:
        assert time_networks({"small": small}, SIZE, Timing("torch", rounds, seconds=seconds))["small"].n == made


def test_a_form_that_differs_in_the_runtime_is_named(small, one_thread):
    class Restless(nn.Module):
        def forward(self, x):
            return (x + torch.rand_like(x)).mean((2, 3))

    with pytest.raises(ExportError, match=r"^restless: in onnxruntime the network's logits differ"):
        time_networks({"small": small, "restless": Restless()}, SIZE, Timing("onnxruntime", 1))


def test_a_layer_alone_takes_as_long_as_in_a_network_of_its_own(one_thread):
    """One layer, exported beside others, and as a network by itself: the same graph, so about the same time."""
    torch.manual_seed(0)
    size = (32, 16, 16)
    model = nn.Sequential(nn.Conv2d(32, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()).eval()
    sites, _ = find_sites(model, size)
    table = cost_table(model, sites, {"dws-linear": FORMS["dws-linear"]})
    kept, other = add_latency(model, sites, table, Timing("onnxruntime", 30))["0"]
    changed = nn.Sequential(*model).eval()
    convert_layers_(changed, {"0": FORMS["dws-linear"]})
    whole = time_networks({"kept": model, "other": changed}, size, Timing("onnxruntime", 30))
    assert other.costs.latency_ms < kept.costs.latency_ms
    found = other.costs.latency_ms / kept.costs.latency_ms
    assert found == pytest.approx(whole["other"].median_ms / whole["kept"].median_ms, rel=0.5)
