"""Mean IoU by hand and against a plain count."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from seedcnn.data import load_segmentation
from seedcnn.errors import DataError
from seedcnn.evaluate import mean_iou

CLASSES = ("sky", "road", "car")


def test_by_hand():
    truth = np.array([[0, 0, 1, 1], [0, 0, 255, 1]])
    found = np.array([[0, 1, 1, 1], [0, 0, 2, 0]])
    result = mean_iou([truth], [found], classes=CLASSES)
    # sky: 3 right, 1 missed, 1 too many; road: 2 right, 1 missed, 1 too many; a car only where nothing counts.
    assert result.by_class == {"sky": pytest.approx(3 / 5), "road": pytest.approx(2 / 4), "car": None}
    assert result.miou == pytest.approx((3 / 5 + 2 / 4) / 2)
    assert result.pixel_accuracy == pytest.approx(5 / 7)
    assert result.confusion.tolist() == [[3, 1, 0], [1, 2, 0], [0, 0, 0]]
    assert (result.pictures, result.pixels) == (1, 7)
    assert result.notes == ("neither truth nor prediction holds car; the mean is over the others",)
    assert repr(result) == "MeanIoU(mIoU 55.0, pixel accuracy 71.4, 1 picture)"
    assert "mIoU 55.0" in result._repr_html_()


def test_a_class_that_is_only_predicted_counts():
    result = mean_iou([[[0, 0]]], [[[0, 2]]], classes=CLASSES)
    assert result.by_class == {"sky": 0.5, "road": None, "car": 0}
    assert result.miou == 0.25


def test_against_a_plain_count():
    rng = np.random.default_rng(0)
    truth = [rng.choice([0, 1, 2, 3, 255], (7 + n, 9)) for n in range(5)]
    found = [np.where(rng.random(each.shape) < 0.6, each, 1) for each in truth]
    found = [np.where(each == 255, 2, each).astype(np.int64) for each in found]
    result = mean_iou(truth, found, classes="abcd")
    pixels = [
        (a, b) for each, other in zip(truth, found, strict=True) for a, b in zip(each.flat, other.flat, strict=True)
    ]
    pixels = [(a, b) for a, b in pixels if a != 255]
    for label, name in enumerate("abcd"):
        both = sum(a == label and b == label for a, b in pixels)
        either = sum(label in pair for pair in pixels)
        assert result.by_class[name] == pytest.approx(both / either)
    assert result.pixel_accuracy == pytest.approx(np.mean([a == b for a, b in pixels]))


def test_the_interval():
    rng = np.random.default_rng(0)
    truth = [rng.integers(0, 2, (8, 8)) for _ in range(30)]
    found = [np.where(rng.random((8, 8)) < rng.random(), each, 1 - each) for each in truth]
    result = mean_iou(truth, found, classes="ab", bootstrap=200, seed=5)
    low, high = result.interval
    assert low < result.miou < high
    assert result.interval == mean_iou(truth, found, classes="ab", bootstrap=200, seed=5).interval
    assert result.interval != mean_iou(truth, found, classes="ab", bootstrap=200, seed=6).interval
    same = mean_iou(truth[:1] * 9, found[:1] * 9, classes="ab", bootstrap=20)
    assert same.interval == (pytest.approx(same.miou), pytest.approx(same.miou))
    assert "[" in repr(result)


def test_a_set(tmp_path):
    for name in ("train", "train_masks"):
        (tmp_path / name).mkdir()
    mask = np.array([[0, 1], [1, 7]], np.uint8)
    for name in ("a", "b"):
        Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(tmp_path / f"train/{name}.png")
        Image.fromarray(mask).save(tmp_path / f"train_masks/{name}.png")
    (tmp_path / "classes.json").write_text('{"classes": ["x", "y"], "ignore": 7}')
    data = load_segmentation(tmp_path, "pairs")
    right = [[0, 1], [1, 1]]
    assert mean_iou(data, [right, right]).miou == 1
    assert mean_iou(data, (each for each in [right, right])).pixels == 6
    with pytest.raises(DataError, match=r"the prediction of train/b\.png has 3 x 2 pixels; its truth has 2 x 2"):
        mean_iou(data, [right, [[0, 1, 1], [1, 1, 1]]])
    with pytest.raises(DataError, match=r"the prediction of train/a\.png has the index 2; there are 2 classes, 0 to 1"):
        mean_iou(data, [[[2, 1], [1, 1]], right])
    with pytest.raises(DataError, match="the network has 19 classes and the data have 2"):
        mean_iou(data, [right, right], num_classes=19)
    with pytest.raises(ValueError, match=r"`classes` .* are not those of `truth`"):
        mean_iou(data, [right, right], classes=("a", "b"))
    with pytest.raises(ValueError, match="`predictions` has 1 maps and `truth` more"):
        mean_iou(data, [right])
    with pytest.raises(ValueError, match="`predictions` has more maps than `truth`, which has 2"):
        mean_iou(data, [right] * 3)


def test_bad_arguments():
    with pytest.raises(DataError, match="no pixel of 1 picture counts"):
        mean_iou([[[255]]], [[[0]]], classes=CLASSES)
    with pytest.raises(DataError, match="the truth of picture 0 has the index 9; there are 3 classes"):
        mean_iou([[[9]]], [[[0]]], classes=CLASSES)
    assert mean_iou([[[9, 1]]], [[[0, 1]]], classes=CLASSES, ignore=9).miou == 1
    with pytest.raises(DataError, match=r"the prediction of picture 0 is float64 \(1, 1\); it must be integers"):
        mean_iou([[[0]]], [[[0.5]]], classes=CLASSES)
    with pytest.raises(ValueError, match="`truth` has no picture"):
        mean_iou([], [], classes=CLASSES)
    for classes in (None, (), ("a", "a")):
        with pytest.raises(ValueError, match="`classes`"):
            mean_iou([[[0]]], [[[0]]], classes=classes)
    with pytest.raises(ValueError, match=r"`bootstrap` \(=-2\)"):
        mean_iou([[[0]]], [[[0]]], classes=CLASSES, bootstrap=-2)
