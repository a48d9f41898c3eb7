"""PASCAL VOC's layout."""

from __future__ import annotations

import numpy as np
import pytest

from seedcnn.data import load_detection, load_segmentation
from seedcnn.data.dense.voc import CLASSES
from seedcnn.errors import ConfigError, DataError


def annotation(objects, width=40, height=30):
    """An annotation file; an object is (name, xmin, ymin, xmax, ymax, difficult or None)."""
    parts = []
    for name, *box, difficult in objects:
        flag = "" if difficult is None else f"<difficult>{difficult}</difficult>"
        corners = "".join(
            f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        )
        # A part has a name and a box of its own, which are not the object's.
        part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
        parts.append(f"<object><name>{name}</name>{flag}<bndbox>{corners}</bndbox>{part}</object>")
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation><filename>x.jpg</filename>{size}{''.join(parts)}</annotation>"


@pytest.fixture
def voc(making):
    """Two years in VOCdevkit, with boxes, index maps and train_aug in both forms of its list."""
    for year, name, objects in (
        ("2007", "000005", [("chair", 1, 1, 40, 30, 0), ("person", 3, 4, 10, 12, 1)]),
        ("2007", "000007", []),
        ("2012", "2007_000032", [("dog", 2.5, 3, 9, 9, None)]),
        ("2012", "2008_000008", [("horse", 2, 3, 9, 9, 0)]),
    ):
        folder = f"VOCdevkit/VOC{year}"
        making.picture(f"{folder}/JPEGImages/{name}.jpg", seed=int(name[-2:]))
        making.text(f"{folder}/Annotations/{name}.xml", annotation(objects))
    making.text("VOCdevkit/VOC2007/ImageSets/Main/trainval.txt", "000005\n000007\n\n")
    making.text("VOCdevkit/VOC2012/ImageSets/Main/trainval.txt", "2007_000032\n2008_000008\n")
    folder = "VOCdevkit/VOC2012"
    first = np.zeros((30, 40), np.uint8)
    first[5:9, 5:9], first[4, 4:9] = 12, 255
    making.index_map(f"{folder}/SegmentationClass/2007_000032.png", first, palette=True)
    making.index_map(f"{folder}/SegmentationClassAug/2007_000032.png", first)
    making.index_map(f"{folder}/SegmentationClassAug/2008_000008.png", np.full((30, 40), 13))
    making.text(f"{folder}/ImageSets/Segmentation/val.txt", "2007_000032\n")
    making.text(f"{folder}/ImageSets/Segmentation/trainaug.txt", "2007_000032\n2008_000008\n")
    return making


@pytest.mark.parametrize("zipped", [False, True])
def test_boxes(voc, zipped):
    root = voc.zipped() if zipped else voc.root
    data = load_detection(root, "voc", split="2007/trainval+2012/trainval")
    assert data.classes == CLASSES
    assert len(CLASSES) == 20
    assert data.image_ids.tolist() == [1, 2, 3, 4]
    assert data.files.tolist()[2] == "VOCdevkit/VOC2012/JPEGImages/2007_000032.jpg"
    first = data.objects(0)
    assert first.boxes.tolist() == [[0, 0, 40, 30], [2, 3, 10, 12]]  # pixels from 1, both ends inside
    assert first.difficult.tolist() == [False, True]
    assert first.areas.tolist() == [1200, 72]
    assert first.labels.tolist() == [CLASSES.index("chair"), CLASSES.index("person")]
    assert data.objects(2).boxes.tolist() == [[1.5, 2, 9, 9]]
    assert data.ids.tolist() == [1, 2, 3, 4]
    assert not data.crowd.any()
    assert [len(batch.images) for batch in data.batches(3)] == [3, 1]


def test_splits(voc):
    assert len(load_detection(voc.root, "voc", split="2012/trainval")) == 2
    assert len(load_detection(voc.root / "VOCdevkit", "voc", split="2007/trainval")) == 2
    assert len(load_detection(voc.root / "VOCdevkit/VOC2007", "voc", split="trainval")) == 2
    assert len(load_detection(voc.root / "VOCdevkit/VOC2007", "voc")) == 2
    with pytest.raises(ConfigError, match=r"has no split 'trainval'; .*2007/trainval"):
        load_detection(voc.root, "voc", split="trainval")
    with pytest.raises(ConfigError, match=r"has the splits 2007/trainval, 2012/trainval; name one"):
        load_detection(voc.root, "voc")
    with pytest.raises(DataError, match=r"holds no lists in ImageSets/Main of PASCAL VOC"):
        load_detection(voc.root / "VOCdevkit/VOC2007/JPEGImages", "voc")


