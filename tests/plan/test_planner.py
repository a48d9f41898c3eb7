"""Plans: within the budget, what they predict, and what cannot be met."""

from __future__ import annotations

import copy
import json
import re

import pytest
import torch

from seedcnn.convert import low_passed, lowpass_
from seedcnn.errors import ConfigError
from seedcnn.evaluate.costs import cost
from seedcnn.models.opening import network
from seedcnn.plan import Budget, Calibration, Plan, compare, plan, read_plan
from seedcnn.plan.sensitivity import PROXY
from tests.typed_values import spelled

SIZE = (3, 8, 8)
FEW = ("copy-r2", "dws", "ghost-r2", "abs-r2")


def check(name, size, share, forms):
    """Plan for a share of the MACs and of the bytes; what is predicted is what the converted network costs."""
    model, size = network(name, size)
    whole = cost(model, size)
    for of, full in (("macs", whole.macs), ("bytes", 4 * whole.params)):
        found = plan(model, Budget(of, share * full), input_size=size, forms=forms, latency=False)
        assert found.vanilla.macs == whole.macs
        assert not found.keeps_everything
        compared = compare(found, model, latency=False)
        assert [one.name for one in compared.networks] == ["vanilla", "plan"]
        assert compared.networks[0].costs == found.vanilla
        assert compared.networks[1].costs == found.predicted
        assert found.predicted.of(of) <= share * full
        assert found.predicted.of(of) > 0.5 * share * full  # no more is given away than must be
        assert "meets the budget" in compared.verdict[0]


def test_resnet18():
    check("resnet18_cifar", None, 0.6, ("dws", "abs-r2"))


@pytest.mark.slow
def test_resnet50():
    check("resnet50", (3, 32, 32), 0.6, FEW)


@pytest.mark.slow
def test_mobilenetv2():
    check("mobilenetv2_100", (3, 32, 32), 0.8, (*FEW, "cr"))


@pytest.fixture
def calibration():
    generator = torch.Generator().manual_seed(0)
    return Calibration(torch.randn(32, *SIZE, generator=generator), torch.arange(32) % 4, fit_images=16, fit_steps=2)


def test_a_plan_with_pictures(small, calibration, one_thread):
    macs = cost(small, SIZE).macs
    found = plan(small, Budget("macs", 0.5 * macs), input_size=SIZE, calibration=calibration, latency=False)
    assert found.predicted.macs <= 0.5 * macs
    assert "32 calibration images" in found.how
    assert found.loss > 0
    assert found.seconds["sensitivity"] > 0
    assert {layer.name for layer in found.layers} == {"stem.0", "conv", "point", "last"}
    assert set(found.left) == {"depthwise"}
    assert all((layer.config is None) == (layer.form == "keep") for layer in found.layers)


def test_layers_keep_their_low_pass_filters(small, calibration, one_thread):
    plain = cost(small, SIZE).macs
    lowpass_(small, "stem+strides")
    macs = cost(small, SIZE).macs
    assert macs - plain == 9 * (3 + 32) * 8 * 8
    found = plan(small, Budget("macs", 0.6 * macs), input_size=SIZE, calibration=calibration, latency=False)
    assert found.predicted.macs <= 0.6 * macs
    converted = copy.deepcopy(small)
    assert found.convert_(converted).replaced
    assert low_passed(converted) == low_passed(small) == ("stem.0", "conv")
    assert cost(converted, SIZE).macs == found.predicted.macs


def test_a_budget_that_needs_nothing(small):
    found = plan(small, Budget("macs", 1e12), input_size=SIZE, latency=False)
    assert found.keeps_everything
    assert found.overrides == {}
    assert found.forms == {"keep": 4}
    assert found.predicted == found.vanilla
    converted = copy.deepcopy(small)
    report = found.convert_(converted)
    assert not report.replaced
    assert report.params_before == report.params_after
    assert str(converted) == str(small)
    assert "as it is: nothing is replaced" in compare(found, small, latency=False).verdict[0]


def test_a_budget_that_cannot_be_met_names_the_least_and_its_forms(small):
    with pytest.raises(ConfigError) as caught:
        plan(small, Budget("macs", 1000), input_size=SIZE, forms=["copy-r2", "ghost-r2"], latency=False)
    least = int(re.search(r"the least that can be reached is ([\d,]+) MACs", str(caught.value))[1].replace(",", ""))
    assert "(copy-r2 in 4 layers)" in str(caught.value)
    found = plan(small, Budget("macs", least), input_size=SIZE, forms=["copy-r2", "ghost-r2"], latency=False)
    assert found.predicted.macs == least
    with pytest.raises(ConfigError, match="cannot be met"):
        plan(small, Budget("macs", least - 1), input_size=SIZE, forms=["copy-r2", "ghost-r2"], latency=False)


def test_a_network_without_a_place_for_any_form():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.ReLU())
    with pytest.raises(ConfigError, match="cannot be met"):
        plan(model, Budget("macs", 10), input_size=SIZE, latency=False)


def test_the_plain_form_wins_where_nothing_tells_them_apart(small):
    budget = Budget("macs", 0.7 * cost(small, SIZE).macs)
    found = plan(small, budget, input_size=SIZE, forms=["sine-r2", "abs-r2", "copy-r2"], latency=False)
    assert set(found.forms) <= {"keep", "sine-r2"}  # of equal forms the one named first
    found = plan(small, budget, input_size=SIZE, forms=["copy-r2", "abs-r2", "sine-r2"], latency=False)
    assert set(found.forms) <= {"keep", "copy-r2"}
    assert found.how == PROXY


