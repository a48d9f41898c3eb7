"""Several seeds: single runs side by side, their spread, and the bootstrap over pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from seedcnn.evaluate.robustness_runs import RobustnessTable, SeededRobustness, robustness, robustness_seeds

SOME = ("gaussian_noise", "gaussian_blur", "contrast", "pixelate")
TABLE = RobustnessTable(
    dict(zip(SOME, [(90.0, 50.0), (80.0, 60.0), (40.0, 20.0), (100.0, 80.0)], strict=True)),
    (1, 5),
    200,
    "cifar",
    4,
    1.5,
)


def fine(images):
    """One-hot logits of four classes that any change of a picture's sum changes."""
    return np.eye(4, dtype=np.float32)[images.sum(axis=(1, 2, 3), dtype=np.int64) % 4]


def coarse(images):
    return np.eye(4, dtype=np.float32)[images.sum(axis=(1, 2, 3), dtype=np.int64) // 50 % 4]


def test_seeds_are_single_runs_side_by_side(images, labels):
    both = {"fine": fine, "coarse": coarse}
    found = robustness_seeds(both, images, labels, seeds=(3, 8), corruptions=SOME)
    for seed, table in zip((3, 8), found["coarse"].tables, strict=True):
        assert table == robustness(coarse, images, labels, corruptions=SOME, seed=seed)
    first, second = found["coarse"].tables
    assert first.accuracies["contrast"] == second.accuracies["contrast"]  # nothing random in it
    assert not np.array_equal(first.right["gaussian_noise"], second.right["gaussian_noise"])
    summary = found["coarse"].summary()["mean_over_corruptions"]
    values = [table.mean_over_corruptions for table in found["coarse"].tables]
    assert summary.mean == pytest.approx(np.mean(values))
    assert summary.std == pytest.approx(np.std(values, ddof=1))
    assert summary.interval[0] < summary.mean < summary.interval[1]
    assert found["coarse"].corruption_mean("pixelate") == pytest.approx(first.corruption_means["pixelate"])


def test_a_deterministic_corruption_is_measured_once_for_all_seeds(images, labels):
    calls = []

    def counting(batch):
        calls.append(len(batch))
        return fine(batch)

    robustness_seeds({"m": counting}, images, labels, seeds=range(3), corruptions=["contrast", "gaussian_noise"])
    assert len(calls) == 1 + 5 + 3 * 5


def test_interval_is_that_of_a_mean_over_pictures():
    """A model that is always right on some pictures: the bootstrap must find the binomial interval."""
    n, share = 400, 0.7
    truth = np.arange(n) % 10 < 10 * share
    right = {name: np.tile(truth, (5, 1)) for name in SOME}
    rows = dict.fromkeys(SOME, (100 * share,) * 5)
    table = RobustnessTable(rows, (1, 2, 3, 4, 5), n, "cifar", 0, None, right=right)
    summary = SeededRobustness((table,)).summary(draws=4000)["mean_over_groups"]
    half = 1.96 * 100 * (share * (1 - share) / n) ** 0.5
    assert summary.std is None
    assert summary.interval == pytest.approx((70 - half, 70 + half), abs=0.3)
    again, other = (SeededRobustness((table,)).summary(draws=50, seed=s)["mean_over_groups"] for s in (1, 2))
    assert again == SeededRobustness((table,)).summary(draws=50, seed=1)["mean_over_groups"]
    assert again != other
    wide = SeededRobustness((table,)).summary(level=0.5)["mean_over_groups"].interval
    assert wide[1] - wide[0] < half


def test_no_interval_without_answers_or_for_one_picture(images, labels):
    assert SeededRobustness((TABLE,)).summary()["mean_over_groups"].interval is None
    assert SeededRobustness((TABLE,)).summary()["mce_15"] is None
    one = robustness_seeds({"m": fine}, images, labels, corruptions=SOME, max_images=1)["m"]
    assert one.summary()["mean_over_groups"].interval is None


def test_seeded_results_are_of_one_evaluation():
    with pytest.raises(ValueError, match="only seeds may differ"):
        SeededRobustness((TABLE, replace(TABLE, n=100, seed=5)))
    with pytest.raises(ValueError, match="each may occur only once"):
        SeededRobustness((TABLE, TABLE))
    with pytest.raises(ValueError, match="`tables` is empty"):
        SeededRobustness(())
    for wrong in ({"draws": 1}, {"level": 1.0}):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}`"):
            SeededRobustness((TABLE,)).summary(**wrong)
