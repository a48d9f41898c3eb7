"""``corrupt`` and ``draw_fields``: argument checks, random streams, and processing in blocks of bounded memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch

from seedcnn.arrays import U8
from seedcnn.data.corruptions._table import CORRUPTIONS
from seedcnn.data.corruptions.core import SEVERITIES, Corruption, Fields, Setting
from seedcnn.data.corruptions.frost import frost_pictures
from seedcnn.errors import did_you_mean

__all__ = ["corrupt", "draw_fields"]

SMALLEST_SIDE = 32
_PHILOX_TAG = 0x5EEDC0  # separates these draws from any other use of the same key
_BLOCK_PIXELS = 24 * 1024  # images are corrupted in blocks of about this many pixels, which fit in the cache


def _setting(
    name: str, severity: int, constants: str, frost_dir: str | os.PathLike[str] | None, shape: tuple[int, ...]
) -> tuple[Corruption, Setting]:
    if not isinstance(name, str) or name not in CORRUPTIONS:
        hint = did_you_mean(name, CORRUPTIONS)
        raise ValueError(f"`name` (={name!r}) is not a corruption; {hint}known: {', '.join(CORRUPTIONS)}")
    if not isinstance(severity, int | np.integer) or isinstance(severity, bool) or severity not in SEVERITIES:
        raise ValueError(f"`severity` (={severity!r}) must be one of 1, 2, 3, 4, 5")
    corruption = CORRUPTIONS[name]
    if not isinstance(constants, str) or constants not in corruption.constants:
        raise ValueError(f"`constants` (={constants!r}) must be one of {', '.join(corruption.constants)}")
    frost: tuple[U8, ...] = ()
    if name == "frost":
        # The official CIFAR code shrinks the frost images by five; the ImageNet code uses their full size.
        frost = frost_pictures(frost_dir, shrink=5 if constants == "cifar" else 1, height=shape[0], width=shape[1])
    return corruption, Setting(corruption.constants[constants][severity - 1], frost)


def _check_images(images: Any) -> None:
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        described = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else type(images).__name__
        raise ValueError(f"`images` is {described}; it must be a uint8 array [N, H, W, 3]")
    if min(images.shape[1:3]) < SMALLEST_SIDE:
        raise ValueError(
            f"`images` are {images.shape[1:3]} pixels large; each side must have at least {SMALLEST_SIDE} pixels"
        )


def _check_address(seed: int, indices: npt.ArrayLike | None, n: int) -> list[int]:
    if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**64:
        raise ValueError(f"`seed` (={seed!r}) must be an integer in [0, 2**64)")
    where = np.arange(n) if indices is None else np.asarray(indices)
    if where.shape != (n,):
        raise ValueError(f"`indices` has shape {where.shape}; it must be ({n},), one per image")
    positions = where.tolist()
    for position in positions:
        if not isinstance(position, int) or not 0 <= position < 2**64:
            raise ValueError(f"`indices` holds {position!r}; each must be an integer in [0, 2**64)")
    return positions


def _generators(seed: int, severity: int, number: int, positions: Sequence[int]) -> Iterator[np.random.Generator]:
    """Yield ``Generator(Philox(key=(seed, position)))`` for each image, always as the same object with a new state."""
    bits = np.random.Philox(0)
    generator, state = np.random.Generator(bits), bits.state
    for position in positions:
        state["state"]["counter"] = np.array([0, severity, number, _PHILOX_TAG], np.uint64)
        state["state"]["key"] = np.array([seed, position], np.uint64)
        state["buffer_pos"], state["has_uint32"] = 4, 0
        bits.state = state
        yield generator


def _draw(corruption: Corruption, at: Setting, images: U8, severity: int, seed: int, where: Sequence[int]) -> Fields:
    if corruption.draw is None:
        return {}
    generators = _generators(seed, severity, corruption.number, where)
    rows = [corruption.draw(generator, picture, at) for generator, picture in zip(generators, images, strict=True)]
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


def draw_fields(
    images: U8,
    name: str,
    severity: int,
    *,
    constants: str = "cifar",
    seed: int = 0,
    indices: npt.ArrayLike | None = None,
    frost_dir: str | os.PathLike[str] | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """The random fields that ``corrupt`` draws with the same arguments.

    Image n draws from numpy's ``Generator(Philox(key=(seed, n)))``, with the number of the corruption and the severity
    in the upper words of the counter. So its fields depend only on the image, seed, n, corruption, severity and
    constants.

    Args:
        images, name, severity, constants, seed, indices, frost_dir: as for ``corrupt``.

    Returns:
        Arrays [N, ...] by name; empty if the corruption is not random or there are no images. Their names, shapes and
        ranges are listed in docs/corruptions.md.

    Raises:
        ValueError: naming the argument, its value and the rule.
        DataError: if the frost images are needed and not available.
    """
    _check_images(images)
    corruption, at = _setting(name, severity, constants, frost_dir, images.shape[1:])
    positions = _check_address(seed, indices, len(images))
    return dict(_draw(corruption, at, images, severity, seed, positions)) if len(images) else {}


def _check_fields(corruption: Corruption, at: Setting, images: U8, fields: Mapping[str, npt.ArrayLike]) -> Fields:
    probe = np.random.Generator(np.random.Philox(0))
    wanted = {} if corruption.draw is None else corruption.draw(probe, images[0], at)
    if set(fields) != set(wanted):
        raise ValueError(
            f"`fields` of {corruption.name} has the keys {sorted(fields)}; it must have exactly {sorted(wanted)}"
        )
    arrays = {}
    for key, example in wanted.items():
        array, like = np.asarray(fields[key]), np.asarray(example)
        if array.shape != (len(images), *like.shape):
            raise ValueError(f"`fields[{key!r}]` has shape {array.shape}; it must be {(len(images), *like.shape)}")
        if not np.can_cast(array.dtype, like.dtype, "same_kind"):
            raise ValueError(f"`fields[{key!r}]` is {array.dtype}; it must be {like.dtype}")
        if not np.isfinite(array).all():
            raise ValueError(f"`fields[{key!r}]` holds a value that is not finite; each must be a number")
        arrays[key] = array if np.issubdtype(like.dtype, np.integer) else array.astype(like.dtype, copy=False)
    return arrays


@overload
def corrupt(
    images: U8,
    name: str,
    severity: int,
    *,
    constants: str = ...,
    seed: int = ...,
    indices: npt.ArrayLike | None = ...,
    fields: Mapping[str, npt.ArrayLike] | None = ...,
    frost_dir: str | os.PathLike[str] | None = ...,
) -> U8: ...
@overload
def corrupt(
    images: torch.Tensor,
    name: str,
    severity: int,
    *,
    constants: str = ...,
    seed: int = ...,
    indices: npt.ArrayLike | None = ...,
    fields: Mapping[str, npt.ArrayLike] | None = ...,
    frost_dir: str | os.PathLike[str] | None = ...,
) -> torch.Tensor: ...
def corrupt(
    images: U8 | torch.Tensor,
    name: str,
    severity: int,
    *,
    constants: str = "cifar",
    seed: int = 0,
    indices: npt.ArrayLike | None = None,
    fields: Mapping[str, npt.ArrayLike] | None = None,
    frost_dir: str | os.PathLike[str] | None = None,
) -> U8 | torch.Tensor:
    """Corrupt a batch of images.

    Args:
        images: uint8 [N, H, W, 3], RGB, each side at least 32; not modified. An array, or a tensor on any device;
            numpy does the work on the CPU, and the result of a tensor is a tensor on the same device.
        name: a key of ``CORRUPTIONS``.
        severity: 1 to 5.
        constants: "cifar" (as for CIFAR-10-C) or "imagenet" (as for ImageNet-C).
        seed: of the random corruptions, in [0, 2**64).
        indices: N integers that select the random draws of each image (see ``draw_fields``), so that an image is
            corrupted in the same way in every batch; 0..N-1 if None.
        fields: random fields by name, instead of drawing them; ``seed`` and ``indices`` are then unused.
        frost_dir: a directory with the frost images (``FROST_FILES``) for frost; None for the cache, which is
            filled from the package imagecorruptions 1.1.2 on first use.

    Returns:
        uint8 [N, H, W, 3], a new array, or a new tensor for a tensor. Float results are truncated, not rounded, as in
        the official code.

    Raises:
        ValueError: naming the argument, its value and the rule.
        DataError: if the frost images are needed and not available.
    """
    if isinstance(images, torch.Tensor):
        if images.dtype != torch.uint8:
            raise ValueError(f"`images` is {images.dtype} {tuple(images.shape)}; it must be uint8 [N, H, W, 3]")
        array = images.detach().cpu().numpy()
        options: dict[str, Any] = {"constants": constants, "seed": seed, "indices": indices, "fields": fields}
        done = corrupt(array, name, severity, frost_dir=frost_dir, **options)
        return torch.from_numpy(done).to(images.device)
    _check_images(images)
    corruption, at = _setting(name, severity, constants, frost_dir, images.shape[1:])
    positions = _check_address(seed, indices, len(images))
    result = np.empty(images.shape, np.uint8)
    if not len(images):
        return result
    given = None if fields is None else _check_fields(corruption, at, images, fields)
    size = max(1, _BLOCK_PIXELS // (images.shape[1] * images.shape[2]))
    for start in range(0, len(images), size):
        block = slice(start, start + size)
        pictures = np.ascontiguousarray(images[block])
        if given is None:
            drawn = _draw(corruption, at, pictures, severity, seed, positions[block])
        else:
            drawn = {key: array[block] for key, array in given.items()}
        result[block] = corruption.apply(pictures, at, drawn).astype(np.uint8, copy=False)
    return result
