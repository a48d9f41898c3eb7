"""Common corruptions (Hendrycks and Dietterich, ICLR 2019) as batched array functions of numpy.

Each corruption is one row of ``CORRUPTIONS``: its group, its constants by severity, the random fields it draws, and a
function from a batch on the 0..1 scale (float64) or on the 0..255 scale (uint8) to the corrupted batch. Constants,
order of operations and truncation follow the official ``make_cifar_c.py`` and ``make_imagenet_c.py``
(github.com/hendrycks/robustness, commit 8190fe3).

The four here, by the papers' groups: gaussian_noise is Noise, gaussian_blur is Blur, contrast and pixelate are both
Digital; none is Weather. gaussian_blur is one of the four extra corruptions, outside the 15 that mCE averages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["CORRUPTIONS", "GROUPS", "SEVERITIES", "Corruption", "corrupt", "draw_fields"]

U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]
Fields = Mapping[str, F64]

GROUPS = ("Noise", "Blur", "Weather", "Digital")
SEVERITIES = (1, 2, 3, 4, 5)
_PILLOW_BITS = 22  # Pillow's fixed point for 8-bit pictures: 32 - 8 - 2
_PHILOX_TAG = 0x5EEDC0  # keeps these draws apart from any other use of the same key


@dataclass(frozen=True)
class Corruption:
    """One corruption.

    Args:
        name, group: as the papers name them; the group is one of ``GROUPS``.
        number: its address in the random stream; never reused, never changed.
        main: one of the 15 corruptions that mCE averages.
        constants: five numbers (severity 1 to 5) for each set of constants, "cifar" and "imagenet".
        apply: (images uint8 [N, H, W, 3], constant, fields) to uint8 or to float on the 0..255 scale, which is then
            truncated (not rounded), as in the official code.
        draw: (generator, picture shape) to the random fields of one picture, by name; None if nothing is random.
    """

    name: str
    group: str
    number: int
    main: bool
    constants: Mapping[str, tuple[float, ...]]
    apply: Callable[[U8, float, Fields], U8 | F64]
    draw: Callable[[np.random.Generator, tuple[int, ...]], dict[str, F64]] | None = None


def _to_levels(unit: F64) -> F64:
    """Clip to 0..1 and scale to 0..255, in place."""
    np.clip(unit, 0, 1, out=unit)
    unit *= 255
    return unit


def _draw_normal(generator: np.random.Generator, shape: tuple[int, ...]) -> dict[str, F64]:
    return {"normal": generator.standard_normal(shape)}


def _gaussian_noise(images: U8, sigma: float, fields: Fields) -> F64:
    return _to_levels(images / 255.0 + fields["normal"] * sigma)


def _contrast(images: U8, factor: float, _: Fields) -> F64:
    unit = images / 255.0
    mean = unit.mean(axis=(1, 2), keepdims=True)
    return _to_levels((unit - mean) * factor + mean)


def _blur_axis(unit: F64, weights: F64, axis: int) -> F64:
    """Correlate with a symmetric kernel along one axis, edges repeated."""
    radius, size = len(weights) // 2, unit.shape[axis]
    widths = [(radius, radius) if i == axis else (0, 0) for i in range(unit.ndim)]
    padded = np.moveaxis(np.pad(unit, widths, mode="edge"), axis, 0)
    result = padded[radius : radius + size] * weights[radius]
    pair = np.empty_like(result)
    # Pairs from the outside in, as scipy adds them: the truncation to 8 bits shows every other order in flat areas.
    for i in range(radius):
        np.add(padded[i : i + size], padded[2 * radius - i : 2 * radius - i + size], out=pair)
        pair *= weights[i]
        result += pair
    return np.moveaxis(result, 0, axis)


def _gaussian_blur(images: U8, sigma: float, _: Fields) -> F64:
    radius = int(4 * sigma + 0.5)
    weights = np.exp(-0.5 / sigma**2 * np.arange(-radius, radius + 1) ** 2)
    weights /= weights.sum()
    return _to_levels(_blur_axis(_blur_axis(images / 255.0, weights, 1), weights, 2))


@lru_cache(maxsize=64)
def _box_matrix(size: int, new_size: int) -> F64:
    """Pillow's BOX coefficients in fixed point as a matrix [new_size, size] (Resample.c, precompute_coeffs)."""
    scale = size / new_size
    support = 0.5 * max(scale, 1.0)
    matrix = np.zeros((new_size, size))
    for row in range(new_size):
        center = (row + 0.5) * scale
        first, last = max(int(center - support + 0.5), 0), min(int(center + support + 0.5), size)
        distance = (np.arange(first, last) - center + 0.5) / max(scale, 1.0)
        inside = (distance > -0.5) & (distance <= 0.5)
        matrix[row, first:last] = np.floor(inside / inside.sum() * 2.0**_PILLOW_BITS + 0.5)
    matrix.setflags(write=False)
    return matrix


