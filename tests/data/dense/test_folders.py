"""Cityscapes, CamVid and pairs: pictures beside index maps."""

from __future__ import annotations

import multiprocessing
import pickle

import numpy as np
import pytest

from seedcnn.data import load_segmentation
from seedcnn.data.dense.folders import CAMVID, CITYSCAPES
from seedcnn.errors import ConfigError, DataError
from tests.few import few


@pytest.fixture
def pairs(making):
    """Two pictures with masks of two classes; 9 is ignored."""
    making.text("classes.json", {"classes": ["cell", "ground"], "ignore": 9, "source": "made up"})
    mask = np.zeros((30, 40), np.uint8)
    mask[:5], mask[5] = 1, 9
    for name in ("train", "val"):
        making.picture(f"{name}/a.jpg")
        making.picture(f"{name}/b.png", (20, 10))
        making.index_map(f"{name}_masks/a.png", mask, palette=True)
        making.index_map(f"{name}_masks/b.png", np.ones((10, 20)))
    return making


def refused(making, match, layout="pairs", split="train"):
    with pytest.raises(DataError, match=match):
        load_segmentation(making.root, layout, split=split)


@pytest.mark.parametrize("zipped", [False, True])
def test_pairs(pairs, zipped):
    data = load_segmentation(pairs.zipped() if zipped else pairs.root, "pairs", split="train")
    assert data.classes == ("cell", "ground")
    assert data.files.tolist() == ["train/a.jpg", "train/b.png"]
    assert data.sizes.tolist() == [[30, 40], [10, 20]]
    (batch,) = data.batches(8)
    assert [image.shape for image in batch.images] == [(30, 40, 3), (10, 20, 3)]
    assert [np.unique(each).tolist() for each in batch.maps] == [[0, 1, 255], [1]]
    assert batch.maps[0].dtype == np.uint8
    part = data.take([1])
    assert part.index_map(0).shape == (10, 20)
    assert part.files.tolist() == ["train/b.png"]


def _shape_of(data, index, queue):
    queue.put((data.picture(index).shape, data.index_map(index).shape))


@pytest.mark.parametrize("method", few(["fork", "spawn"], [0]))
def test_a_zip_is_read_in_worker_processes(pairs, method):
    data = load_segmentation(pairs.zipped(), "pairs", split="train")
    assert pickle.loads(pickle.dumps(data)).picture(1).shape == (10, 20, 3)
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    workers = [context.Process(target=_shape_of, args=(data, index % 2, queue)) for index in range(2)]
    for worker in workers:
        worker.start()
    found = {queue.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join()
    assert found == {((30, 40, 3), (30, 40)), ((10, 20, 3), (10, 20))}


def test_bad_masks(pairs):
    masks = "train_masks/b.png"
    pairs.index_map(masks, np.ones((10, 21)))
    refused(pairs, r"b\.png has 21 x 10 pixels; its picture has 20 x 10")
    bad = np.ones((10, 20))
    bad[3, 4] = 2
    pairs.index_map(masks, bad)
    refused(pairs, r"b\.png has the unknown index 2 at row 3, column 4; classes\.json declares 2 classes and ignores 9")
    data = load_segmentation(pairs.root, "pairs", split="train", on_error="skip")
    assert data.files.tolist() == ["train/a.jpg"]
    assert "unknown index 2" in data.skipped[0].reason
    lazy = load_segmentation(pairs.root, "pairs", split="train", verify=False)
    with pytest.raises(DataError, match="unknown index 2"):
        list(lazy.batches(2))
    pairs.index_map(masks, np.full((10, 20), 9))
    refused(pairs, r"b\.png ignores all its pixels \(255\); one at least must count")
    pairs.picture(masks, (20, 10))
    refused(pairs, r"b\.png is RGB; an index map must be 8-bit grey or have a palette")
    (pairs.root / masks).write_bytes(b"no picture")
    refused(pairs, r"b\.png cannot be decoded as a PNG")
    (pairs.root / masks).unlink()
    refused(pairs, r"train_masks/b\.png does not exist")


def test_grey_of_four_bits_is_refused(pairs):
    # Written by hand: Pillow writes no such file, and reads its 1 as 17.
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\x11" * 10 for _ in range(10))
    head = struct.pack(">IIBBBBB", 20, 10, 4, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (pairs.root / "train_masks/b.png").write_bytes(png)
    refused(pairs, r"b\.png is L;4; an index map must be 8-bit grey")


def test_pictures_and_masks_that_do_not_fit(pairs):
    pairs.index_map("train_masks/c.png", np.ones((10, 20)))
    refused(pairs, r"train_masks has masks without a picture: c")
    pairs.picture("train/c.png", (20, 10))
    pairs.picture("train/c.jpg", (20, 10))
    refused(pairs, r"train has c\.jpg and c\.png; one mask is for both")
    (pairs.root / "train/c.jpg").write_text("no picture")
    (pairs.root / "train/c.png").unlink()
    refused(pairs, r"train/c\.jpg is not a picture of a known format")
    assert len(load_segmentation(pairs.root, "pairs", split="train", on_error="skip")) == 2
    with pytest.raises(ConfigError, match="has the splits train, val; name one"):
        load_segmentation(pairs.root, "pairs")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"classes": []}, "must declare 1 to 253 different names"),
        ({"classes": ["a", "a"]}, "must declare 1 to 253 different names"),
        ({"classes": ["a", 1]}, "must declare 1 to 253 different names"),
        ({"classes": "ab"}, "must declare 1 to 253 different names"),
        ({"classes": [str(n) for n in range(254)]}, "must declare 1 to 253 different names"),
        ({"classes": ["a", "b"], "ignore": 1}, "ignores the index 1; it must be in 2 to 255"),
        ({"classes": ["a", "b"], "ignore": True}, "ignores the index True"),
        ({"classes": ["a"]}, "unknown index 1 at row 0, column 0; classes.json declares 1 classes and ignores none"),
        ("{", "is not JSON"),
    ],
)
def test_bad_declarations(pairs, content, match):
    pairs.text("classes.json", content)
    refused(pairs, match.replace(".", r"\."))


