"""Emoji images from npm packages: tiles cut from vendor sheets, put on white at 32 x 32, without repeats."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from seedcnn.arrays import U8
from seedcnn.errors import DataError

__all__ = ["SIZE", "Key", "Package", "code_points", "distinct", "fluent_tiles", "on_white", "sheet_tiles"]

SIZE = 32
MIN_DISTANCE = 4.0  # of 255: repeats of a design differ by less than 3, redrawn designs by more
FLUENT = "fluent3d"
_FLUENT_FILE = re.compile(r"assets/[0-9A-Fa-f-]+\.webp")

Key = tuple[str, str]  # vendor, code points
Read = Callable[[str], bytes]


def code_points(text: str) -> str:
    """Code points in upper case, joined by hyphens, without the variation selector FE0F."""
    return "-".join(part for part in text.upper().replace("_", "-").split("-") if part != "FE0F")


def on_white(image: Image.Image) -> U8:
    """The image on a white background, resized if needed: uint8 [32, 32, 3]."""
    picture = image.convert("RGBA")
    opaque = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    if opaque.size != (SIZE, SIZE):
        opaque = opaque.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return np.array(opaque)


def _open(content: bytes, name: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content), formats=["PNG", "WEBP"])
        image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{name} in the package is not an image: {error}") from error
    return image


@dataclass(frozen=True)
class _Cell:
    """Column and row of an emoji in the sheets, and the vendors whose sheet shows their own image."""

    column: int
    row: int
    vendors: frozenset[str]


def _cells(content: bytes) -> dict[str, _Cell]:
    """The cell of each emoji and each skin tone, by code points."""
    try:
        table: dict[str, _Cell] = {}
        for entry in json.loads(content):
            for each in (entry, *(entry.get("skin_variations") or {}).values()):
                vendors = frozenset(key.removeprefix("has_img_") for key in each if key.startswith("has_img_"))
                own = frozenset(vendor for vendor in vendors if each[f"has_img_{vendor}"] is True)
                table[code_points(each["unified"])] = _Cell(int(each["sheet_x"]), int(each["sheet_y"]), own)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"emoji.json is not a table of emoji: {type(error).__name__}: {error}") from error
    return table


def sheet_tiles(read: Read, names: Iterable[str], wanted: Iterable[str], *, pitch: int, border: int) -> dict[Key, U8]:
    """Cut the wanted emoji from the sheets of every vendor in an ``emoji-datasource`` package.

    A cell is used only if ``has_img_<vendor>`` is true: other cells show the image of another vendor.

    Args:
        read: from a file name in the package to its content.
        names: the files of the package.
        wanted: code points.
        pitch, border: distance between tiles, and empty pixels on their left and top: 32 and 0 in version 3.0.0,
            34 and 1 from 4.0.4 on.

    Raises:
        DataError: if emoji.json or a sheet is missing or damaged, or a cell is outside its sheet.
    """
    cells = _cells(read("emoji.json"))
    wanted = [code for code in wanted if code in cells]
    tiles: dict[Key, U8] = {}
    for name in sorted(n for n in names if n.startswith("img/") and n.endswith("/sheets/32.png")):
        vendor = name.split("/")[1]
        sheet = _open(read(name), name).convert("RGBA")
        for code in wanted:
            if vendor not in cells[code].vendors:
                continue
            left, top = (place * pitch + border for place in (cells[code].column, cells[code].row))
            if left + SIZE > sheet.width or top + SIZE > sheet.height:
                raise DataError(f"{name} has {sheet.size} pixels; {code} would lie at ({left}, {top})")
            tiles[vendor, code] = on_white(sheet.crop((left, top, left + SIZE, top + SIZE)))
    if not tiles:
        raise DataError("the package has no sheet img/<vendor>/sheets/32.png with any of the emoji")
    return tiles


def fluent_tiles(read: Read, names: Iterable[str], wanted: Iterable[str]) -> dict[Key, U8]:
    """The wanted emoji from a package with one image file per emoji, ``assets/<code points>.webp``.

    Raises:
        DataError: if the package has none of them, or an image is damaged.
    """
    files = {
        code_points(n.removeprefix("assets/").removesuffix(".webp")): n for n in names if _FLUENT_FILE.fullmatch(n)
    }
    tiles = {(FLUENT, code): on_white(_open(read(files[code]), files[code])) for code in wanted if code in files}
    if not tiles:
        raise DataError("the package has no assets/<code points>.webp of any of the emoji")
    return tiles


def distinct(tiles: Iterable[U8]) -> list[U8]:
    """The tiles, in order, whose mean absolute difference from each tile kept so far is at least 4 of 255."""
    kept: list[U8] = []
    for tile in tiles:
        if all(np.abs(tile.astype(np.int16) - other).mean() >= MIN_DISTANCE for other in kept):
            kept.append(tile)
    return kept


@dataclass(frozen=True)
class Package:
    """An npm package of emoji images.

    Args:
        spec: name@version, as npm writes it.
        sha256: of its archive.
        size: of its archive, in bytes.
        licence: terms of the images, as a phrase.
        cut: from (read, names, wanted code points) to tiles.
    """

    spec: str
    sha256: str
    size: int
    licence: str
    cut: Callable[[Read, Iterable[str], Iterable[str]], Mapping[Key, U8]]

    def tiles(self, read: Read, names: Iterable[str], wanted: Iterable[str]) -> Mapping[Key, U8]:
        """Call ``cut``, and name the package in its errors."""
        try:
            return self.cut(read, names, wanted)
        except DataError as error:
            raise DataError(f"{self.spec}: {error}") from error
