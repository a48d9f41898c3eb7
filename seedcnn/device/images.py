"""Read images from files into arrays, and refuse what the model was not made for."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from seedcnn.arrays import U8
from seedcnn.bundle import Preprocessing
from seedcnn.errors import ImageError

__all__ = ["FORMATS", "MAX_PIXELS", "load_batch", "load_image"]

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM")
MAX_PIXELS = 50_000_000
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


def load_image(path: str | Path, rule: Preprocessing, *, resize: bool = False) -> U8:
    """Read one RGB image.

    Args:
        rule: the preprocessing rule, which fixes the size.
        resize: scale an image of another size (bilinear, without keeping its aspect ratio) instead of refusing it.

    Returns:
        uint8 array [height, width, 3].

    Raises:
        ImageError: if the file is not an image, or the image is damaged, not RGB, too large or of the wrong size.
    """
    try:
        with warnings.catch_warnings():
            # Our own limit is lower and raises an error; Pillow's warning would only repeat it.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path, formats=FORMATS)
    except UnidentifiedImageError:
        raise ImageError(f"{path} is not an image of a known format ({', '.join(FORMATS)})") from None
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist") from None
    except _BROKEN as error:
        raise ImageError(f"{path} cannot be read as an image: {error}") from None
    with image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ImageError(f"{path} has {width} x {height} pixels; at most {MAX_PIXELS} are allowed")
        if image.mode != "RGB":
            channels = len(image.getbands())
            raise ImageError(f"{path} has mode {image.mode} ({channels} channels); the model takes RGB (3 channels)")
        if (width, height) != (rule.width, rule.height) and not resize:
            raise ImageError(
                f"{path} is {width} x {height} pixels; the model takes {rule.width} x {rule.height} (or use --resize)"
            )
        try:
            image.load()
        except _BROKEN as error:
            raise ImageError(f"{path} is damaged: {error}") from None
        if (width, height) != (rule.width, rule.height):
            return np.asarray(image.resize((rule.width, rule.height), Image.Resampling.BILINEAR), np.uint8)
        return np.asarray(image, np.uint8)


def load_batch(path: str | Path, rule: Preprocessing) -> U8:
    """Read a batch of images from a ``.npy`` file.

    Returns:
        uint8 array [N, height, width, 3].

    Raises:
        ImageError: if it is not a NumPy file of that dtype and shape. Pickled objects are never loaded.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist") from None
    except (OSError, ValueError, EOFError) as error:
        raise ImageError(f"{path} cannot be read as a NumPy array: {error}") from None
    wanted = (rule.height, rule.width, 3)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[1:] != wanted:
        raise ImageError(
            f"{path} holds {array.dtype} {array.shape}; the model takes uint8 [N, {rule.height}, {rule.width}, 3]"
        )
    return array
