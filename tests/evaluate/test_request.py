"""An evaluation as a request from Python: the same measurements, files and refusals as on the command line."""

from __future__ import annotations

import csv
import io
import json
import re

import numpy as np
import pytest

from seedcnn.bundle import Preprocessing
from seedcnn.data.image_set import ImageSet, Unreadable
from seedcnn.data.sets.named import NamedTest
from seedcnn.errors import ConfigError, DataError
from seedcnn.evaluate import EvaluateRequest, Opened, accuracy, robustness_seeds
from seedcnn.evaluate.papers import paper_rows
from seedcnn.evaluate.report import report_evaluation
from seedcnn.models import create_model

CLASSES = tuple("abcdefghij")
WEIGHT = np.random.default_rng(0).normal(size=(3, 10)).astype(np.float32)
KINDS = ("gaussian_noise", "contrast")


def by_colour(images):
    return (images.mean((1, 2)) @ WEIGHT).astype(np.float32)


def by_red(images):
    return by_colour(images * np.array([1, 0, 0], np.uint8))


@pytest.fixture(scope="module")
def test():
    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (24, 32, 32, 3), np.uint8), rng.integers(0, 10, 24)
    styles = np.array(["apple", "google"] * 12)
    skipped = (Unreadable("a/b.png", "not an image"),)
    held = ImageSet(images, labels, CLASSES, "drawn", styles, skipped=skipped)
    return NamedTest("cifar10", held, Preprocessing.exact(32, mean=0.5, std=0.25), held_out=("apple",))


@pytest.fixture(scope="module")
def models():
    network = create_model("resnet18_cifar")
    return {
        "colour": Opened(by_colour, "sha256 1", "ONNX"),
        "red": Opened(by_red, "sha256 2", "checkpoint", network, ("resnet18_cifar", "groupnl"), 1234),
    }


@pytest.fixture(scope="module")
def found(test, models):
    return EvaluateRequest(corruptions=KINDS, images=10, seeds=2).measure(models, test)


def test_everything_is_measured(found, test, models):
    held = test.test
    predictors = {name: model.predict for name, model in models.items()}
    expected = robustness_seeds(predictors, held.images, held.labels, seeds=(0, 1), corruptions=KINDS, max_images=10)
    for name, model in models.items():
        clean = accuracy(model.predict, held.images, held.labels)
        assert found.clean[name].top1 == clean.top1
        assert found.corrupted[name].to_dict() == expected[name].to_dict()
        assert found.styles[name].held_out == ("apple",)
        assert found.styles[name].accuracies["google"].n == 12
    rows = [row for data in ("cifar10", "cifar10-c") for row in paper_rows(data, "resnet18_cifar", "groupnl")]
    assert rows
    assert found.papers == {"red": rows}


def test_what_was_not_asked_for_is_empty(test, models):
    clean = EvaluateRequest(corruptions=()).measure(models, test)
    assert clean.corrupted == {}
    assert {row.dataset for row in clean.papers["red"]} == {"cifar10"}
    assert clean.to_csv().count("\n") == 1


def test_numbers_as_csv_and_json(found):
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert {row["model"] for row in rows} == {"colour", "red"}
    values = [float(r["value"]) for r in rows if (r["model"], r["corruption"], r["seed"]) == ("red", "contrast", "1")]
    assert values == pytest.approx(found.corrupted["red"].tables[1].accuracies["contrast"], abs=1e-4)
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["red"]["clean"] == found.clean["red"].top1
    assert plain["red"]["corrupted"]["seeds"] == [0, 1]
    assert [row["model"] for row in plain["red"]["papers"]] == ["resnet18_cifar"] * len(found.papers["red"])


def test_the_report_has_models_settings_and_samples(found, models, tmp_path):
    html = report_evaluation(tmp_path / "r.html", found, models, command="seedcnn evaluate a <b>").read_text("utf-8")
    assert html.count("data:image/png;base64,") == 8 + 20
    for words in (
        "cifar10, 24 of 32 x 32",
        "the first 10 of the test images, cifar constants",
        "sha256 2",
        "seedcnn evaluate a &lt;b&gt;",
        "a/b.png was left out: not an im",
    ):
        assert words in html
    assert "1,234" in html
    assert re.search(r"Learnable parameters.*not measured.*11,173,962", html)
    assert "<dt>Command</dt>" not in report_evaluation(tmp_path / "r.html", found, models).read_text("utf-8")


def test_a_model_that_does_not_fit_is_named(test):
    five = Opened(lambda images: by_colour(images)[:, :5], "sha256 3", "ONNX")
    with pytest.raises(DataError, match="five: the model answers 5 classes; the data have 10"):
        EvaluateRequest(corruptions=KINDS).measure({"five": five}, test)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"images": 0}, "`images` 0: it must be at least 1"),
        ({"seeds": 0}, "`seeds` 0: it must be at least 1"),
        ({"corruptions": ("rain",)}, "`corruptions` rain: it must be one of gaussian_noise"),
        ({"corruptions": ("fog", "fog")}, "`corruptions` fog,fog: none may be named twice"),
        ({"corruptions": (), "record": "r.json"}, "`record` r.json: it keeps corrupted accuracies"),
        ({"corrupted": "c", "seeds": 2}, "`corrupted` c: published images take a single seed"),
        ({"corrupted": "c", "corruptions": ()}, "`corrupted` c: published images take a single seed and at least"),
    ],
    ids=str,
)
def test_requests_that_contradict_themselves(fields, words):
    with pytest.raises(ConfigError, match=words):
        EvaluateRequest(**fields)


def test_data_is_loaded_by_name():
    with pytest.raises(ConfigError, match="unknown data 'cifar11'; did you mean cifar10"):
        EvaluateRequest(data="cifar11").load()
