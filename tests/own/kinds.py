"""A file of every kind that is read: formats, modes, transparency, EXIF orientations, in one size and in a few others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 20, 30
_FORMATS = {
    "png": ("1", "L", "LA", "P", "P clear", "P alpha", "RGB", "RGBA", "I;16", "1 key", "L key", "RGB key"),
    "jpg": ("L", "RGB", "CMYK"),
    "bmp": ("1", "L", "P", "RGB", "RGBA"),
    "webp": ("RGB", "RGBA", "RGB lossless", "RGBA lossless"),
    "gif": ("1", "L", "P", "P clear"),
    "tif": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I;16B"),
    "ppm": ("1", "L", "RGB", "I;16"),
}
_SIZES = ((7, 9), (5, 90), (64, 21))


def _picture(height: int, width: int) -> np.ndarray:
    """A wave in each channel with some noise; uint8 [height, width, 4]."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [127 + 100 * np.sin(rows / (2 + k) + columns / (5 - k) + k) for k in range(4)]
    noise = np.random.default_rng(height * width).normal(0, 9, (height, width, 4))
    return np.clip(np.stack(waves, 2) + noise, 0, 255).astype(np.uint8)


def _save(picture: np.ndarray, path: Path, kind: str) -> None:
    mode, _, extra = kind.partition(" ")
    colours, options = Image.fromarray(np.ascontiguousarray(picture[..., :3])), {}
    if mode == "P":
        image = colours.quantize(32)
        options = {"clear": {"transparency": 3}, "alpha": {"transparency": bytes(range(0, 256, 8))}}.get(extra, {})
    elif mode in ("I;16", "I;16B"):
        order = ">u2" if mode == "I;16B" else "<u2"
        deep = picture[..., 0].astype(order) * 256 + picture[..., 1]
        image = Image.frombytes(mode, (picture.shape[1], picture.shape[0]), deep.astype(order).tobytes())
    elif mode == "RGBA":
        image = Image.fromarray(picture)
    elif mode == "LA":
        image = Image.fromarray(np.ascontiguousarray(picture[..., 2:]))
    else:
        image = colours.convert(mode)
    if extra == "key":
        pixel = image.getpixel((4, 3))
        options["transparency"] = pixel
    elif extra == "lossless":
        options = {"lossless": True, "exact": True}
    image.save(path, **options)


def write_kinds(folder: Path) -> list[str]:
    """Write a picture of 20 x 30 pixels as each kind of file, a few of other sizes, and one for each EXIF value.

    Returns:
        The names of the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, kinds in _FORMATS.items():
        for kind in kinds:
            _save(_picture(HEIGHT, WIDTH), folder / f"{kind.replace(';', '')}.{suffix}", kind)
    for height, width in _SIZES:
        for kind in ("RGBA", "L"):
            _save(_picture(height, width), folder / f"{kind} {height}x{width}.png", kind)
    colours = Image.fromarray(np.ascontiguousarray(_picture(HEIGHT, WIDTH)[..., :3]))
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        colours.save(folder / f"exif {turn}.jpg", exif=exif)
    return sorted(path.name for path in folder.iterdir())
