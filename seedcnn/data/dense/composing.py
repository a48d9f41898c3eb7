"""Scenes for detection and segmentation: cut-outs pasted on photographs, in integer arithmetic.

The same seed gives the same bytes on every machine whose decoders give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from seedcnn.arrays import U8
from seedcnn.data.dense.segmentation_set import IGNORE
from seedcnn.runtime.resampling import resample

__all__ = ["SIDE", "Placed", "Scene", "compose", "prepared"]

SIDE = 256
"""Height and width of a scene, in pixels."""

_OBJECTS = (2, 6)
_LENGTHS = tuple(round(24 * (128 / 24) ** (step / 63)) for step in range(64))  # of the longer side, log-uniform
_DEGREES = 15
_SHARE, _LEAST = 4, 64  # an object counts if a quarter of it, and 64 pixels, can be seen
_UNIT = 1 << 16


class Placed(NamedTuple):
    """An object of a scene: its label, its box (x1, y1, x2, y2), its visible pixels, and whether it counts.

    ``mask`` is uint8 [SIDE, SIDE] of 0 and 1.
    """

    label: int
    box: tuple[int, int, int, int]
    mask: U8
    counts: bool


class Scene(NamedTuple):
    """A composed picture uint8 [SIDE, SIDE, 3], its index map uint8 [SIDE, SIDE], and its objects.

    In the map, 0 is the background, label n is n + 1, and objects that do not count are ignored.
    """

    picture: U8
    index_map: U8
    objects: tuple[Placed, ...]


class _Draws:
    """Integers from raw words of Philox(key=(seed, index)), which no release of numpy changes."""

    def __init__(self, seed: int, index: int) -> None:
        self._bits = np.random.Philox(key=np.array([seed, index], np.uint64))

    def below(self, n: int) -> int:
        """An integer in [0, n)."""
        return (int(self._bits.random_raw()) >> 32) * n >> 32

    def between(self, low: int, high: int) -> int:
        """An integer in [low, high]."""
        return low + self.below(high - low + 1)


def prepared(cut_out: U8) -> U8:
    """Crop a cut-out to what can be seen, multiply its colours by its alpha, and bring its longer side to 128 pixels.

    Args:
        cut_out: uint8 [h, w, 4].

    Returns:
        uint8 [h', w', 4].

    Raises:
        ValueError: if nothing of it is opaque.
    """
    rows, columns = (np.flatnonzero((cut_out[..., 3] >= 128).any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        raise ValueError("`cut_out` has no opaque pixel; it must show something")
    cropped = cut_out[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.int32)
    colours = (cropped[..., :3] * cropped[..., 3:] + 127) // 255
    return _scaled(np.concatenate([colours, cropped[..., 3:]], axis=2).astype(np.uint8), _LENGTHS[-1])


def _scaled(picture: U8, length: int) -> U8:
    """Resize so that the longer side has ``length`` pixels."""
    h, w, _ = picture.shape
    return resample(picture, max(1, length * h // max(h, w)), max(1, length * w // max(h, w)))


def _turned(picture: U8, degrees: int) -> U8:
    """Turn a premultiplied cut-out about its middle, with weights of 8 bits between four neighbours."""
    cos, sin = (round(f(math.radians(degrees)) * _UNIT) for f in (math.cos, math.sin))
    h, w, _ = picture.shape
    height = (h * cos + w * abs(sin)) // _UNIT + 1
    width = (w * cos + h * abs(sin)) // _UNIT + 1
    # Twice the distances from the middle, so that they are integers.
    y, x = 2 * np.arange(height)[:, None] + 1 - height, 2 * np.arange(width)[None] + 1 - width
    source_y = (cos * y - sin * x + (h - 1) * _UNIT) >> 9  # in 256ths of a pixel
    source_x = (sin * y + cos * x + (w - 1) * _UNIT) >> 9
    padded = np.zeros((h + 2, w + 2, 4), np.int32)
    padded[1:-1, 1:-1] = picture
    row, column = np.clip((source_y >> 8) + 1, 0, h), np.clip((source_x >> 8) + 1, 0, w)
    inside = (source_y >= -256) & (source_y < 256 * h) & (source_x >= -256) & (source_x < 256 * w)
    down, right = ((each & 255).astype(np.int32)[..., None] for each in (source_y, source_x))
    above = padded[row, column] * (256 - right) + padded[row, column + 1] * right
    below = padded[row + 1, column] * (256 - right) + padded[row + 1, column + 1] * right
    mixed = (above * (256 - down) + below * down + (1 << 15)) >> 16
    return (mixed * inside[..., None]).astype(np.uint8)


def _background(photo: U8, draws: _Draws) -> U8:
    """A square part of a photograph, perhaps mirrored."""
    side = draws.between(min(SIDE, *photo.shape[:2]), min(photo.shape[:2]))
    top, left = draws.below(photo.shape[0] - side + 1), draws.below(photo.shape[1] - side + 1)
    part = resample(np.ascontiguousarray(photo[top : top + side, left : left + side]), SIDE, SIDE)
    return part[:, ::-1].copy() if draws.below(2) else part.copy()


def _drawn(cut_out: U8, draws: _Draws) -> U8:
    length = _LENGTHS[draws.below(len(_LENGTHS))]
    small = _scaled(cut_out, length)
    small = small[:, ::-1] if draws.below(2) else small
    return _turned(small, draws.between(-_DEGREES, _DEGREES))


def compose(seed: int, index: int, photos: Sequence[U8], cut_outs: Sequence[tuple[int, U8]], *, salt: int = 0) -> Scene:
    """Compose scene ``index``: 2 to 6 cut-outs, turned, mirrored and scaled, on a part of a photograph.

    Args:
        seed: in [0, 2**32).
        index: of the scene, in [0, 2**64).
        photos: uint8 [h, w, 3] each, both sides at least 2 pixels.
        cut_outs: (label, :func:`prepared` cut-out) each; labels are drawn evenly, whatever the number of cut-outs.
        salt: of the split, in [0, 2**32), so that no two splits draw the same.

    Returns:
        The scene. Objects come from the last pasted map, so that boxes and masks are what can be seen; one of which
        less than a quarter or 64 pixels can be seen does not count.
    """
    draws = _Draws(seed << 32 | salt, index)
    picture = _background(photos[draws.below(len(photos))], draws)
    by_label: Mapping[int, list[U8]] = {label: [] for label, _ in cut_outs}
    for label, cut_out in cut_outs:
        by_label[label].append(cut_out)
    labels = sorted(by_label)
    owner = np.full((SIDE, SIDE), -1, np.int64)
    pasted = []
    for number in range(draws.between(*_OBJECTS)):
        label = labels[draws.below(len(labels))]
        chosen = by_label[label]
        drawn = _drawn(chosen[draws.below(len(chosen))], draws)
        pasted.append((label, _paste(picture, owner, drawn, number, draws)))
    return _scene(picture, owner, pasted)


def _paste(picture: U8, owner: npt.NDArray[np.int64], drawn: U8, number: int, draws: _Draws) -> int:
    """Paste a cut-out, up to a quarter of it outside; return its opaque pixels, inside and outside."""
    h, w, _ = drawn.shape
    top, left = draws.between(-(h // 4), SIDE - h + h // 4), draws.between(-(w // 4), SIDE - w + w // 4)
    y, x = max(0, top), max(0, left)
    part = drawn[y - top : SIDE - top, x - left : SIDE - left].astype(np.int32)
    at = (slice(y, y + part.shape[0]), slice(x, x + part.shape[1]))
    alpha = part[..., 3:]
    picture[at] = np.minimum(255, part[..., :3] + (picture[at] * (255 - alpha) + 127) // 255)
    owner[at][alpha[..., 0] >= 128] = number
    return int((drawn[..., 3] >= 128).sum())


def _scene(picture: U8, owner: npt.NDArray[np.int64], pasted: Sequence[tuple[int, int]]) -> Scene:
    index_map = np.zeros((SIDE, SIDE), np.uint8)
    objects = []
    for number, (label, whole) in enumerate(pasted):
        mask = (owner == number).astype(np.uint8)
        seen = int(mask.sum())
        if not seen:
            continue
        rows, columns = (np.flatnonzero(mask.any(axis=axis)).tolist() for axis in (1, 0))
        counts = seen >= _LEAST and seen * _SHARE >= whole
        index_map[mask == 1] = label + 1 if counts else IGNORE
        objects.append(Placed(label, (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1), mask, counts))
    return Scene(picture, index_map, tuple(objects))
