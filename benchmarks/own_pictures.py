"""The folder on which docs/own-pictures.md compares seedcnn with ultralytics and fastai: icons in files of all kinds.

    python benchmarks/own_pictures.py photos

The icons are Icons-50 rebuilt (:mod:`seedcnn.data.sets.icons50_rebuilt`, downloaded once): eight classes, up to 200
icons each, a quarter of them in val/. They are enlarged to 96 to 160 pixels a side and written as PNG, JPEG, BMP and
WebP, grey, with palettes, transparency and 16 bits, in CMYK and turned by EXIF; two more files are broken.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from seedcnn.data.sets.named import load_test
from tests.own.photos import KINDS, save

CLASSES = ("boat", "clock", "emotion_face", "family", "flag", "hand", "heart", "worker")
MOST, SIDES = 200, (96, 160)


def write_folder(root: Path) -> tuple[int, int]:
    """Write the folder; the same files each time. Returns the numbers of files in train/ and val/."""
    icons = load_test("icons50-rebuilt").test
    rng = np.random.default_rng(0)
    counts = {"train": 0, "val": 0}
    for name in CLASSES:
        picked = rng.permutation(np.flatnonzero(icons.labels == icons.classes.index(name)))[:MOST]
        for number, index in enumerate(picked.tolist()):
            part = "val" if number % 4 == 3 else "train"
            height, width = rng.integers(*SIDES, 2, endpoint=True).tolist()
            picture = Image.fromarray(icons.images[index]).resize((width, height), Image.Resampling.BICUBIC)
            folder = root / part / name
            folder.mkdir(parents=True, exist_ok=True)
            save(np.asarray(picture), folder / f"{number:03d}", KINDS[counts[part] % len(KINDS)])
            counts[part] += 1
    for part in counts:
        (root / part / CLASSES[0] / "broken.jpg").write_bytes(b"no picture")
    return counts["train"], counts["val"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="directory to write")
    train, val = write_folder(parser.parse_args().root)
    print(f"{train} files in train, {val} in val, and a broken one in each")
