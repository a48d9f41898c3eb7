"""Accuracy by style: against counts by hand, one pass, and every way the styles can be wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest

from seedcnn.errors import DataError
from seedcnn.evaluate.accuracies import accuracy
from seedcnn.evaluate.styles import StyleTable, accuracy_by_style

STYLES = np.array(["google", "apple", "apple", "samsung", "google", "apple", "google", "apple"])
LABELS = np.array([0, 1, 2, 3, 0, 1, 3, 0])


@pytest.fixture
def images():
    pictures = np.zeros((8, 4, 4, 3), np.uint8)
    pictures[:, 0, 0, 0] = [0, 1, 2, 3, 1, 1, 2, 1]  # pictures 4 and 6 of google and 7 of apple are told wrong
    return pictures


def by_first_pixel(images):
    """Predicts the class written in the first pixel, of six."""
    return np.eye(6, dtype=np.float32)[images[:, 0, 0, 0]]


def test_counts_by_hand(images):
    table = accuracy_by_style(by_first_pixel, images, LABELS, STYLES, held_out=("apple", "google"))
    assert list(table.accuracies) == ["apple", "google", "samsung"]
    assert {style: (each.n, each.top1) for style, each in table.accuracies.items()} == {
        "apple": (4, pytest.approx(75)),
        "google": (3, pytest.approx(100 / 3)),
        "samsung": (1, pytest.approx(100)),
    }
    assert table.accuracies["apple"].correct.tolist() == [True, True, True, False]
    for style, each in table.accuracies.items():
        alone = accuracy(by_first_pixel, images[style == STYLES], LABELS[style == STYLES])
        assert (each.top1, each.top5, each.standard_error) == (alone.top1, alone.top5, alone.standard_error)
    # Each style once, whatever its number of pictures: not (3 + 1) / 7.
    assert table.mean_held_out == pytest.approx((75 + 100 / 3) / 2)
    errors = [100 * (0.75 * 0.25 / 4) ** 0.5, 100 * (1 / 3 * 2 / 3 / 3) ** 0.5]
    assert table.standard_error == pytest.approx((errors[0] ** 2 + errors[1] ** 2) ** 0.5 / 2)


@pytest.mark.parametrize(("batch_size", "calls"), [(3, 3), (8, 1), (500, 1)])
def test_one_pass(images, batch_size, calls):
    asked = []

    def counting(batch):
        asked.append(len(batch))
        return by_first_pixel(batch)

    table = accuracy_by_style(counting, images, LABELS, STYLES.tolist(), batch_size=batch_size)
    assert (len(asked), sum(asked)) == (calls, 8)
    assert table.held_out == ()
    assert table.mean_held_out is None
    assert table.standard_error is None


def test_one_network_for_each_style(images):
    """The papers' protocol: each accuracy is of the network that did not see the style."""
    parts = {
        style: accuracy_by_style(by_first_pixel, images[style == STYLES], LABELS[style == STYLES], [style] * count)
        for style, count in (("apple", 4), ("samsung", 1))
    }
    table = StyleTable({style: part.accuracies[style] for style, part in parts.items()}, ("samsung", "apple"))
    assert table.mean_held_out == pytest.approx((75 + 100) / 2)


def test_dict(images):
    table = accuracy_by_style(by_first_pixel, images, LABELS, STYLES, held_out=["apple"])
    content = json.loads(json.dumps(table.to_dict()))
    assert content["accuracies"]["samsung"] == {"top1": 100.0, "top5": 100.0, "n": 1, "standard_error": 0.0}
    assert list(content["accuracies"]) == ["apple", "google", "samsung"]
    assert content["held_out"] == ["apple"]
    assert content["mean_held_out"] == pytest.approx(75)
    assert content["standard_error"] == table.accuracies["apple"].standard_error


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"styles": STYLES[:7]}, r"`styles` is <U7 \(7,\); it must hold one string for each image, \(8,\)"),
        ({"styles": np.arange(8)}, r"`styles` is int64 \(8,\)"),
        ({"styles": STYLES[:, None]}, r"`styles` is <U7 \(8, 1\)"),
        (
            {"held_out": ("aple",)},
            r"`held_out` holds 'aple'; did you mean apple\? the styles are apple, google, samsung$",
        ),
        ({"held_out": ("windows",)}, "`held_out` holds 'windows'; the styles are apple"),
        ({"held_out": ("apple", "google", "apple")}, r"`held_out` \(=\('apple', 'google', 'apple'\)\) must not name"),
        ({"held_out": "apple"}, r"`held_out` \(='apple'\) must be a sequence of styles"),
        ({"labels": LABELS[:7]}, r"`labels` is int64 \(7,\)"),
        ({"batch_size": 0}, r"`batch_size` \(=0\)"),
    ],
)
def test_wrong_arguments_before_anything_is_computed(images, more, words):
    def never(batch):
        raise AssertionError("computed")

    with pytest.raises(ValueError, match=words):
        accuracy_by_style(never, images, **{"labels": LABELS, "styles": STYLES, **more})


def test_wrong_tables(images):
    apple = accuracy(by_first_pixel, images, LABELS)
    with pytest.raises(ValueError, match="`held_out` holds 'google'; the styles are apple"):
        StyleTable({"apple": apple}, ("google",))
    with pytest.raises(ValueError, match="`accuracies` is empty"):
        StyleTable({})


def test_no_pictures():
    with pytest.raises(ValueError, match="`images` is empty"):
        accuracy_by_style(by_first_pixel, np.zeros((0, 4, 4, 3), np.uint8), np.zeros(0, int), np.zeros(0, "U1"))


def test_wrong_data_name_the_picture_among_all(images):
    labels = LABELS.copy()
    labels[6] = 9
    with pytest.raises(DataError, match="label of image 6 is 9; the model answers 6 classes"):
        accuracy_by_style(by_first_pixel, images, labels, STYLES)
    with pytest.raises(DataError, match="answers 6 classes; the data have 50"):
        accuracy_by_style(by_first_pixel, images, LABELS, STYLES, num_classes=50)
