"""Tiny sets in each layout."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seedcnn.data.dense.rle import runs_to_text


class Making:
    """Writes pictures, index maps and annotation files below a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def picture(self, name, size=(40, 30), seed=0, **options):
        """A random picture of (width, height); returns its pixels."""
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, **options)
        return pixels

    def index_map(self, name, pixels, palette=False):
        image = Image.fromarray(np.asarray(pixels, np.uint8))
        if palette:
            image.putpalette([each % 256 for each in range(768)])
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)

    def text(self, name, content):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))

    def zipped(self, folder=""):
        """A zip file of everything, below ``folder`` in it."""
        path = self.root.with_suffix(".zip")
        with zipfile.ZipFile(path, "w") as archive:
            for each in sorted(self.root.rglob("*")):
                if each.is_file():
                    archive.write(each, f"{folder}{each.relative_to(self.root).as_posix()}")
        return path


def box_mask(x, y, w, h, width=40, height=30):
    """The RLE of a rectangle, as text."""
    mask = np.zeros((height, width), np.uint8)
    mask[y : y + h, x : x + w] = 1
    flat = mask.T.ravel()
    changes = np.flatnonzero(np.diff(flat, prepend=np.uint8(0)))
    runs = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return {"size": [height, width], "counts": runs_to_text(runs)}


@pytest.fixture
def making(tmp_path):
    return Making(tmp_path / "set")


@pytest.fixture
def coco(making):
    """Official COCO in small: three images, ids with gaps, a crowd, polygons and RLEs; returns (making, content)."""
    images = [
        {"id": 139, "file_name": "000000000139.png", "height": 30, "width": 40},
        {"id": 7, "file_name": "000000000007.png", "height": 30, "width": 40},
        {"id": 285, "file_name": "000000000285.png", "height": 50, "width": 20},
    ]
    categories = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 13, "name": "stop sign"}]
    polygon = [[2, 3, 12, 3, 12, 9, 2, 9]]
    annotations = [
        {"id": 1768, "image_id": 139, "category_id": 90, "bbox": [2, 3, 10, 6], "area": 57.5, "iscrowd": 0},
        {"id": 52, "image_id": 7, "category_id": 1, "bbox": [0.5, 1.25, 39.51, 20], "area": 400, "iscrowd": 1},
        {"id": 12, "image_id": 139, "category_id": 1, "bbox": [20, 10, 8, 8], "area": 64, "iscrowd": 0},
    ]
    segmentations = [polygon, box_mask(1, 1, 39, 20), box_mask(20, 10, 8, 8)]
    for each, segmentation in zip(annotations, segmentations, strict=True):
        each["segmentation"] = segmentation
    for seed, each in enumerate(images):
        making.picture(f"val2017/{each['file_name']}", (each["width"], each["height"]), seed)
    content = {"images": images, "categories": categories, "annotations": annotations}
    making.text("annotations/instances_val2017.json", content)
    return making, content