def test_no_declaration(pairs):
    (pairs.root / "classes.json").unlink()
    refused(pairs, r"has no classes\.json\. Expected: classes\.json, SPLIT/")


def test_camvid(making):
    mask = np.zeros((30, 40), np.uint8)
    mask[0], mask[1], mask[2] = 10, 11, 255
    making.picture("train/0001TP.png")
    making.index_map("trainannot/0001TP.png", mask)
    data = load_segmentation(making.root, "camvid")
    assert data.classes == CAMVID
    assert np.unique(data.index_map(0)).tolist() == [0, 10, 255]
    assert (data.index_map(0) == 255).sum() == 80
    making.index_map("trainannot/0001TP.png", mask + np.uint8(1))
    refused(making, r"unknown index 12 .*CamVid has 11 classes, and ignores 11 and 255", "camvid", "")
    making.text("classes.json", {"classes": ["a", "b"]})
    refused(making, "declares other classes in classes.json than CamVid's".replace(".", r"\."), "camvid", "")


def test_cityscapes(making):
    stem = "val/ulm/ulm_000000_000019"
    making.picture(f"leftImg8bit/{stem}_leftImg8bit.png")
    making.picture("leftImg8bit/train/bonn/bonn_000000_000019_leftImg8bit.png")
    mask = np.zeros((30, 40), np.uint8)
    mask[0], mask[1], mask[2], mask[3] = 7, 33, 5, 24
    making.index_map(f"gtFine/{stem}_gtFine_labelIds.png", mask)
    making.index_map(f"gtFine/{stem}_gtFine_color.png", mask)
    data = load_segmentation(making.root, "cityscapes", split="val")
    assert len(data.classes) == len(CITYSCAPES) == 19
    found = data.index_map(0)
    assert [int(found[row, 0]) for row in range(5)] == [0, 18, 255, 11, 255]
    assert data.classes[18] == "bicycle"
    refused(making, r"bonn_000000_000019_gtFine_labelIds\.png does not exist", "cityscapes", "train")
    making.index_map(f"gtFine/{stem}_gtFine_labelIds.png", mask + np.uint8(30))
    refused(making, r"unknown index 37 .*Cityscapes has the label ids 0 to 33", "cityscapes", "val")
