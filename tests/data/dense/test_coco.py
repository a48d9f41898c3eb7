"""COCO's layout: what is read, and every kind of bad input."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from PIL import Image

from seedcnn.data import load_detection, load_segmentation
from seedcnn.errors import ConfigError, DataError

NAME = "annotations/instances_val2017.json"


@pytest.fixture
def changed(coco):
    """Change the annotation file: ``changed(lambda content: ...)`` returns the root."""
    making, content = coco

    def change(how):
        how(content)
        making.text(NAME, json.dumps(content))
        return making.root

    return change


def refused(root, match, **options):
    with pytest.raises(DataError, match=match):
        load_detection(root, "coco", **options)


@pytest.mark.parametrize("zipped", [False, True])
def test_official_files(coco, zipped):
    making, content = coco
    root = making.zipped() if zipped else making.root
    data = load_detection(root, "coco")
    assert data.classes == ("person", "stop sign", "toothbrush")
    assert data.class_ids == (1, 13, 90)
    assert data.image_ids.tolist() == [139, 7, 285]
    assert data.sizes.tolist() == [[30, 40], [30, 40], [50, 20]]
    assert data.files[1] == "val2017/000000000007.png"
    first, crowd, none = (data.objects(index) for index in range(3))
    assert first.boxes.dtype == np.float32
    assert first.boxes.tolist() == [[2, 3, 12, 9], [20, 10, 28, 18]]
    assert first.labels.tolist() == [2, 0]
    assert first.areas.tolist() == [57.5, 64]
    assert first.ids.tolist() == [1768, 12]
    assert crowd.crowd.tolist() == [True]
    assert crowd.boxes.tolist() == [[0.5, 1.25, 40, 21.25]]  # a hundredth beyond the edge is COCO's rounding
    assert len(none.boxes) == 0
    assert none.boxes.shape == (0, 4)
    assert data.counts.tolist() == [1, 0, 1]
    batches = list(data.batches(2))
    assert [batch.indices.tolist() for batch in batches] == [[0, 1], [2]]
    stored = np.asarray(Image.open(making.root / "val2017/000000000285.png"))
    assert (batches[1].images[0] == stored).all()
    assert batches[0].objects[1].crowd.tolist() == [True]
    assert not data.skipped
    assert content["images"][0]["id"] == 139


def test_a_part_of_a_set_keeps_its_objects(coco):
    data = load_detection(coco[0].root, "coco")
    part = data.take([2, 0])
    assert part.image_ids.tolist() == [285, 139]
    assert [len(part.objects(index).boxes) for index in range(2)] == [0, 2]
    assert part.objects(1).ids.tolist() == [1768, 12]
    assert len(data.take([])) == 0
    assert data.take(data.sizes[:, 0] == 50).files.tolist() == ["val2017/000000000285.png"]


def test_a_folder_in_a_zip(coco):
    making, _ = coco
    root = making.zipped("deep/coco/")
    assert len(load_detection(root / "deep" / "coco", "coco")) == 3
    with pytest.raises(DataError, match=r"holds no COCO annotations\. Expected: annotations/.*Found: deep"):
        load_detection(root, "coco")


@pytest.mark.parametrize(
    ("box", "match"),
    [
        ([30, 10, 11, 5], r"val2017\.json: annotation 12 of val2017/000000000139\.png has the box \(30, 10, 41, 15\); "
         r"it must lie in its picture, 40 x 30 pixels"),
        ([-1, 10, 5, 5], r"annotation 12 .*must lie in its picture"),
        ([30, 10, -4, 5], r"annotation 12 .*has the reversed box \(30, 10, 26, 15\); x1 must be below x2"),
        ([30, 10, 4, 0], r"annotation 12 .*has the empty box \(30, 10, 34, 10\); its sides must be longer than 0"),
        ([float("nan"), 10, 4, 4], r"annotation 12 .*has the box \(nan, 10, nan, 14\); its numbers must be finite"),
        ([1, 10, float("inf"), 4], r"annotation 12 .*its numbers must be finite"),
        ([10**400, 10, 4, 4], r"annotation 12 .*its numbers must be finite"),
        ([1, 2, 3], r"annotation 12 .*has the bbox \[1, 2, 3\]; it must have four numbers"),
        (["1", 2, 3, 4], r"annotation 12 .*must have four numbers"),
        (None, r"annotation 12 .*has the bbox None"),
    ],
)  # fmt: skip
def test_bad_boxes(changed, box, match):
    root = changed(lambda content: content["annotations"][2].update(bbox=box))
    refused(root, match)
    data = load_detection(root, "coco", on_error="skip")
    assert data.ids.tolist() == [1768, 52]
    assert len(data.skipped) == 1
    assert "annotation 12" in data.skipped[0].name


def test_several_bad_items_are_counted(changed):
    def change(content):
        content["annotations"][0]["bbox"] = [1, 1, 0, 3]
        content["annotations"][2]["bbox"] = [1, 1, 99, 3]

    refused(changed(change), r"2 items of .*set cannot be used: .*annotation 1768.*annotation 12")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda c: c["annotations"][0].update(category_id=2),
            r"annotation 1768 of .* has the category 2, .*not declare",
        ),
        (lambda c: c["annotations"][0].update(image_id=8), r"annotation 1768 of .* belongs to image 8, .*not list"),
        (lambda c: c["annotations"][0].update(id=12), r"two annotations with the id 12; ids must be unique"),
        (lambda c: c["images"][0].update(id=7), r"two images with the id 7 "),
        (
            lambda c: c["images"][0].update(file_name="000000000007.png"),
            r"names the file .*07\.png in the images 139 and 7",
        ),
        (lambda c: c["images"][0].update(file_name="../x.png"), r"image 139 of .* has the file name '\.\./x\.png'"),
        (lambda c: c["images"][0].update(file_name="/x.png"), r"has the file name '/x\.png'; it must be a path below"),
        (lambda c: c["images"][0].update(height=0), r"image 139 .* has 40 x 0 pixels; both must be positive"),
        (lambda c: c["images"][0].update(height=30.5), r"has the height 30\.5; it must be an integer"),
        (lambda c: c["categories"][0].update(id=1), r"two categories with the id 1 or the name 'person'"),
        (lambda c: c["categories"][0].update(name="person"), r"two categories with the id 1 or the name 'person'"),
        (lambda c: c["categories"][0].update(name=""), r"category 90 of .* has the name ''; it must be a text"),
        (lambda c: c.update(categories=[]), r"declares no category"),
        (lambda c: c.update(images=[], annotations=[]), r"has no picture that can be used"),
        (lambda c: c.pop("annotations"), r"has no list of objects 'annotations'"),
        (lambda c: c["annotations"][0].update(id=True), r"has the id True; it must be an integer"),
    ],
)
def test_what_is_never_skipped(changed, change, match):
    root = changed(change)
    refused(root, match)
    refused(root, match, on_error="skip")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda c: c["annotations"][1].update(iscrowd=2), r"annotation 52 .* has iscrowd 2; it must be 0 or 1"),
        (lambda c: c["annotations"][0].update(area=-1), r"annotation 1768 .* has the area -1; it must be a number"),
        (lambda c: c["annotations"][0].update(area=float("nan")), r"has the area nan; it must be a number, finite"),
        (lambda c: c["annotations"][1]["segmentation"].update(counts=[1199, 2]), r"annotation 52 .*runs add up to "
         "1201; its picture has 1200 pixels"),
        (lambda c: c["annotations"][1]["segmentation"].update(counts=[1201, -1]), r"with the run -1; runs must not be"),
        (lambda c: c["annotations"][1]["segmentation"].update(size=[40, 30]), r"RLE of size \[40, 30\]; its picture "
         r"has \[30, 40\]"),
        (lambda c: c["annotations"][1]["segmentation"].update(counts="~~"), r"an RLE whose text is damaged"),
        (lambda c: c["annotations"][1]["segmentation"].update(counts="Y"), r"text ends within a number"),
        (lambda c: c["annotations"][1]["segmentation"].update(counts=3), r"counts are neither text nor integers"),
        (lambda c: c["images"][2].update(height=51), r"285\.png has 20 x 50 pixels; its annotations are for 20 x 51"),
        (lambda c: c["images"][0].update(file_name="lost.png"), r"val2017/lost\.png does not exist"),
    ],
)  # fmt: skip
def test_bad_annotations_and_pictures(changed, change, match):
    root = changed(change)
    refused(root, match)
    data = load_detection(root, "coco", on_error="skip")
    assert len(data.skipped) == 1


def test_areas_that_are_not_stated(changed):
    def change(content):
        for each in content["annotations"]:
            del each["area"]
        del content["annotations"][1]["segmentation"]

    data = load_detection(changed(change), "coco")
    assert data.areas.tolist() == [60, 64, 39.5 * 20]  # a polygon, an RLE, a box


def test_splits(coco):
    making, content = coco
    making.text("annotations/tiny.json", content)
    with pytest.raises(ConfigError, match=r"has the splits tiny, val2017; name one with `split`"):
        load_detection(making.root, "coco")
    with pytest.raises(ConfigError, match=r"no split 'val2071'; did you mean val2017\?"):
        load_detection(making.root, "coco", split="val2071")
    assert len(load_detection(making.root, "coco", split="val2017")) == 3
    making.text("annotations/val2017.json", content)
    with pytest.raises(DataError, match=r"has both annotations/instances_val2017\.json and annotations/val2017\.json"):
        load_detection(making.root, "coco", split="val2017")


def test_files_that_are_no_annotations(coco, tmp_path):
    making, _ = coco
    making.text(NAME, "[1, 2")
    refused(making.root, "is not JSON")
    making.text(NAME, "[" * 100_000)
    refused(making.root, "is not JSON: it nests too deeply")
    making.text(NAME, '{"images": [], "images": []}')
    refused(making.root, "duplicate key 'images'")
    refused(tmp_path / "none", "does not exist")
    (tmp_path / "text.zip").write_text("no zip")
    refused(tmp_path / "text.zip", "cannot be read as a zip file")
    with pytest.raises(ConfigError, match=r"unknown layout 'cocoo' .*did you mean coco, voc\?"):
        load_detection(making.root, "cocoo")
    with pytest.raises(ConfigError, match="unknown layout None"):
        load_detection(making.root)
    with pytest.raises(ValueError, match="`on_error`"):
        load_detection(making.root, "coco", on_error="warn")
    with pytest.raises(ValueError, match="`orientation`"):
        load_detection(making.root, "coco", orientation="up")


def test_pictures_that_exif_turns(coco):
    making, content = coco
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = making.picture("val2017/turned.png", (40, 30), 9, exif=exif)
    content["images"][0]["file_name"] = "turned.png"
    making.text(NAME, content)
    refused(making.root, r"has 30 x 40 pixels; .* for 40 x 30, the size before EXIF turns it .*orientation='stored'")
    data = load_detection(making.root, "coco", orientation="stored")
    assert (data.picture(0) == pixels).all()
    content["images"][0].update(height=40, width=30)
    content["annotations"] = []
    making.text(NAME, content)
    data = load_detection(making.root, "coco")
    assert (data.picture(0) == np.rot90(pixels, -1)).all()


def test_a_damaged_picture_is_found_when_it_is_decoded(coco):
    making, _ = coco
    path = making.root / "val2017/000000000285.png"
    path.write_bytes(path.read_bytes()[:-400])
    data = load_detection(making.root, "coco")
    with pytest.raises(DataError, match=r"000000000285\.png cannot be decoded"):
        list(data.batches(1))
    path.write_text("no picture")
    refused(making.root, r"000000000285\.png is not a picture of a known format")
    path.unlink()
    data = load_detection(making.root, "coco", verify=False)
    with pytest.raises(DataError, match=r"000000000285\.png does not exist"):
        data.picture(2)
    for options in ({"size": 0}, {"size": 1, "threads": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            next(data.batches(**options))


def test_index_maps_from_segmentations(coco):
    making, content = coco
    data = load_segmentation(making.root, "coco")
    assert data.classes == ("background", "person", "stop sign", "toothbrush")
    first = data.index_map(0)
    assert first.shape == (30, 40)
    assert np.unique(first).tolist() == [0, 1, 3]
    assert (first[10:18, 20:28] == 1).all()
    assert (first == 3).sum() == 60
    assert (data.index_map(2) == 0).all()
    extra = copy.deepcopy(content["annotations"][2])
    extra.update(id=99, category_id=13)
    content["annotations"].append(extra)
    making.text(NAME, content)
    assert (load_segmentation(making.root, "coco").index_map(0)[10:18, 20:28] == 255).all()  # two classes claim it
    bad_ones = {
        "a polygon that is no list of three points": [[1, 2, 3, 4]],
        "no segmentation": [],
        "a polygon with a number that is not finite": [[1, 2, 3, 4, 5, float("nan")]],
    }
    for match, bad in bad_ones.items():
        extra["segmentation"] = bad
        making.text(NAME, content)
        with pytest.raises(DataError, match=rf"annotation 99 of .*139\.png has {match}"):
            load_segmentation(making.root, "coco")
        assert len(load_segmentation(making.root, "coco", on_error="skip")) == 2
