"""AP against pycocotools' numbers on real annotations, against rules worked out by hand, and bad input."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedcnn.data import load_detection
from seedcnn.data.dense.detection_set import Object, from_lists
from seedcnn.data.dense.place import Place
from seedcnn.errors import DataError
from seedcnn.evaluate import Detections, average_precision

# Real annotations with crowds, made-up detections with equal scores, and pycocotools' numbers; its LICENSE is in it.
GOLDEN = Path(__file__).with_name("golden_ap.zip")
NONE = Detections([], [], [])


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """(truth, detections by picture, expected numbers)."""
    root = tmp_path_factory.mktemp("golden")
    with zipfile.ZipFile(GOLDEN) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    (root / "annotations").mkdir()
    (root / "annotations/golden.json").write_bytes(content["ground_truth.json"])
    truth = load_detection(root, "coco", verify=False)
    by_image = {identity: [] for identity in truth.image_ids.tolist()}
    for each in json.loads(content["detections.json"]):
        x, y, w, h = each["bbox"]
        label = truth.class_ids.index(each["category_id"])
        by_image[each["image_id"]].append(((x, y, x + w, y + h), label, each["score"]))
    found = [Detections(*zip(*rows, strict=True)) if rows else NONE for rows in by_image.values()]
    return truth, found, json.loads(content["expected.json"])


@pytest.fixture
def make(tmp_path):
    """A set of pictures of 100 x 100: ``make([[(box, label, crowd, difficult)], ...])``."""

    def build(*pictures, classes=("a", "b")):
        objects = [
            [
                Object(box, label, crowd, hard, (box[2] - box[0]) * (box[3] - box[1]), n)
                for n, (box, label, crowd, hard) in enumerate(each)
            ]
            for each in pictures
        ]
        n = len(pictures)
        files, ids = [f"{index}.jpg" for index in range(n)], range(1, n + 1)
        return from_lists(Place(tmp_path), files, [(100, 100)] * n, ids, objects, classes, range(len(classes)), "exif")

    return build


def thing(x=10, y=10, side=20, label=0, crowd=False, hard=False):
    return (x, y, x + side, y + side), label, crowd, hard


def found(*rows):
    """Rows of (x, score) or (x, score, label), each 20 x 20 from row 10."""
    full = [(row[0], row[1], row[2] if len(row) > 2 else 0) for row in rows]
    return Detections(
        [(x, 10, x + 20, 30) for x, _, _ in full], [label for *_, label in full], [score for _, score, _ in full]
    )


def test_the_golden_numbers(golden):
    truth, detections, expected = golden
    result = average_precision(truth, detections)
    assert list(result.numbers) == list(expected["metrics"])
    for name, value in expected["metrics"].items():
        assert result.numbers[name] == pytest.approx(value, abs=1e-9), name
    assert truth.crowd.sum() == 5
    for identity, value in expected["ap_by_category"].items():
        ours = result.by_class[truth.classes[truth.class_ids.index(int(identity))]]
        assert ours == (None if value is None else pytest.approx(value, abs=1e-9)), identity
    assert result.notes[0] == "2 of 80 classes have no object and are left out: hot dog, teddy bear"
    assert (result.pictures, result.objects, result.detections) == (79, 619, 798)
    assert "AP 31.0, AP50 46.1 (coco), 79 pictures" in repr(result)
    assert "AP 31.0" in result._repr_html_()


def test_the_order_of_pictures_changes_nothing(golden):
    truth, detections, expected = golden
    order = np.random.default_rng(3).permutation(len(truth))
    result = average_precision(truth.take(order), [detections[index] for index in order])
    assert result.numbers["AP"] == pytest.approx(expected["metrics"]["AP"], abs=1e-9)
    with pytest.raises(ValueError, match="`truth` has a picture twice"):
        average_precision(truth.take([0, 0]), [detections[0], detections[0]])


def test_intervals_over_pictures(golden):
    truth, detections, _ = golden
    result = average_precision(truth, detections, bootstrap=40, seed=1)
    low, high = result.intervals["AP"]
    assert low < result.numbers["AP"] < high
    assert 0.02 < high - low < 0.15
    assert result.intervals == average_precision(truth, detections, bootstrap=40, seed=1).intervals
    assert result.intervals != average_precision(truth, detections, bootstrap=40, seed=2).intervals
    voc = average_precision(truth, detections, rule="voc2010", bootstrap=40)
    assert voc.intervals["AP50"][0] < voc.numbers["AP50"] < voc.intervals["AP50"][1]
    assert not average_precision(truth, detections).intervals
    assert "AP 31.0 [" in repr(result)


def test_equal_pictures_have_no_spread(make):
    truth = make(*[[thing()]] * 5)
    result = average_precision(truth, [found((14, 0.9))] * 5, bootstrap=20)
    assert result.intervals["AP"] == (pytest.approx(result.numbers["AP"]),) * 2
    assert result.numbers["AP"] == pytest.approx(0.4)  # IoU 2/3: thresholds .5 to .65


def test_voc_by_hand(make):
    """Of four objects two are found: right, wrong, right, twice the same."""
    truth = make([thing(), thing(50), thing(70, 60), thing(5, 70)])
    detections = [found((10, 0.9), (30, 0.8), (50, 0.7), (51, 0.6))]
    # Precision 1 at recall 1/4, and 2/3 at 1/2: at 0, .1, .2 it is 1, at .3, .4, .5 it is 2/3, then 0.
    eleven = average_precision(truth, detections, rule="voc2007")
    assert eleven.numbers["AP50"] == pytest.approx((3 * 1 + 3 * 2 / 3) / 11)
    area = average_precision(truth, detections, rule="voc2010")
    assert area.numbers["AP50"] == pytest.approx(1 / 4 + 2 / 3 / 4)
    assert area.by_class == {"a": area.numbers["AP50"], "b": None}


def test_a_recall_of_three_in_ten_reaches_0_3(make):
    """In floats 3 * 0.1 is above 0.3."""
    truth = make([thing(x, y, 8) for x in range(0, 100, 20) for y in (0, 50)])
    boxes = [(x, y, x + 8, y + 8) for x, y in ((0, 0), (0, 50), (20, 0))]
    result = average_precision(truth, [Detections(boxes, [0] * 3, [0.9] * 3)], rule="voc2007")
    assert result.numbers["AP50"] == pytest.approx(4 / 11)


def test_difficult_objects_and_crowds(make):
    hard = make([thing(), thing(60, hard=True)])
    detections = [found((60, 0.9), (61, 0.8), (10, 0.7))]
    for rule in ("voc2007", "voc2010"):
        assert average_precision(hard, detections, rule=rule).numbers["AP50"] == pytest.approx(1)
        assert average_precision(hard, detections, rule=rule).objects == 1
    counted = average_precision(hard, detections)
    assert counted.numbers["AP50"] < 1  # the second detection of the difficult object is false
    assert "1 difficult objects count like others by COCO's rule" in counted.notes
    crowd = make([thing(), thing(60, crowd=True)])
    assert average_precision(crowd, detections).numbers["AP50"] == pytest.approx(1)
    assert average_precision(crowd, detections).objects == 1


def test_equal_scores_keep_their_order(make):
    truth = make([thing()])
    first = average_precision(truth, [found((10, 0.5), (70, 0.5))], rule="voc2010")
    second = average_precision(truth, [found((70, 0.5), (10, 0.5))], rule="voc2010")
    assert first.numbers["AP50"] == 1
    assert second.numbers["AP50"] == pytest.approx(0.5)
    assert average_precision(truth, [found((70, 0.5), (10, 0.5))]).numbers["AP50"] == pytest.approx(0.5)


@pytest.mark.parametrize("rule", ["coco", "voc2007", "voc2010"])
def test_nothing_found_and_nothing_to_find(make, rule):
    truth = make([thing()], [])
    result = average_precision(truth, [NONE, NONE], rule=rule, bootstrap=5)
    assert result.numbers["AP50"] == 0
    assert "there is no detection at all" in result.notes
    empty = average_precision(make([], []), [found((10, 0.5)), NONE], rule=rule, bootstrap=5)
    assert set(empty.numbers.values()) == {None}
    assert np.isnan(empty.intervals["AP50"]).all()
    assert "2 of 2 classes have no object" in empty.notes[0]
    assert "AP50 -" in repr(empty)


def test_more_than_100_objects(make):
    truth = make([thing(x, y, 6) for x in range(0, 96, 8) for y in range(0, 80, 8)])
    boxes = truth.boxes
    result = average_precision(truth, [Detections(boxes, [0] * 120, np.linspace(1, 0.5, 120))])
    assert result.numbers["AR100"] == pytest.approx(100 / 120)
    assert any("1 picture with more than 100 objects of a class (at most 120)" in note for note in result.notes)
    assert average_precision(truth, [Detections(boxes, [0] * 120, [1] * 120)], rule="voc2010").numbers["AP50"] == 1


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (found((10, 0.5), (10, float("nan"))), r"detection 1 of 1\.jpg has the score nan; scores must be finite"),
        (found((10, float("inf"))), r"detection 0 of 1\.jpg has the score inf"),
        (found((float("nan"), 0.5)), r"detection 0 of 1\.jpg has the box \[nan.*its numbers must be finite"),
        (Detections([(9, 1, 2, 3)], [0], [0.5]), r"detection 0 of 1\.jpg has the reversed box \[9\.0, 1\.0"),
        (found((10, 0.5, 2)), r"has the label 2; the data have 2 classes, 0 to 1"),
        (found((10, 0.5, -1)), r"has the label -1; the data have 2 classes"),
        (Detections([(1, 1, 2, 2)], [0, 1], [0.5]), r"boxes \(1, 4\), labels \(2,\) and scores \(1,\); they must be"),
        (Detections([(1, 1, 2, 2)], [0.5], [0.5]), r"labels integers"),
        (Detections(1, 2, 3), r"of 1\.jpg have boxes \(\)"),
    ],
)
def test_bad_detections(make, bad, match):
    with pytest.raises(DataError, match=match):
        average_precision(make([thing()], [thing()]), [found((10, 0.5)), bad])


def test_bad_arguments(make):
    truth = make([thing()])
    with pytest.raises(DataError, match="the network has 91 classes and the data have 2; they must be the same"):
        average_precision(truth, [NONE], num_classes=91)
    assert average_precision(truth, [NONE], num_classes=2).numbers["AP"] == 0
    with pytest.raises(ValueError, match="has 2 pictures and `truth` 1"):
        average_precision(truth, [NONE, NONE])
    with pytest.raises(ValueError, match=r"`rule` \(='voc'\) must be one of coco, voc2007, voc2010"):
        average_precision(truth, [NONE], rule="voc")
    with pytest.raises(ValueError, match=r"`bootstrap` \(=-1\)"):
        average_precision(truth, [NONE], bootstrap=-1)
    with pytest.raises(ValueError, match=r"`seed` \(=-1\)"):
        average_precision(truth, [NONE], bootstrap=1, seed=-1)
    with pytest.raises(ValueError, match="`truth` has no picture"):
        average_precision(truth.take([]), [])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32))
def test_voc_and_coco_agree_where_they_say_the_same(tmp_path_factory, seed):
    """One object a picture, matched or far away: both match alike, and differ only in where they read the curve."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 9))
    objects = [[Object((10, 10, 30, 30), 0, False, False, 400.0, index)] for index in range(n)]
    root = Place(tmp_path_factory.getbasetemp())
    truth = from_lists(root, ["x"] * n, [(100, 100)] * n, range(n), objects, ["a"], [1], "exif")
    hits = rng.random(n) < 0.6
    detections = [found((10 if hit else 60, float(score))) for hit, score in zip(hits, rng.random(n), strict=True)]
    area = average_precision(truth, detections, rule="voc2010").numbers["AP50"]
    assert average_precision(truth, detections).numbers["AP50"] == pytest.approx(area, abs=0.011)