def test_several_families_in_one_network(small, tmp_path):
    macs = cost(small, SIZE).macs
    found = plan(small, Budget("macs", 0.2 * macs), input_size=SIZE, latency=False)
    assert len({type(config) for config in found.overrides.values()}) > 1
    report = found.convert_(copy.deepcopy(small))
    assert {item.name for item in report.replaced} == set(found.overrides)
    found.save(tmp_path / "plan.json")
    again = read_plan(tmp_path / "plan.json")
    assert again == found
    assert again.convert_(copy.deepcopy(small)) == report


def test_the_seed_is_the_conversions(small):
    budget = Budget("macs", 0.6 * cost(small, SIZE).macs)
    shown = []
    for seed in (0, 1):
        found = plan(small, budget, input_size=SIZE, forms=["sine-r2"], latency=False, seed=seed)
        shown.append(found.convert_(copy.deepcopy(small)).replaced[0].after)
    assert shown[0] != shown[1]


def test_widths(small):
    budget = Budget("bytes", 0.6 * 4 * cost(small, SIZE).params)
    wide = plan(small, budget, input_size=SIZE, forms=["groupnl:reduction_ratio=8"], latency=False, multiple=8)
    assert wide.predicted.bytes <= budget.limit
    with pytest.raises(ConfigError, match="cannot be met"):
        plan(small, budget, input_size=SIZE, forms=["groupnl:reduction_ratio=8"], latency=False, multiple=32)


def test_latency_is_predicted_from_measured_layers(small, one_thread):
    options = {"input_size": SIZE, "forms": ["copy-r2"], "rounds": 3, "runtime": "torch"}
    found = plan(small, Budget("macs", 0.6 * cost(small, SIZE).macs), **options)
    replaced = [layer for layer in found.layers if layer.config is not None]
    assert replaced
    change = sum(layer.after.latency_ms - layer.before.latency_ms for layer in replaced)
    assert found.predicted.latency_ms == pytest.approx(found.vanilla.latency_ms + change)
    compared = compare(found, small, rounds=3)
    assert all(one.latency.n == 3 for one in compared.networks)


def test_a_latency_budget(small, one_thread):
    options = {"input_size": SIZE, "forms": ["copy-r2"], "rounds": 3, "runtime": "torch"}
    found = plan(small, Budget("latency", 1e6), **options)
    assert found.keeps_everything
    assert found.vanilla.latency_ms > 0
    with pytest.raises(ConfigError, match=r"cannot be met: at most 0.000 ms; the least .* is -?\d+\.\d{3} ms \("):
        plan(small, Budget("latency", 1e-6), **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"runtime": "onnxruntme"}, "unknown runtime 'onnxruntme'; did you mean onnxruntime"),
        ({"forms": ["gost-r2"]}, "unknown form 'gost-r2'; did you mean ghost-r2"),
    ],
)
def test_unknown_names_list_the_near_ones(small, options, words):
    with pytest.raises(ConfigError, match=words):
        plan(small, Budget("macs", 1e9), input_size=SIZE, **options)


def test_arguments_out_of_range(small):
    with pytest.raises(ValueError, match=r"`multiple` \(=0\) must be a positive integer"):
        plan(small, Budget("macs", 1e9), input_size=SIZE, multiple=0)
    with pytest.raises(ConfigError, match="unknown budget 'size'"):
        Budget("size", 1)
    with pytest.raises(ValueError, match=r"`limit` \(=0\) must be a positive number"):
        Budget("macs", 0)


def test_files_that_are_no_plan(tmp_path):
    for text in ("{", "[]", "{}", '{"layers": []}'):
        (tmp_path / "plan.json").write_text(text)
        with pytest.raises(ConfigError, match=r"plan"):
            read_plan(tmp_path / "plan.json")
    with pytest.raises(ConfigError, match="cannot be read as a plan"):
        read_plan(tmp_path / "nowhere.json")


def test_plans_that_another_version_or_hand_wrote(small, tmp_path):
    found = plan(small, Budget("macs", 0.6 * cost(small, SIZE).macs), input_size=SIZE, forms=["dws"], latency=False)
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert spelled(Plan.from_dict(data)) == spelled(Plan.from_dict(found.to_dict()))
    assert Plan.from_dict(data) == found
    changed = next(index for index, layer in enumerate(found.layers) if layer.config is not None)

    def other(change):
        copied = copy.deepcopy(data)
        change(copied)
        (tmp_path / "plan.json").write_text(json.dumps(copied))
        return tmp_path / "plan.json"

    for change, words in [
        (lambda d: d.update(format="seedcnn-plan/2"), "the plan has the format 'seedcnn-plan/2'; this version"),
        (lambda d: d.pop("format"), "the plan names no format; this version"),
        (lambda d: d.pop("layers"), "Plan needs the field 'layers', which is missing"),
        (lambda d: d.update(budget={"of": "macs", "limit": 0}), "budget: `limit` (=0.0) must be a positive number"),
        (lambda d: d["layers"][changed]["config"].update(relu="maybe"), "config.relu (='maybe') must be true or false"),
        (lambda d: d["layers"][changed].update(config=None), "has the form 'dws' and the config None"),
        (lambda d: d["layers"][changed].update(form="keep"), "has the form 'keep' and the config Depthwise"),
    ]:
        with pytest.raises(ConfigError, match=rf"plan\.json is not a plan: .*{re.escape(words)}"):
            read_plan(other(change))
