"""The types and array helpers that all corruptions share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from seedcnn.arrays import F32, F64, U8

__all__ = [
    "F32",
    "F64",
    "GROUPS",
    "SEVERITIES",
    "U8",
    "Corruption",
    "Fields",
    "Setting",
    "from_planes",
    "planes",
    "to_levels",
    "unit_planes",
]

Fields = Mapping[str, npt.NDArray[Any]]

GROUPS = ("Noise", "Blur", "Weather", "Digital")
SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True, eq=False)
class Setting:
    """The parameters of a corruption at one severity.

    Attributes:
        constant: a number or a tuple of numbers.
        frost: for frost: the five frost images, uint8 [h, w, 3] RGB; empty for other corruptions.
    """

    constant: Any
    frost: tuple[U8, ...] = ()


Apply = Callable[[U8, Setting, Fields], npt.NDArray[Any]]
Draw = Callable[[np.random.Generator, U8, Setting], dict[str, Any]]


@dataclass(frozen=True)
class Corruption:
    """One corruption.

    Args:
        name, group: the names of the papers; the group is one of ``GROUPS``.
        number: its address in the random stream; never reused or changed.
        main: whether it is one of the 15 corruptions that mCE averages.
        constants: for "cifar" and for "imagenet", five constants (severity 1 to 5), each a number or a tuple.
        apply: from (images uint8 [N, H, W, 3], setting, fields) to uint8, or to float on the 0..255 scale, which is
            then truncated (not rounded), as in the official code.
        draw: from (generator, image uint8 [H, W, 3], setting) to the random fields of one image, by name; None if the
            corruption is not random.
    """

    name: str
    group: str
    number: int
    main: bool
    constants: Mapping[str, tuple[Any, ...]]
    apply: Apply
    draw: Draw | None = None


def to_levels(unit: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Clip to 0..1 and scale to 0..255, in place."""
    np.clip(unit, 0, 1, out=unit)
    unit *= 255
    return unit


def planes(images: U8) -> U8:
    """[N, H, W, 3] to contiguous [3, N, H, W], in which operations common to all channels run in long loops."""
    return np.ascontiguousarray(np.moveaxis(images, 3, 0))


def unit_planes(images: U8) -> F32:
    """[N, H, W, 3] to float32 [3, N, H, W] on the 0..1 scale."""
    unit: F32 = planes(images).astype(np.float32)
    unit /= np.float32(255)
    return unit


def from_planes(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[3, N, H, W] to [N, H, W, 3], as a view."""
    return np.moveaxis(values, 0, 3)
