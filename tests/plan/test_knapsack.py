"""The knapsack against all combinations, and what it promises where it is not exact."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedcnn.plan import choose

LAYER = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 9)), min_size=1, max_size=4)


def best(layers, capacity):
    """Least (loss, cost) of all combinations within the capacity."""
    found = [
        (sum(loss for _, loss in combination), sum(cost for cost, _ in combination))
        for combination in product(*layers)
        if sum(cost for cost, _ in combination) <= capacity
    ]
    return min(found, default=None)


def split(layers):
    return [[cost for cost, _ in layer] for layer in layers], [[loss for _, loss in layer] for layer in layers]


def told(layers, chosen):
    picked = [layer[index] for layer, index in zip(layers, chosen, strict=True)]
    return sum(loss for _, loss in picked), sum(cost for cost, _ in picked)


@given(st.lists(LAYER, max_size=5), st.integers(0, 40))
@settings(max_examples=200, deadline=None)
def test_it_is_the_best_of_all_combinations(layers, capacity):
    chosen = choose(*split(layers), capacity)
    wanted = best(layers, capacity)
    if wanted is None:
        assert chosen is None
    else:
        assert told(layers, chosen) == wanted


@given(st.lists(LAYER, min_size=1, max_size=5), st.integers(1, 40), st.integers(8, 30))
@settings(max_examples=200, deadline=None)
def test_with_few_states_it_keeps_the_budget_and_its_bound(layers, capacity, states):
    chosen = choose(*split(layers), capacity, states=states)
    if chosen is None:
        assert best(layers, capacity) is None
        return
    loss, cost = told(layers, chosen)
    assert cost <= capacity
    bound = best(layers, capacity * (1 - len(layers) / states))
    if bound is not None:
        assert loss <= bound[0]


def test_few_states_can_cost_something():
    """Otherwise the test of the bound would prove nothing about thinning."""
    layers = [[(0, 10), (5, 9)], [(0, 20), (6, 0)]]
    costs = split(layers)
    assert told(layers, choose(*costs, 10)) == best(layers, 10) == (10, 6)
    assert told(layers, choose(*costs, 10, states=1)) == (29, 5)


def test_of_equal_options_the_earlier_one_and_of_equal_losses_the_cheapest():
    assert choose([[1, 1, 1]], [[2, 2, 2]], 5) == [0]
    assert choose([[3, 1, 2]], [[2, 2, 2]], 5) == [1]


def test_no_layers_and_no_room():
    assert choose([], [], 0) == []
    assert choose([[1]], [[0]], 0.5) is None


@pytest.mark.parametrize(
    ("costs", "losses", "words"),
    [
        ([[1]], [], "must name the same options"),
        ([[1]], [[1, 2]], "must name the same options"),
        ([[]], [[]], "at least one for each layer"),
        ([[-1]], [[0]], "must be finite and not negative"),
        ([[float("nan")]], [[0]], "must be finite"),
        ([[0]], [[float("inf")]], "losses finite"),
    ],
)
def test_mistakes_are_named(costs, losses, words):
    with pytest.raises(ValueError, match=words):
        choose(costs, losses, 1)
