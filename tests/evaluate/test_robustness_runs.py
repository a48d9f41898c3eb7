"""Robustness tables against a plain loop, and their averages against hand-made numbers."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest

from seedcnn.data.corruptions import corrupt
from seedcnn.errors import DataError
from seedcnn.evaluate.robustness_runs import RobustnessTable, robustness, robustness_many, robustness_seeds

SOME = ("gaussian_noise", "gaussian_blur", "contrast", "pixelate")


def fine(images):
    """One-hot logits of four classes that any change of a picture's sum changes."""
    return np.eye(4, dtype=np.float32)[images.sum(axis=(1, 2, 3), dtype=np.int64) % 4]


def coarse(images):
    return np.eye(4, dtype=np.float32)[images.sum(axis=(1, 2, 3), dtype=np.int64) // 50 % 4]


def test_equal_to_a_plain_loop(images, labels):
    tables = robustness_many({"fine": fine, "coarse": coarse}, images, labels, corruptions=SOME, seed=3, batch_size=7)
    assert list(tables) == ["fine", "coarse"]
    for name in SOME:
        for severity in range(1, 6):
            pictures = corrupt(images, name, severity, seed=3)
            for model, predict in (("fine", fine), ("coarse", coarse)):
                expected = 100 * np.mean(predict(pictures).argmax(axis=1) == labels)
                assert tables[model].accuracies[name][severity - 1] == pytest.approx(expected)
    assert 0 < tables["fine"].mean_over_corruptions < 100
    assert tables["fine"] != tables["coarse"]


def test_one_model_alone_and_any_batch_size(images, labels):
    together = robustness_many({"fine": fine, "coarse": coarse}, images, labels, corruptions=SOME)
    assert robustness(fine, images, labels, corruptions=SOME, batch_size=1) == together["fine"]
    assert robustness(coarse, images, labels, corruptions=SOME, batch_size=1000) == together["coarse"]


def test_each_batch_is_corrupted_once_for_all_models(images, labels):
    seen = {"a": [], "b": []}

    def watch(key):
        def predict(batch):
            seen[key].append(batch)
            return fine(batch)

        return predict

    robustness_many({key: watch(key) for key in seen}, images, labels, corruptions=SOME, batch_size=16)
    assert len(seen["a"]) == len(seen["b"]) == 2 * (1 + 4 * 5)  # clean, then each condition
    assert all(np.shares_memory(a, b) for a, b in zip(seen["a"], seen["b"], strict=True))
    assert max(len(batch) for batch in seen["a"]) == 16


def test_options_have_their_effect(images, labels):
    def run(**options):
        return robustness(fine, images, labels, **({"corruptions": SOME} | options))

    part = run(corruptions=["contrast"], severities=(5, 2), max_images=11)
    assert list(part.accuracies) == ["contrast"]
    assert part.severities == (5, 2)
    assert part.n == 11
    alone = fine(corrupt(images[:11], "contrast", 5)).argmax(axis=1) == labels[:11]
    assert part.accuracies["contrast"][0] == pytest.approx(100 * alone.mean())
    assert run(max_images=10**9).n == 30


def test_seed_and_constants_reach_the_corruption(images, labels):
    noisy = {"corruptions": ["gaussian_noise"], "severities": [1, 2]}
    for options in ({"seed": 1}, {"seed": 2}, {"constants": "imagenet"}):
        pictures = [corrupt(images, "gaussian_noise", severity, **options) for severity in (1, 2)]
        expected = tuple(100 * np.mean(fine(p).argmax(axis=1) == labels) for p in pictures)
        assert robustness(fine, images, labels, **noisy, **options).accuracies["gaussian_noise"] == pytest.approx(
            expected
        )
        assert expected != pytest.approx(robustness(fine, images, labels, **noisy).accuracies["gaussian_noise"])


def test_progress(images, labels, stages):
    robustness(fine, images, labels, corruptions=SOME, severities=[1, 3], batch_size=20, progress=stages)
    clean, corrupted = stages.said
    assert clean == ("the same images, clean", 30, [(20, ""), (10, "")])
    what, total, done = corrupted
    assert (what, total) == ("corrupted images", 240)
    assert [amount for amount, _ in done] == [20, 20, 10, 10] * 4
    assert [note for _, note in done[:4]] == [f"{SOME[0]} 1", f"{SOME[0]} 3"] * 2


TABLE = RobustnessTable(
    {
        "gaussian_noise": (90.0, 50.0),
        "gaussian_blur": (80.0, 60.0),
        "contrast": (40.0, 20.0),
        "pixelate": (100.0, 80.0),
    },
    severities=(1, 5),
    n=200,
    constants="cifar",
    seed=4,
    standard_error=1.5,
)


def test_averages():
    assert TABLE.corruption_means == {"gaussian_noise": 70, "gaussian_blur": 70, "contrast": 30, "pixelate": 90}
    assert TABLE.group_means == {"Noise": 70, "Blur": 70, "Digital": 60}
    assert TABLE.mean_over_corruptions == pytest.approx(65)
    assert TABLE.mean_over_groups == pytest.approx(200 / 3)
    assert TABLE.severity_means == {1: 77.5, 5: 52.5}


def test_to_dict_and_csv():
    table = replace(TABLE, clean=95.5)
    values = json.loads(json.dumps(table.to_dict()))
    assert values["accuracies"]["contrast"] == [40, 20]
    assert values["groups"]["pixelate"] == "Digital"
    assert values["mean_over_corruptions"] == pytest.approx(65)
    assert values["mean_over_groups"] == pytest.approx(200 / 3)
    assert (values["n"], values["seed"], values["constants"], values["severities"]) == (200, 4, "cifar", [1, 5])
    assert (values["clean"], values["mce_15"], values["mean_error_19"]) == (95.5, None, None)
    rows = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert len(rows) == 1 + 8 + 8
    common = {"n": "200", "seed": "4"}
    assert rows[0] == {
        "measure": "accuracy", "corruption": "none", "group": "", "severity": "0", "value": "95.5000", **common
    }  # fmt: skip
    assert rows[6] == {
        "measure": "accuracy", "corruption": "contrast", "group": "Digital", "severity": "5", "value": "20.0000",
        **common,
    }  # fmt: skip
    figures = {row["measure"]: row["value"] for row in rows[9:]}
    assert figures["mean_over_corruptions"] == "65.0000"
    assert figures["relative_mce_15"] == ""


def test_standard_error_is_the_spread_over_pictures(images, labels):
    def half(batch):
        return np.tile(np.array([1, 0], np.float32), (len(batch), 1))

    truth = np.arange(30) % 2
    assert robustness(half, images, truth, corruptions=SOME).standard_error == pytest.approx(
        100 * truth.std(ddof=1) / 30**0.5
    )
    assert robustness(half, images, truth, corruptions=SOME, max_images=1).standard_error is None


def test_clean_accuracy_is_of_the_same_pictures(images, labels):
    table = robustness(fine, images, labels, corruptions=SOME, max_images=13, batch_size=5)
    right = fine(images[:13]).argmax(axis=1) == labels[:13]
    assert table.clean == pytest.approx(100 * right.mean())
    np.testing.assert_array_equal(table.clean_right, right)
    assert {name: rows.shape for name, rows in table.right.items()} == dict.fromkeys(SOME, (5, 13))


def test_faults_name_model_corruption_and_picture(images, labels):
    def broken(batch):
        logits = fine(batch)
        if np.array_equal(batch[-1], corrupt(images, "contrast", 2)[29]):
            logits[-1] = np.nan
        return logits

    with pytest.raises(DataError, match="model 'b' under contrast 2: the model's logits for image 29 hold NaN"):
        robustness_many({"a": fine, "b": broken}, images, labels, corruptions=SOME, batch_size=8)
    outside = labels.copy()
    outside[12] = 4
    with pytest.raises(DataError, match="the label of image 12 is 4; the model answers 4 classes"):
        robustness(fine, images, outside, corruptions=SOME, batch_size=8)


def test_missing_frost_is_told_before_a_model_is_asked(images, labels, tmp_path):
    calls = []

    def counting(batch):
        calls.append(len(batch))
        return fine(batch)

    with pytest.raises(DataError, match=r"frost1\.png cannot be read"):
        robustness(counting, images, labels, corruptions=[*SOME, "frost"], frost_dir=tmp_path)
    assert not calls


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"corruptions": ["rain"]}, "`corruptions` holds 'rain'; known: gaussian_noise"),
        ({"corruptions": []}, "`corruptions`"),
        ({"corruptions": "contrast"}, r"`corruptions` \(='contrast'\) must be a sequence"),
        ({"severities": [0]}, "`severities` holds 0; known: 1, 2, 3, 4, 5"),
        ({"severities": [1, 1]}, "none of them twice"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"max_images": 0}, "`max_images`"),
        ({"labels": [1]}, "`labels`"),
        ({"images": np.zeros((0, 8, 8, 3), np.uint8), "labels": np.zeros(0, int)}, "`images` is empty"),
        ({"images": np.zeros((30, 8, 8), np.uint8)}, "`images`"),
        ({"constants": "svhn"}, "`constants`"),
        ({"predictors": {}}, "`predictors` is empty"),
        ({"seeds": []}, r"`seeds` \(=\[\]\)"),
        ({"seeds": [-1]}, r"`seed` \(=-1\)"),
    ],
)
def test_wrong_arguments(images, labels, change, words):
    with pytest.raises(ValueError, match=words):
        robustness_seeds(**{"predictors": {"m": fine}, "images": images, "labels": labels, **change})
