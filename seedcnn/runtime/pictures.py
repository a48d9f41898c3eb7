"""From a picture file to the input of a network: the only code that does so, in training, measuring, packing, devices.

It needs NumPy and Pillow, which decodes; everything after decoding is integer arithmetic of our own, so that the same
file gives the same bytes everywhere. docs/bundle-format.md has the definition.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError

from seedcnn.arrays import U8
from seedcnn.bundle import Bundle, CannedPictures, Preprocessing
from seedcnn.bundle.reader import draw_picture
from seedcnn.errors import ImageError
from seedcnn.runtime.resampling import Window, resample

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "MAX_SIDE",
    "canned_pictures",
    "check_canned_pictures",
    "load_picture",
    "luma",
    "on_background",
    "prepare",
    "read_picture",
    "read_size",
]

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM", "GIF", "TIFF")
MAX_PIXELS = 50_000_000
MAX_SIDE = 65_535
"""Longest side of a picture, before and after scaling, for which the arithmetic of resizing is exact in 64 bits."""

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
_LARGEST_CANNED = 801  # pixels of a side
_ORIENTATION = 0x0112  # the EXIF tag
# What the values 2 to 8 of the tag ask for: whether to transpose, to flip the rows, to flip the columns.
_TURNS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
_Turn = tuple[bool, bool, bool]
_Found = TypeVar("_Found")
_SAME_TO_US = {"La": "LA", "PA": "RGBA", "RGBa": "RGBA", "RGBX": "RGB"}


def load_picture(source: str | os.PathLike[str] | bytes, rule: Preprocessing) -> U8:
    """Decode a file, or the bytes of one, and bring it to the size and channels of a rule.

    Returns:
        uint8 [height, width, channels].

    Raises:
        ImageError: if it is no picture, is damaged, has several frames, is too large, or the rule refuses its size;
            the message starts with the file's name.
    """
    name = "the picture" if isinstance(source, bytes) else os.fspath(source)
    picture = read_picture(source, orientation=rule.orientation)
    try:
        return prepare(picture, rule)
    except ImageError as error:
        raise ImageError(f"{name} {error}") from None


def read_picture(source: str | os.PathLike[str] | bytes, *, orientation: str = "exif") -> U8:
    """Decode a picture to bytes.

    Grey has one channel, colour three, and transparency is one more. A palette is looked up; 16 bits keep the upper
    8; CMYK becomes (255 - ink) (255 - black) / 255, rounded. Colour profiles are ignored.

    Args:
        orientation: "exif" turns the picture as its EXIF data say; "stored" leaves it.

    Returns:
        uint8 [h, w, 1 to 4].

    Raises:
        ImageError: as for :func:`load_picture`.
    """
    array, turn = _opened(source, _stored)
    if orientation == "stored" or turn is None:
        return array
    transposed, rows, columns = turn
    array = array.transpose(1, 0, 2) if transposed else array
    return _flipped(array, rows, columns)


def read_size(source: str | os.PathLike[str] | bytes, *, orientation: str = "exif") -> tuple[int, int]:
    """Read the size of a picture from the head of its file, without decoding it (a TIFF is decoded).

    Args:
        orientation: as for :func:`read_picture`.

    Returns:
        Height and width in pixels; after turning if ``orientation`` is "exif".

    Raises:
        ImageError: as for :func:`load_picture`; damage behind the head, and EXIF data there, are not found.
    """
    (height, width), turn = _opened(source, _head)
    return (width, height) if orientation == "exif" and turn is not None and turn[0] else (height, width)


def _head(image: ImageFile.ImageFile, name: str) -> tuple[tuple[int, int], _Turn | None]:
    if image.format == "TIFF":
        array, turn = _stored(image, name)
        return (array.shape[0], array.shape[1]), turn
    return (image.size[1], image.size[0]), _asked(_exif_of(image))


def _opened(source: str | os.PathLike[str] | bytes, look: Callable[[ImageFile.ImageFile, str], _Found]) -> _Found:
    """Return what ``look`` finds in an opened picture, and turn what goes wrong into one sentence."""
    name = "the picture" if isinstance(source, bytes) else os.fspath(source)
    try:
        if not isinstance(source, bytes) and stat.S_ISFIFO(os.stat(name).st_mode):
            raise ImageError(f"{name} is a pipe, not a file")  # nobody may ever write to it
        with warnings.catch_warnings():
            # Our own limit is lower and raises an error; Pillow's warnings would only repeat what is refused or
            # ignored here (broken EXIF, transparency in palettes).
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else Path(name), formats=FORMATS) as image:
                _check(image, name)
                return look(image, name)
    except UnidentifiedImageError:
        raise ImageError(f"{name} is not a picture of a known format ({', '.join(FORMATS)})") from None
    except FileNotFoundError:
        raise ImageError(f"{name} does not exist") from None
    except IsADirectoryError:
        raise ImageError(f"{name} is a directory without a picture") from None
    except (*_BROKEN, MemoryError) as error:
        if isinstance(error, OSError) and error.strerror:
            raise ImageError(f"{name} cannot be read: {error.strerror}") from None
        raise ImageError(f"{name} cannot be decoded: {error or type(error).__name__}".split("\n")[0]) from None


def _flipped(array: U8, rows: bool, columns: bool) -> U8:
    return np.ascontiguousarray(array[:: -1 if rows else 1, :: -1 if columns else 1])


def _check(image: ImageFile.ImageFile, name: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"{name} has {width} x {height} pixels; at most {MAX_PIXELS} are allowed")
    if max(width, height) > MAX_SIDE or not min(width, height):
        raise ImageError(f"{name} has {width} x {height} pixels; a side must be in 1 to {MAX_SIDE}")
    # Telephones put previews behind the picture of a JPEG; anything else with frames is a film.
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format not in ("JPEG", "MPO"):
        raise ImageError(f"{name} has {frames} frames; a picture has one")


def _stored(image: ImageFile.ImageFile, name: str) -> tuple[U8, _Turn | None]:
    """Return the pixels as the file holds them, and how to turn them upright; None for not at all."""
    if image.format != "TIFF":
        array = _array(image, name)  # a PNG may hold its EXIF data behind its pixels
        return array, _asked(_exif_of(image))
    # Pillow turns a TIFF as it is decoded, some releases also by what XMP says.
    turn, turned = _asked(image.tag_v2), _asked(image.getexif())  # type: ignore[attr-defined]
    array = _array(image, name)
    if turned is not None:
        transposed, rows, columns = turned
        array = _flipped(array, rows, columns)
        array = np.ascontiguousarray(array.transpose(1, 0, 2)) if transposed else array
    return array, turn


def _exif_of(image: Image.Image) -> Mapping[int, object]:
    """Read the EXIF data alone: Pillow's ``getexif`` of the image itself also takes the orientation from XMP."""
    bare = Image.new("1", (1, 1))
    bare.info = {key: value for key, value in image.info.items() if key in ("exif", "Raw profile type exif")}
    try:
        return bare.getexif()
    except Exception:  # a broken block of EXIF data may raise anything, and says nothing then
        return {}


