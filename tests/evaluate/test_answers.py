"""A model's answers: by class, confusion, the worst, and beside another model, against counts made by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from seedcnn.data.image_set import ImageSet
from seedcnn.errors import DataError
from seedcnn.evaluate import Answers, accuracy, ask

CLASSES = ("cat", "dog <b>", "fox", "owl")
LABELS = np.array([0, 0, 0, 1, 1, 2])


def logits(*said, sure=2.0):
    """One answer for each image, ``sure`` above the others."""
    return np.stack([np.where(np.arange(4) == each, sure + i, 0) for i, each in enumerate(said)]).astype(np.float32)


def made(*said, **options):
    return Answers(logits(*said, **options), LABELS, CLASSES, np.array([f"{i}.png" for i in range(6)]))


def test_confusion_and_accuracy_by_class():
    found = made(0, 1, 1, 1, 0, 2)
    assert found.confusion.tolist() == [[1, 2, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert [each.name for each in found.by_class] == list(CLASSES)
    assert [(each.n, each.answered) for each in found.by_class] == [(3, 2), (2, 3), (1, 1), (0, 0)]
    assert [each.top1 for each in found.by_class] == [pytest.approx(100 / 3), 50.0, 100.0, None]
    assert found.by_class[1].standard_error == pytest.approx(100 * math.sqrt(0.25 / 2))
    assert found.by_class[2].standard_error == pytest.approx(100 * math.sqrt(0.75 * 0.25))  # one of one proves little
    assert found.by_class[3].standard_error is None
    pairs = [(each.label, each.answer, each.count) for each in found.confused()]
    assert pairs == [("cat", "dog <b>", 2), ("dog <b>", "cat", 1)]
    assert len(found.confused(1)) == 1
    assert found.top1 == 50.0


def test_of_many_classes_the_hardest_are_shown():
    said = np.arange(60)
    said[[7, 30]] = 0
    many = Answers(np.eye(60, dtype=np.float32)[said], np.arange(60), tuple(f"c{i}" for i in range(60)))
    assert many.hardest()[:3] == [7, 30, 0]
    assert len(many.hardest()) == 50
    assert many.hardest(2) == [7, 30]
    assert made(0, 1, 1, 1, 0, 2).hardest() == [0, 1, 2, 3]


def test_the_worst_answers_come_first_and_are_wrong():
    found = made(0, 1, 1, 1, 0, 2)
    worst = found.worst(2)
    assert [each.index for each in worst] == [4, 2]  # the surest of the wrong answers
    assert [(each.name, each.label, each.answer) for each in worst] == [
        ("4.png", "dog <b>", "cat"), ("2.png", "cat", "dog <b>"),
    ]  # fmt: skip
    share = math.exp(6) / (math.exp(6) + 3)
    assert worst[0].confidence == pytest.approx(share)
    assert worst[0].of_label == pytest.approx(1 / (math.exp(6) + 3))
    assert [each.index for each in found.worst()] == [4, 2, 1]
    assert made(*LABELS).worst() == ()


def test_infinite_logits_have_shares():
    values = np.array([[np.inf, 0, -np.inf, 0], [np.inf, np.inf, 0, 0]], np.float32)
    found = Answers(values, np.array([1, 0]), CLASSES)
    assert found.of_labels.tolist() == [0.0, 0.5]
    assert [each.index for each in found.worst()] == [0]


def test_two_models_are_compared_image_by_image():
    first, second = made(0, 1, 1, 1, 0, 2), made(0, 0, 1, 2, 1, 2)
    less = second.less(first)
    gained = np.array([0, 100, 0, -100, 100, 0])
    assert (less.won, less.lost) == (2, 1)
    assert less.points == pytest.approx(gained.mean()) == pytest.approx(second.top1 - first.top1)
    assert less.standard_error == pytest.approx(gained.std() / math.sqrt(6))
    assert first.less(first).points == 0
    assert first.less(first).standard_error == pytest.approx(100 / 6)
    with pytest.raises(ValueError, match="`other` answers 2 images with other labels"):
        first.less(Answers(logits(0, 1), np.array([0, 1]), CLASSES))


def test_a_set_of_images_is_answered():
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (6, 4, 4, 1), np.uint8)
    images = ImageSet(pictures, LABELS, CLASSES, "drawn", names=np.array(list("abcdef")))

    def predict(batch):
        return np.stack([batch.mean((1, 2, 3)), batch[:, 0, 0, 0], batch[:, 1, 1, 0], batch[:, 2, 2, 0]], 1) / 255.0

    sizes = []

    def counted(batch):
        sizes.append(len(batch))
        return predict(batch)

    found = ask(counted, images, batch_size=4)
    assert sizes == [4, 2]
    assert found.top1 == accuracy(predict, pictures, LABELS).top1
    assert found.worst()[0].name in "abcdef"
    with pytest.raises(DataError, match="the model answers 3 classes; the data have 4"):
        ask(lambda batch: predict(batch)[:, :3], images)


def test_json_and_notebook():
    found = made(0, 1, 1, 1, 0, 2)
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["confusion"] == found.confusion.tolist()
    assert plain["worst"][0]["answer"] == "cat"
    assert plain["by_class"]["owl"] == {"n": 0, "top1": None, "standard_error": None}
    html = found._repr_html_()
    assert "dog &lt;b&gt; (2)" in html
    assert "<b>" not in html
    assert "no image" in html
    assert repr(found) == "Answers(top1=50.00 ± 20.41 %, n=6, classes=4)"
    many = Answers(np.eye(60, dtype=np.float32), np.arange(60), tuple(f"c{i}" for i in range(60)))
    assert "confusion" not in many.to_dict()
    assert "and 10 classes more" in many._repr_html_()
