"""The code of the page about boxes and masks runs, on small sets in place of large ones."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seedcnn.data.dense import loading
from seedcnn.data.dense.composing import prepared
from seedcnn.data.dense.scenes import SPLITS, Split, write_scenes

TEXT = (Path(__file__).parents[2] / "docs" / "dense-data.md").read_text("utf-8")
LOADING, SCENES, TRANSFORMS, PRECISION, OVERLAP = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def page(tmp_path):
    """The page's names for its data, and a function that runs a part of it on them."""
    cut_out = np.zeros((40, 40, 4), np.uint8)
    cut_out[5:35, 5:35] = (255, 0, 0, 255)
    photo = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    source = Split([photo], [(0, prepared(cut_out))], 6)
    (tmp_path / "cells.zip").write_bytes(write_scenes({"train": source, "val": source}, ("square",))[0])
    city = tmp_path / "cityscapes"
    for folder, end, pixels in (
        ("leftImg8bit", "leftImg8bit", np.zeros((16, 32, 3), np.uint8)),
        ("gtFine", "gtFine_labelIds", np.full((16, 32), 7, np.uint8)),
    ):
        (city / folder / "val/ulm").mkdir(parents=True)
        Image.fromarray(pixels).save(city / folder / f"val/ulm/ulm_0_{end}.png")
    cells = f'"{tmp_path}/cells.zip"'

    def run(code, **names):
        code = code.replace('"cells.zip"', cells).replace("/data/cityscapes", str(city))
        for layout, call in (("coco", "load_detection"), ("pairs", "load_segmentation")):
            code = code.replace(f'{call}("scenes"', f'{call}({cells}, "{layout}"')
        exec(code, names)
        return names

    return run


def test_loading_and_scenes(page):
    names = page(LOADING)
    assert names["objects"][0].boxes.shape[1] == 4
    assert len(names["cells"]) == 6
    assert names["maps"][0].max() == 0
    names = page(SCENES, **names)
    assert len(names["train"]) == len(names["masks"]) == 6


def test_transforms(page):
    names = page(TRANSFORMS, **page(SCENES, **page(LOADING)))
    sample = names["samples"][0, 5]
    assert sample["image"].shape == (3, 256, 256)
    assert set(sample) == {"image", "boxes", "labels", "crowd", "difficult", "ids"}
    for name in sample:
        assert name in TRANSFORMS
    assert names["fitted"](sample)["image"].shape == (3, 256, 256)


def test_measuring(page):
    names = page(LOADING)
    test, streets = names["cells"], names["streets"]
    answers = [(each.boxes, each.labels, [0.9] * len(each.boxes)) for each in map(test.objects, range(len(test)))]
    found = page(PRECISION, test=test, answers=answers)
    assert found["result"].numbers["AP"] == 1
    images = [streets.picture(0)]
    found = page(OVERLAP, streets=streets, images=images, predict=lambda image: np.zeros(image.shape[:2], np.uint8))
    assert found["result"].miou == 1


def test_the_page_names_every_layout_and_its_numbers():
    for layout in {*loading.DETECTION_LAYOUTS, *loading.SEGMENTATION_LAYOUTS}:
        assert f"### `{layout}`: " in TEXT
    assert f"{SPLITS['train']} pictures; val {SPLITS['val']}, test {SPLITS['test']}" in TEXT