def _asked(tags: Mapping[int, object]) -> _Turn | None:
    try:
        return _TURNS.get(tags.get(_ORIENTATION, 1))  # type: ignore[call-overload, no-any-return]
    except Exception:  # broken data, see above
        return None


def _array(image: Image.Image, name: str) -> U8:
    mode = image.mode
    if image.format == "PNG" and mode == "RGB" and "16" in str(getattr(image, "tile", "")):
        image.info.pop("transparency", None)  # its 16 bits would be compared with the upper 8 of the pixels
    if mode in ("I", "I;16", "I;16L", "I;16B", "I;16N"):
        return _upper_bytes(np.asarray(image), name)
    image.load()
    if mode == "CMYK":
        return _rgb_of_cmyk(np.asarray(image))
    if mode == "1" and image.info.get("transparency"):
        image.info["transparency"] = 255  # before 12.1 Pillow says 1
    if "transparency" in image.info and mode in ("1", "L", "RGB"):
        image = image.convert("LA" if mode != "RGB" else "RGBA")
    elif mode == "1":
        image = image.convert("L")
    elif mode == "P":
        clear = "transparency" in image.info or getattr(image.palette, "mode", "") == "RGBA"
        image = image.convert("RGBA" if clear else "RGB")
    elif mode in _SAME_TO_US:
        image = image.convert(_SAME_TO_US[mode])
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        raise ImageError(f"{name} has Pillow's mode {mode}, which has no one meaning in bytes; save it as RGB")
    array = np.array(image, np.uint8)
    return array[:, :, None] if array.ndim == 2 else array


def _upper_bytes(values: npt.NDArray[np.generic], name: str) -> U8:
    numbers = values.astype(np.int64)
    if numbers.size and not 0 <= numbers.min() <= numbers.max() <= 65_535:
        raise ImageError(f"{name} holds numbers from {numbers.min()} to {numbers.max()}; 16 bits are the most")
    return (numbers >> 8).astype(np.uint8)[:, :, None]


def _rgb_of_cmyk(values: U8) -> U8:
    inks, black = 255 - values[:, :, :3].astype(np.int32), 255 - values[:, :, 3:].astype(np.int32)
    return ((inks * black + 127) // 255).astype(np.uint8)


def luma(rgb: npt.NDArray[np.generic]) -> U8:
    """Turn red, green and blue, uint8 [..., 3], into luma of ITU-R 601, uint8 [..., 1], as Pillow computes it."""
    red, green, blue = (rgb[..., i].astype(np.int32) for i in range(3))
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).astype(np.uint8)[..., None]


