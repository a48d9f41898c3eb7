"""Accuracy lost between two networks: the soft drop estimates what is counted, with a fraction of its error."""

from __future__ import annotations

import numpy as np
import pytest

from seedcnn.pack.paired import drop_between, margin_of, softness


def margins(n, seed=0):
    """Margins of a network that is right for four images of five, and those of a noisier one."""
    rng = np.random.default_rng(seed)
    before = rng.normal(1.0, 1.2, n)
    return before, before + rng.normal(-0.01, 0.15, n)


def test_margins():
    logits = np.array([[1, 4, 2], [1, 4, 2], [3, 3, 0], [-1, -2, -7]], np.float32)
    assert margin_of(logits, np.array([1, 2, 0, 2])).tolist() == [2.0, -2.0, 0.0, -6.0]


def test_the_soft_drop_is_the_counted_one_with_a_smaller_error():
    before, after = margins(400_000)
    found = drop_between(before, after, softness(before), before > 0)
    assert found.drop == pytest.approx(found.lost, abs=4 * found.lost_error)
    assert found.error < found.lost_error / 2.5


def test_the_errors_are_those_of_repeated_samples():
    found = []
    for seed in range(300):
        before, after = margins(500, seed)
        found.append(drop_between(before, after, 0.3, before > 0))
    for value, error in (("drop", "error"), ("lost", "lost_error")):
        spread = np.std([getattr(each, value) for each in found])
        assert np.mean([getattr(each, error) for each in found]) == pytest.approx(spread, rel=0.15)


def test_no_change_loses_nothing_and_has_the_error_of_an_image():
    before, _ = margins(50)
    found = drop_between(before, before, softness(before), before > 0)
    assert (found.drop, found.error, found.lost, found.least_error, found.n) == (0, 0, 0, 2.0, 50)
    assert found.lost_error == pytest.approx(2.0)


def test_all_equal_margins_have_a_softness():
    assert softness(np.ones(5)) > 0


def test_a_network_that_answers_at_random_loses_most():
    before = np.full(1000, 3.0) + np.random.default_rng(0).normal(0, 0.5, 1000)
    after = np.random.default_rng(1).normal(-2, 2, 1000)
    found = drop_between(before, after, softness(before), before > 0)
    assert 75 < found.drop < 90
