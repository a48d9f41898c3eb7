"""mCE and its kin against AlexNet itself, published numbers and hand-made ones."""

from __future__ import annotations

import json

import numpy as np
import pytest

from seedcnn.data.corruptions import CORRUPTIONS
from seedcnn.evaluate._mce import FIGURES, STANDARD, alexnet, figures
from seedcnn.evaluate.robustness_runs import RobustnessTable, robustness

SEVERITIES = (1, 2, 3, 4, 5)
# The averages over severities that the authors print.
PRINTED = {
    "gaussian_noise": 0.886428, "shot_noise": 0.894468, "impulse_noise": 0.922640, "defocus_blur": 0.819880,
    "glass_blur": 0.826268, "motion_blur": 0.785948, "zoom_blur": 0.798360, "snow": 0.866816, "frost": 0.826572,
    "fog": 0.819324, "brightness": 0.564592, "contrast": 0.853204, "elastic_transform": 0.646056,
    "pixelate": 0.717840, "jpeg_compression": 0.606500, "speckle_noise": 0.845388, "gaussian_blur": 0.787108,
    "spatter": 0.717512, "saturate": 0.658248,
}  # fmt: skip


def table(errors, names=tuple(CORRUPTIONS), severities=SEVERITIES, clean=None):
    """A table of a model with these errors (shares) by corruption and severity."""
    rows = {name: tuple(100 - 100 * errors(name, s) for s in severities) for name in names}
    return RobustnessTable(rows, tuple(severities), 1000, "imagenet", 0, None, clean)


def of_alexnet(name, severity):
    return alexnet().errors[name][severity - 1]


def test_the_standard_ones_are_the_first_fifteen_printed():
    assert set(STANDARD) == set(list(PRINTED)[:15])
    assert set(PRINTED) == set(CORRUPTIONS)
    assert alexnet().source.startswith("top-1 errors of AlexNet")


def test_averages_are_the_printed_ones():
    assert {name: alexnet().mean(name) for name in PRINTED} == pytest.approx(PRINTED, abs=1e-6)


def test_alexnet_has_100():
    found = table(of_alexnet, clean=100 - 100 * alexnet().clean).figures
    for name in ("mce_15", "mce_19", "relative_mce_15", "relative_mce_19"):
        assert found[name] == pytest.approx(100)
    assert found["mean_error_15"] == pytest.approx(100 * np.mean(list(PRINTED.values())[:15]))
    assert found["mean_error_19"] == pytest.approx(100 * np.mean(list(PRINTED.values())))


def test_mce_of_a_table_by_hand():
    """CE is a ratio of sums: not the mean of the ratios by severity."""
    found = table(lambda name, severity: 0.1 * severity, clean=95.0).figures
    assert found["mean_error_15"] == pytest.approx(30)
    assert found["mean_error_19"] == pytest.approx(30)
    rows = list(PRINTED.values())
    assert found["mce_15"] == pytest.approx(np.mean([100 * 0.3 / e for e in rows[:15]]))
    assert found["mce_19"] == pytest.approx(np.mean([100 * 0.3 / e for e in rows]))
    assert found["relative_mce_15"] == pytest.approx(np.mean([100 * (0.3 - 0.05) / (e - 0.43478) for e in rows[:15]]))
    assert found["relative_mce_19"] == pytest.approx(np.mean([100 * (0.3 - 0.05) / (e - 0.43478) for e in rows]))
    other_way = np.mean([100 * np.mean([0.1 * s / of_alexnet(name, s) for s in SEVERITIES]) for name in STANDARD])
    assert abs(found["mce_15"] - other_way) > 1


def test_the_order_of_severities_does_not_matter():
    forth = table(lambda name, severity: 0.1 * severity, clean=95.0).figures
    back = table(lambda name, severity: 0.1 * severity, severities=SEVERITIES[::-1], clean=95.0).figures
    assert forth == pytest.approx(back)


def test_never_a_number_over_a_subset():
    whole = dict.fromkeys(FIGURES, True)
    none = {name: name.startswith("mean_over") for name in FIGURES}

    def there(**options):
        return {name: value is not None for name, value in table(of_alexnet, **options).figures.items()}

    assert there(clean=50.0) == whole
    assert there() == {name: not name.startswith("relative") for name in FIGURES}
    assert there(clean=50.0, names=STANDARD) == {name: not name.endswith("19") for name in FIGURES}
    assert there(clean=50.0, names=STANDARD[:-1]) == none
    assert there(clean=50.0, names=tuple(CORRUPTIONS)[1:]) == none
    assert there(clean=50.0, severities=(1, 2, 3, 4)) == none


def test_json_and_csv_carry_them():
    found = table(of_alexnet, names=STANDARD)
    values = json.loads(json.dumps(found.to_dict()))
    assert values["mce_15"] == pytest.approx(100)
    assert values["mce_19"] is None
    lines = dict(line.split(",")[::4][:2] for line in found.to_csv().splitlines() if not line.startswith("accuracy"))
    assert float(lines["mce_15"]) == pytest.approx(100)
    assert lines["mce_19"] == ""


def test_the_mean_over_pictures_of_scores_is_the_figure():
    images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    labels = np.random.default_rng(1).integers(0, 4, 12)

    def predict(batch):
        return np.eye(4, dtype=np.float32)[batch.sum(axis=(1, 2, 3), dtype=np.int64) // 50 % 4]

    names = [name for name in STANDARD if name != "frost"]
    rows = robustness(predict, images, labels, corruptions=names)
    # Frost needs a download; its answers here are those of snow.
    right = {**rows.right, "frost": rows.right["snow"]}
    whole = RobustnessTable(
        {**rows.accuracies, "frost": rows.accuracies["snow"]}, SEVERITIES, 12, "cifar", 0, None, rows.clean, right,
        rows.clean_right,
    )  # fmt: skip
    scores = whole.image_scores()
    assert set(scores) == {name for name in FIGURES if not name.endswith("19")}
    for name, score in scores.items():
        assert score.shape == (12,)
        assert score.mean() == pytest.approx(whole.figures[name])
    assert figures(whole.corruption_means, None, complete=True)["relative_mce_15"] is None
