"""What forms are predicted to cost against what the converted network costs."""

from __future__ import annotations

import copy

import pytest

from seedcnn.bundle.codings import store
from seedcnn.convert import GroupNLConfig, MonoConfig, convert_layers_
from seedcnn.evaluate.costs import cost
from seedcnn.export import fold, to_onnx
from seedcnn.export.bundles import encode_tensors, grids_of_step
from seedcnn.plan import FORMS, tensor_bytes
from seedcnn.plan.costs import cost_table, costs_of_network
from seedcnn.plan.sites import find_sites

SIZE = (3, 8, 8)


@pytest.mark.parametrize("form", FORMS)
def test_predicted_costs_are_those_of_the_converted_network(small, form):
    sites, _ = find_sites(small, SIZE)
    table = cost_table(small, sites, {form: FORMS[form]}, multiple=8)
    whole = predicted = costs_of_network(small, SIZE)
    taken = {name: options for name, options in table.items() if len(options) > 1}
    assert taken
    for kept, option in taken.values():
        predicted = predicted.plus(option.costs, kept.costs)
    converted = copy.deepcopy(small)
    convert_layers_(converted, dict.fromkeys(taken, FORMS[form]))
    assert costs_of_network(converted, SIZE) == predicted != whole
    assert cost(converted, SIZE).params == predicted.params


def test_bytes_are_those_of_a_bundle(small):
    convert_layers_(small, {"conv": FORMS["sine-r2"], "last": FORMS["mono-r4"], "point": FORMS["ghost-r2"]})
    exported = to_onnx(fold(small), SIZE)
    for step in (None, 1 / 512):
        coded = encode_tensors(exported, None if step is None else grids_of_step(exported.tensors, step))
        stored, _ = store(coded, "entropy")
        size = len(stored.integers) + sum(map(len, stored.floats.values()))
        assert tensor_bytes(small, step) == pytest.approx(size, rel=0.01 if step else 0)  # the order of tensors differs


def test_on_a_grid_kept_layers_are_exact_and_forms_are_estimated_at_their_rate(small):
    sites, _ = find_sites(small, SIZE)
    step = 1 / 512
    table = cost_table(small, sites, {"abs-r2": FORMS["abs-r2"]}, step=step)
    site = next(site for site in sites if site.name == "conv")
    kept, option = table["conv"]
    assert kept.costs.bytes == tensor_bytes(site.alone(site.conv).eval(), step)
    assert option.costs.bytes < kept.costs.bytes < 4 * 32 * 64 * 9
    weights, seeds = 32 * 64 * 9, 32 * 32 * 9
    rate = (kept.costs.bytes - 4 * 64) / weights
    generated = option.costs.bytes - round(rate * seeds)
    assert 0 < generated <= 4 * 64 * 4  # scales and shifts of the two halves


def test_forms_that_save_nothing_or_come_twice_are_no_options(small):
    sites, _ = find_sites(small, SIZE)
    forms = {name: FORMS[name] for name in ("abs-r2", "abs-r2-groups4", "abs-r2-sparse", "dws")}
    table = cost_table(small, sites, forms, multiple=1)
    assert [option.form for option in table["point"]] == ["keep", "abs-r2", "abs-r2-groups4", "abs-r2-sparse"]
    assert [option.form for option in table["stem.0"]] == ["keep", "abs-r2", "dws"]  # no group divides 3


def test_forms_that_differ_in_a_range_only_are_different_options(small):
    """Their layers print the same."""
    sites, _ = find_sites(small, SIZE)
    forms = {f"phi {end}": GroupNLConfig(phi_range=(-end, end)) for end in (0.5, 0.25)}
    forms |= {"same": GroupNLConfig(phi_range=(-0.25, 0.25)), "omega": GroupNLConfig(nlf="leaky")}
    forms |= {f"mono {end}": MonoConfig(exp_factor=4, beta_range=(1, end)) for end in (3, 7)}
    table = cost_table(small, sites, forms)
    options = [option.form for option in table["conv"]]
    assert options == ["keep", "phi 0.5", "phi 0.25", "omega", "mono 3", "mono 7"]