def _resize_box(images: U8, height: int, width: int) -> U8:
    """``PIL.Image.resize((width, height), BOX)`` of each picture, bit for bit. uint8 [N, height, width, C]."""
    n, h, w, c = images.shape

    def to_u8(sums: F64) -> U8:
        # The sums are integers below 2**31, so float64 matrix products are exact.
        return np.clip(np.floor(sums * 2.0**-_PILLOW_BITS + 0.5), 0, 255).astype(np.uint8)

    # Pillow goes along the rows first and rounds to 8 bits in between.
    across = to_u8(np.matmul(_box_matrix(w, width), images.reshape(n * h, w, c).astype(np.float64)))
    down = to_u8(np.matmul(_box_matrix(h, height), across.reshape(n, h, width * c).astype(np.float64)))
    return down.reshape(n, height, width, c)


def _pixelate(images: U8, scale: float, _: Fields) -> U8:
    height, width = images.shape[1:3]
    small = _resize_box(images, int(height * scale), int(width * scale))
    return _resize_box(small, height, width)


def _constants(cifar: Sequence[float], imagenet: Sequence[float]) -> Mapping[str, tuple[float, ...]]:
    return MappingProxyType({"cifar": tuple(cifar), "imagenet": tuple(imagenet)})


_TABLE = (
    Corruption(
        "gaussian_noise", "Noise", 0, True,
        _constants([0.04, 0.06, 0.08, 0.09, 0.10], [0.08, 0.12, 0.18, 0.26, 0.38]),
        _gaussian_noise, _draw_normal,
    ),
    Corruption(
        "gaussian_blur", "Blur", 8, False,
        _constants([0.4, 0.6, 0.7, 0.8, 1.0], [1, 2, 3, 4, 6]),
        _gaussian_blur,
    ),
    Corruption(
        "contrast", "Digital", 14, True,
        _constants([0.75, 0.5, 0.4, 0.3, 0.15], [0.4, 0.3, 0.2, 0.1, 0.05]),
        _contrast,
    ),
    Corruption(
        "pixelate", "Digital", 16, True,
        _constants([0.95, 0.9, 0.85, 0.75, 0.65], [0.6, 0.5, 0.4, 0.3, 0.25]),
        _pixelate,
    ),
)  # fmt: skip

CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType({row.name: row for row in _TABLE})