def prepare(picture: U8, rule: Preprocessing) -> U8:
    """Bring a decoded picture to the channels and size of a rule, as docs/bundle-format.md says.

    Args:
        picture: uint8 [h, w, c]; c is 1 (grey), 2 (grey, alpha), 3 (RGB) or 4 (RGB, alpha).

    Returns:
        uint8 [height, width, channels].

    Raises:
        ImageError: if the rule refuses the size; the message starts with a verb.
        ValueError: if dtype or shape is another.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or not 1 <= picture.shape[2] <= 4 or not picture.size:
        raise ValueError(f"`picture` is {picture.dtype} {picture.shape}; it must be uint8 [h, w, 1 to 4], not empty")
    # The sizes first: a refusal costs nothing then.
    height, width, window = _geometry(picture.shape[0], picture.shape[1], rule)
    picture = on_background(picture, rule.channels, rule.background)
    if (height, width) != picture.shape[:2]:
        picture = resample(picture, height, width, filter=rule.filter, window=window)
    elif window is not None:
        (top, bottom), (left, right) = window
        picture = picture[top:bottom, left:right]
    if rule.resize == "pad":
        padded = np.empty((rule.height, rule.width, rule.channels), np.uint8)
        padded[:] = rule.fill
        top, left = (rule.height - height) // 2, (rule.width - width) // 2
        padded[top : top + height, left : left + width] = picture
        return padded
    return np.ascontiguousarray(picture)


def on_background(picture: U8, channels: int, background: Sequence[int]) -> U8:
    """Bring a decoded picture to one or three channels, over a background of red, green and blue.

    Args:
        picture: uint8 [h, w, 1 to 4].

    Returns:
        uint8 [h, w, channels].
    """
    colours, alpha = picture, None
    if picture.shape[2] in (2, 4):
        colours, alpha = picture[:, :, :-1], picture[:, :, -1:].astype(np.int32)
    if channels == 1 and colours.shape[2] == 3:
        colours = luma(colours)
    elif channels == 3 and colours.shape[2] == 1:
        colours = np.repeat(colours, 3, axis=2)
    if alpha is None:
        return colours
    colour = np.array(background, np.uint8)
    under = (colour if channels == 3 else luma(colour)).astype(np.int32)
    return ((colours * alpha + under * (255 - alpha) + 127) // 255).astype(np.uint8)


def _geometry(height: int, width: int, rule: Preprocessing) -> tuple[int, int, tuple[Window, Window] | None]:
    """Height and width of the scaled picture, and the part of it that is kept."""
    if rule.resize == "none":
        if (height, width) != (rule.height, rule.width):
            raise ImageError(
                f"has {width} x {height} pixels; the model takes {rule.width} x {rule.height} and no other"
            )
        return height, width, None
    if rule.resize == "squash":
        return rule.height, rule.width, None
    if rule.resize == "pad":
        if height * rule.width <= width * rule.height:
            return max(1, (2 * height * rule.width + width) // (2 * width)), rule.width, None
        return rule.height, max(1, (2 * width * rule.height + height) // (2 * height)), None
    short = min(height, width)
    scaled = rule.short_side * height // short, rule.short_side * width // short
    if max(scaled) > MAX_SIDE:
        raise ImageError(
            f"has {width} x {height} pixels: with {rule.short_side} on the short side the other would have "
            f"{max(scaled)}; at most {MAX_SIDE} are allowed"
        )
    top, left = _middle(scaled[0] - rule.height), _middle(scaled[1] - rule.width)
    return *scaled, ((top, top + rule.height), (left, left + rule.width))


def _middle(rest: int) -> int:
    """Half of what is cut off, rounded half to even as torchvision's ``CenterCrop`` does."""
    half, odd = divmod(rest, 2)
    return half + (odd & half)


def canned_pictures(seed: int, rule: Preprocessing) -> CannedPictures:
    """Make the canned pictures of a bundle: two odd sizes, in 1 to 4 channels; the rule's own size if it is fixed."""
    height, width = rule.height, rule.width
    if rule.resize == "none":
        sizes = [(height, width)]
    else:
        sizes = [_odd(3 * height // 2, 2 * width, rule), _odd(2 * height // 3, width // 2, rule)]
    pictures = tuple((height, width, channels) for height, width in sizes for channels in (1, 2, 3, 4))
    digest = hashlib.sha256()
    for index, each in enumerate(pictures):
        digest.update(prepare(draw_picture(seed, index, *each), rule).tobytes())
    return CannedPictures(pictures, digest.hexdigest())


def check_canned_pictures(bundle: Bundle) -> None:
    """Prepare a bundle's canned pictures and compare the results with the bundle's digest.

    Raises:
        ImageError: if a picture comes out differently, or the rule refuses its size.
    """
    digest = hashlib.sha256()
    for picture in bundle.canned_pictures():
        digest.update(prepare(picture, bundle.manifest.preprocessing).tobytes())
    if digest.hexdigest() != bundle.manifest.canned.pictures.sha256:
        raise ImageError("the canned pictures do not become the bytes that the bundle states")


def _odd(height: int, width: int, rule: Preprocessing) -> tuple[int, int]:
    """Make two sides odd and small enough, also after the short one has been scaled to that of the rule."""
    height, width = (min(side | 1, _LARGEST_CANNED) for side in (height, width))
    longest = min(height, width) * MAX_SIDE // max(1, rule.short_side)
    return min(height, longest), min(width, longest)


def _digest(array: U8) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()