def test_index_maps(voc):
    data = load_segmentation(voc.root, "voc", split="2012/val")
    assert data.classes == ("background", *CLASSES)
    assert np.unique(data.index_map(0)).tolist() == [0, 12, 255]
    for form in (
        "2007_000032\n2008_000008\n",
        "/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png\n"
        "/JPEGImages/2008_000008.jpg /SegmentationClassAug/2008_000008.png\n",
    ):
        voc.text("VOCdevkit/VOC2012/ImageSets/Segmentation/trainaug.txt", form)
        for split in ("2012/train_aug", "2012/trainaug", "train_aug"):
            data = load_segmentation(voc.root, "voc", split=split)
            assert [np.unique(data.index_map(index)).tolist() for index in range(2)] == [[0, 12, 255], [13]]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (annotation([("chair", 0, 1, 5, 5, 0)]), r"object 1 of .*05\.xml has the box \(-1, 0, 5, 5\); .*from 1"),
        (annotation([("chair", 3, 1, 41, 5, 0)]), r"object 1 of .*must lie in its picture, 40 x 30 pixels"),
        (annotation([("chair", 9, 1, 7, 5, 0)]), r"object 1 of .*has the reversed box"),
        (annotation([("chair", "nan", 1, 7, 5, 0)]), r"object 1 of .*numbers must be finite"),
        (annotation([("chair", "x", 1, 7, 5, 0)]), r"object 1 of .*has the xmin 'x'; it must be a number"),
        (
            annotation([("sofa bed", 1, 1, 7, 5, 0)]),
            r"object 1 of .*has the category 'sofa bed', which is not declared",
        ),
        (annotation([("chair", 1, 1, 7, 5, 2)]), r"object 1 of .*has difficult '2'; it must be 0 or 1"),
        (annotation([], height=31), r"000005\.jpg has 40 x 30 pixels; its annotations are for 40 x 31"),
        (annotation([], height=0), r"states 40 x 0 pixels; both must be positive integers"),
        ("<annotation/>", r"000005\.xml has no size"),
        ("<annotation><size>", r"000005\.xml is not XML"),
        ("<annotation><size><width>4</width></size></annotation>", r"has the height None; it must be a number"),
        (annotation([("chair", 1, 1, 7, 5, 0)]).replace("bndbox>", "b>"), r"object 1 of .*has no bndbox"),
    ],
)
def test_bad_annotations(voc, content, match):
    voc.text("VOCdevkit/VOC2007/Annotations/000005.xml", content)
    with pytest.raises(DataError, match=match):
        load_detection(voc.root, "voc", split="2007/trainval")


def test_bad_lists_and_missing_files(voc):
    listed = "VOCdevkit/VOC2007/ImageSets/Main/trainval.txt"
    for content, match in (
        ("000005\n000009\n", r"Annotations/000009\.xml does not exist"),
        ("000005\n000005\n", r"lists 000005 twice"),
        ("\n", r"trainval\.txt lists no picture"),
        ("../../x\n", r"has the file name '\.\./\.\./x'"),
    ):
        voc.text(listed, content)
        with pytest.raises(DataError, match=match):
            load_detection(voc.root, "voc", split="2007/trainval")


def test_classes_of_ones_own(voc):
    voc.text("VOCdevkit/VOC2007/Annotations/000005.xml", annotation([("cell", 1, 1, 7, 5, 0)]))
    root = voc.root / "VOCdevkit/VOC2007"
    with pytest.raises(DataError, match="'cell', which is not declared"):
        load_detection(root, "voc")
    (root / "classes.json").write_text('{"classes": ["nucleus", "cell"]}')
    data = load_detection(root, "voc")
    assert data.classes == ("nucleus", "cell")
    assert data.labels.tolist() == [1]