def _lookup(name: str, severity: int) -> Corruption:
    if name not in CORRUPTIONS:
        raise ValueError(f"`name` (={name!r}) is no corruption; known: {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise ValueError(f"`severity` (={severity!r}) must be one of 1, 2, 3, 4, 5")
    return CORRUPTIONS[name]


def draw_fields(
    name: str, severity: int, shape: tuple[int, ...], indices: npt.ArrayLike, *, seed: int = 0
) -> dict[str, F64]:
    """The random fields of a corruption for the pictures with these indices.

    Picture n draws from numpy's ``Generator(Philox(key=(seed, n)))``, with the corruption's number and the severity in
    the counter's upper words: its field depends on (seed, n, corruption, severity) and on nothing else.

    Args:
        name, severity: as for ``corrupt``.
        shape: of one picture, (H, W, 3).
        indices: N integers in [0, 2**64), for example positions in the test set.
        seed: integer in [0, 2**64).

    Returns:
        float64 arrays [N, ...] by name; empty if nothing about the corruption is random. gaussian_noise draws
        ``{"normal": [N, H, W, 3]}``, standard normal.

    Raises:
        ValueError: if the name or severity is unknown, or seed or an index is out of range.
    """
    corruption = _lookup(name, severity)
    if not 0 <= seed < 2**64:
        raise ValueError(f"`seed` (={seed}) must be in [0, 2**64)")
    if corruption.draw is None:
        return {}
    per_picture = []
    for position in np.asarray(indices).tolist():
        if not isinstance(position, int) or not 0 <= position < 2**64:
            raise ValueError(f"`indices` holds {position!r}; each must be an integer in [0, 2**64)")
        counter = np.array([0, severity, corruption.number, _PHILOX_TAG], np.uint64)
        bits = np.random.Philox(key=np.array([seed, position], np.uint64), counter=counter)
        per_picture.append(corruption.draw(np.random.Generator(bits), shape))
    return {key: np.stack([fields[key] for fields in per_picture]) for key in (per_picture[0] if per_picture else {})}


def _checked_fields(corruption: Corruption, fields: Mapping[str, Any], shape: tuple[int, ...]) -> Fields:
    probe = np.random.Generator(np.random.Philox(0))
    wanted = {} if corruption.draw is None else corruption.draw(probe, shape[1:])
    if set(fields) != set(wanted):
        raise ValueError(
            f"`fields` of {corruption.name} has the keys {sorted(fields)}; it must have exactly {sorted(wanted)}"
        )
    arrays = {key: np.asarray(value, np.float64) for key, value in fields.items()}
    for key, array in arrays.items():
        if array.shape != (shape[0], *wanted[key].shape):
            raise ValueError(f"`fields[{key!r}]` has shape {array.shape}; it must be {(shape[0], *wanted[key].shape)}")
    return arrays


def corrupt(
    images: U8,
    name: str,
    severity: int,
    *,
    constants: str = "cifar",
    seed: int = 0,
    indices: npt.ArrayLike | None = None,
    fields: Mapping[str, npt.ArrayLike] | None = None,
) -> U8:
    """Corrupt a batch of pictures.

    Args:
        images: uint8 [N, H, W, 3], RGB; not changed.
        name: a key of ``CORRUPTIONS``.
        severity: 1 to 5.
        constants: "cifar" (as for CIFAR-10-C) or "imagenet" (as for ImageNet-C).
        seed: of the random corruptions.
        indices: N integers that address each picture's random draws (see ``draw_fields``), so that a picture is
            corrupted alike whatever batch it is in; 0..N-1 if None.
        fields: the drawn random fields by name, instead of drawing them; ``seed`` and ``indices`` are then unused.

    Returns:
        uint8 [N, H, W, 3], a new array. Float results are truncated, not rounded, as in the official code.

    Raises:
        ValueError: naming the argument, its value and the rule.
    """
    corruption = _lookup(name, severity)
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        described = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise ValueError(f"`images` is {described}; it must be a uint8 array [N, H, W, 3]")
    if min(images.shape[1:3]) < 4:
        raise ValueError(f"`images` has pictures of {images.shape[1:3]} pixels; each side must have at least 4")
    if constants not in corruption.constants:
        raise ValueError(f"`constants` (={constants!r}) must be one of {', '.join(corruption.constants)}")
    if fields is not None:
        drawn = _checked_fields(corruption, fields, images.shape)
    else:
        where = np.arange(len(images)) if indices is None else np.asarray(indices)
        if where.shape != (len(images),):
            raise ValueError(f"`indices` has shape {where.shape}; it must be ({len(images)},), one per picture")
        drawn = draw_fields(name, severity, images.shape[1:], where, seed=seed)
    if not len(images):
        return images.copy()
    return corruption.apply(images, corruption.constants[constants][severity - 1], drawn).astype(np.uint8)
