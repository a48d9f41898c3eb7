"""A folder of pictures of every kind: stripes of two directions and two widths, in four classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

KINDS = ("png", "jpg", "bmp", "webp", "grey", "palette", "alpha", "16 bits", "cmyk", "exif")
CLASSES = ("across fine", "across wide", "down fine", "down wide")


def stripes(label: int, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """uint8 [height, width, 3]."""
    rows, columns = np.mgrid[0:height, 0:width] / min(height, width)
    along = rows if label < 2 else columns
    wave = np.sin(2 * np.pi * (7, 2)[label % 2] * along + rng.uniform(0, 6))
    picture = 128 + 80 * wave[..., None] * rng.uniform(0.5, 1, 3) + rng.normal(0, 12, (height, width, 3))
    return np.clip(picture, 0, 255).astype(np.uint8)


def save(picture: np.ndarray, path: Path, kind: str) -> None:
    """Write a picture as a file of some kind."""
    image = Image.fromarray(picture)
    if kind in ("png", "jpg", "bmp", "webp"):
        image.save(path.with_suffix(f".{kind}"))
    elif kind == "grey":
        image.convert("L").save(path.with_suffix(".png"))
    elif kind == "palette":
        image.quantize(64).save(path.with_suffix(".png"))
    elif kind == "alpha":
        alpha = np.full(picture.shape[:2], 255, np.uint8)
        alpha[:3] = 0
        Image.fromarray(np.dstack([picture, alpha])).save(path.with_suffix(".png"))
    elif kind == "16 bits":
        Image.fromarray(picture[..., 1].astype(np.uint16) * 256 + 3).save(path.with_suffix(".png"))
    elif kind == "cmyk":
        image.convert("CMYK").save(path.with_suffix(".jpg"))
    else:
        exif = Image.Exif()
        exif[0x0112] = 6
        image.transpose(Image.Transpose.ROTATE_90).save(path.with_suffix(".jpg"), exif=exif)


def write_photos(root: Path, count: int = 20, *, parts: bool = True, seed: int = 0) -> Path:
    """Write ``count`` pictures of each class to train/, a quarter of that to val/ (or all to class folders)."""
    rng = np.random.default_rng(seed)
    for part, number in (("train", count), ("val", max(2, count // 4))) if parts else (("", count),):
        for label, name in enumerate(CLASSES):
            folder = root / part / name
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(number):
                height, width = rng.integers(30, 70, 2)
                save(stripes(label, rng, height, width), folder / f"{seed}-{index:03d}", KINDS[index % len(KINDS)])
    return root
