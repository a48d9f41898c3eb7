"""Tensor codings: they turn float32 tensors into payload bytes, and back into the same bits on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import numpy.typing as npt

from seedcnn.arrays import F32, I16
from seedcnn.bundle.container import ITEM_BYTES
from seedcnn.bundle.entries import NORMS, SCALE, Grid, Seeded, TensorEntry
from seedcnn.bundle.integers import load_integers, store_integers, width_of
from seedcnn.errors import BundleError, BundleFormatError, DigestError
from seedcnn.rng import RNG_NAME, uniform_pieces

__all__ = [
    "Coded",
    "Stored",
    "as_norms",
    "as_scale",
    "encode_grid",
    "encode_integers",
    "encode_raw",
    "encode_seeded",
    "grid_of_step",
    "scale_channels",
    "sha256",
    "store",
]

_RAW = {"raw-f32": "f32", "raw-f16": "f16", "raw-bf16": "bf16"}
_LEAST_SCALE, _MOST_SCALE = 2.0**-40, 2.0**40


def sha256(data: bytes | memoryview) -> str:
    """Return the SHA-256 of ``data`` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _little_endian(values: F32) -> memoryview:
    return values.astype("<f4", copy=False).reshape(-1).view(np.uint8).data


def grid_of_step(step: float) -> Grid:
    """Return the grid whose step is nearest to ``step`` among the steps that are exact in float32.

    Raises:
        ValueError: if ``step`` is not in [2**-100, 2**24).
    """
    if not 2.0**-100 <= step < 2.0**24:
        raise ValueError(f"`step` (={step}) must be in [2**-100, 2**24)")
    exact = min(float(np.float32(step)), 2.0**24 - 1)
    exponent = 0
    while exact != int(exact) and exponent < 126:
        exact, exponent = exact * 2, exponent + 1
    return Grid(int(exact), exponent)


@dataclass(frozen=True)
class Coded:
    """A coded tensor.

    Attributes:
        entry: of the manifest.
        expanded: the values that the device will see, scaled if the tensor has a scale.
        integers: of a tensor on a grid.
        data: of a raw tensor, little-endian; a tensor that travels as a seed has neither integers nor data.
    """

    entry: TensorEntry
    expanded: F32
    integers: I16 | None = None
    data: bytes | memoryview | None = None

    def plain(self) -> F32:
        """The values before any channels are scaled."""
        if self.integers is None or self.entry.grid is None or not self.entry.scale:
            return self.expanded
        return _from_grid(self.integers, self.entry.grid)


def _checked(name: str, values: npt.ArrayLike) -> F32:
    with np.errstate(over="ignore"):
        array = np.asarray(values, dtype="<f4", order="C")
    if not np.isfinite(array).all():
        raise BundleError(f"tensor {name!r} holds {np.sum(~np.isfinite(array))} values that are not finite")
    return array


def encode_raw(name: str, values: npt.ArrayLike, coding: str = "raw-f32") -> Coded:
    """Store floats: unchanged ("raw-f32"), or rounded to the nearest half ("raw-f16") or bfloat16 ("raw-bf16").

    Raises:
        BundleError: if a value is not finite, or too large for the coding.
    """
    array = _checked(name, values)
    data = _narrow(array, coding)
    expanded = _widen(data, coding, array.shape)
    if not np.isfinite(expanded).all():
        raise BundleError(f"tensor {name!r} reaches {np.abs(array).max():g}, too large for {coding}")
    return Coded(TensorEntry(name, array.shape, coding), expanded, data=data)


def _narrow(array: F32, coding: str) -> bytes:
    if coding == "raw-f32":
        return array.tobytes()
    if coding == "raw-f16":
        with np.errstate(over="ignore"):
            return array.astype("<f2").tobytes()
    bits = array.view("<u4")
    upper: npt.NDArray[np.uint16] = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")  # nearest, ties to even
    return upper.tobytes()


def _widen(data: bytes | memoryview, coding: str, shape: tuple[int, ...]) -> F32:
    if coding == "raw-f32":
        return np.frombuffer(data, "<f4").reshape(shape)
    if coding == "raw-f16":
        return np.frombuffer(data, "<f2").astype(np.float32).reshape(shape)
    return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").reshape(shape)


def as_scale(coded: Coded) -> Coded:
    """Give a coded tensor [channels] the role of another tensor's scales; the graph does not read it.

    Raises:
        BundleFormatError: if a scale is neither 0 nor within 2**-40 to 2**40 in magnitude.
    """
    _check_scale(coded.entry.name, coded.expanded)
    return replace(coded, entry=replace(coded.entry, role=SCALE))


def as_norms(coded: Coded) -> Coded:
    """Give a coded tensor [2, channels] the role of the norms, see :mod:`seedcnn.bundle.adaptable`."""
    return replace(coded, entry=replace(coded.entry, role=NORMS))


def _check_scale(name: str, scale: F32) -> None:
    sizes = np.abs(scale)
    bad = scale[(sizes != 0) & ~((sizes >= _LEAST_SCALE) & (sizes <= _MOST_SCALE))]
    if len(bad):
        raise BundleFormatError(f"scale {name!r} holds {bad[0]:g}; a scale is 0 or within 2**-40 to 2**40 in magnitude")


def scale_channels(values: F32, scale: F32, name: str) -> F32:
    """Multiply the values of each output channel by its scale, in place: one correctly rounded float32 product each.

    Args:
        values: float32 [channels, ...], integers times their step.
        scale: float32 [channels].
        name: of the scale.

    Raises:
        BundleFormatError: if ``scale`` has another shape, or holds a value that is neither 0 nor within 2**-40 to 2**40
            in magnitude. Within, no product leaves the range of normal numbers, which every machine rounds alike.
    """
    if not values.ndim or scale.shape != values.shape[:1]:
        raise BundleFormatError(f"scale {name!r} has shape {scale.shape}; it must be {values.shape[:1]}")
    _check_scale(name, scale)
    np.multiply(values, scale.reshape(-1, *[1] * (values.ndim - 1)), out=values, dtype=np.float32)
    return values


def encode_grid(name: str, values: npt.ArrayLike, grid: Grid, *, scale: Coded | None = None) -> Coded:
    """Round to the integer grid.

    Args:
        scale: from :func:`as_scale`: value = scale of the output channel * (integer * step).

    Raises:
        BundleError: if a value is not finite, or its integer does not fit 16 bits because the step is too fine.
    """
    array = _checked(name, values)
    steps = _steps(array, grid, scale)
    integers = np.rint(np.divide(array, steps, out=np.zeros(array.shape), where=steps != 0))
    largest = int(np.abs(integers).max(initial=0))
    if largest > 32767:
        raise BundleError(
            f"tensor {name!r} reaches {largest} grid steps of {grid.step:g}; at most 32767 fit; use a coarser step"
        )
    return encode_integers(name, integers.astype(np.int16), grid, scale=scale)


def _steps(array: F32, grid: Grid, scale: Coded | None) -> npt.NDArray[np.float64]:
    """The step of each value: float64 of a shape that broadcasts to ``array``."""
    if scale is None:
        return np.full((1,) * array.ndim, grid.step)
    wanted = array.shape[:1]
    if not wanted or scale.expanded.shape != wanted:
        raise BundleFormatError(f"scale {scale.entry.name!r} has shape {scale.expanded.shape}; it must be {wanted}")
    return grid.step * scale.expanded.astype(np.float64).reshape(-1, *[1] * (array.ndim - 1))


def encode_integers(name: str, q: I16, grid: Grid, *, scale: Coded | None = None) -> Coded:
    """Code integers that are already on a grid.

    Args:
        q: int16 array of the tensor's shape, within +-32767.
        scale: see :func:`encode_grid`.
    """
    expanded = _from_grid(q, grid)
    entry = TensorEntry(name, q.shape, "grid-i8" if width_of(q) == 1 else "grid-i16", grid=grid)
    if scale is not None:
        entry = replace(entry, scale=scale.entry.name)
        expanded = scale_channels(expanded, scale.expanded, scale.entry.name)
    return Coded(entry, expanded, integers=q)


def _from_grid(q: I16, grid: Grid) -> F32:
    # As in Stored.expand.
    return np.multiply(q, np.float32(grid.step), dtype=np.float32)


def encode_seeded(name: str, shape: tuple[int, ...], seeded: Seeded) -> Coded:
    """Code a fixed tensor that travels as a seed; nothing of it is stored."""
    return Coded(TensorEntry(name, shape, RNG_NAME, seeded=seeded), _from_seed(seeded, shape))


def _from_seed(seeded: Seeded, shape: tuple[int, ...]) -> F32:
    result, repeat = np.empty(prod(shape), np.float32), seeded.repeat
    address = {"tensor_id": seeded.tensor_id, "stream": seeded.stream, "count": seeded.count}
    for start, piece in uniform_pieces(seeded.seed, seeded.fixed, **address):
        at = result[start * repeat : (start + len(piece)) * repeat]
        at[:] = np.repeat(piece, repeat)[: len(at)]
    return result.reshape(shape)


@dataclass(frozen=True)
class Stored:
    """The coded tensors of a file, without their names.

    Attributes:
        integers: of all tensors on grids, see :mod:`seedcnn.bundle.integers`.
        storage: how they are stored.
        floats: the values of all raw tensors of each precision, by payload name.
    """

    integers: bytes | memoryview
    storage: str
    floats: Mapping[str, bytes | memoryview]

    def check(self, entries: Sequence[TensorEntry]) -> None:
        """Check that the payloads of floats are as long as the raw tensors take.

        Raises:
            BundleFormatError: naming the payload and both sizes.
        """
        for coding, name in _RAW.items():
            wanted = sum(entry.elements for entry in entries if entry.coding == coding) * ITEM_BYTES[name]
            size = len(self.floats.get(name, b""))
            if size != wanted or (name in self.floats and not size):
                raise BundleFormatError(f"payload {name!r} has {size} bytes; the tensors take {wanted}")

    def expand(
        self, entries: Sequence[TensorEntry], integers: dict[str, I16] | None = None
    ) -> Iterator[tuple[TensorEntry, F32]]:
        """Expand tensors one after another, before any channels are scaled.

        Args:
            integers: takes the integers of each tensor on a grid, if given.

        Yields:
            The entry, and its float32 values of ``entry.shape``.

        Raises:
            BundleFormatError: if a value is not finite or the stored bytes are not those of these tensors; perhaps only
                behind the last tensor.
        """
        self.check(entries)
        gridded = [(entry.shape, entry.width) for entry in entries if entry.grid is not None]
        loaded = load_integers(self.integers, gridded, self.storage)
        places: dict[str, int] = {}
        for entry in entries:
            if entry.grid is not None:
                values = next(loaded).reshape(entry.shape)
                if integers is not None:
                    integers[entry.name] = values.astype(np.int16)
                # One correctly rounded product of two exact float32 numbers: the same bits on every IEEE machine.
                np.multiply(values, np.float32(entry.grid.step), out=values, dtype=np.float32)
                yield entry, values
            else:
                yield entry, self.raw_or_seeded(entry, places).expanded
        for _ in loaded:
            pass

    def raw_or_seeded(self, entry: TensorEntry, places: dict[str, int]) -> Coded:
        """Expand the next raw tensor of its precision, or a tensor that travels as a seed.

        Args:
            entry: not on a grid.
            places: bytes of each payload that were expanded before; it is changed.

        Raises:
            BundleFormatError: if a value is not finite.
        """
        if entry.seeded is not None:
            return Coded(entry, _from_seed(entry.seeded, entry.shape))
        name = _RAW[entry.coding]
        begin = places.get(name, 0)
        places[name] = begin + entry.elements * ITEM_BYTES[name]
        data = memoryview(self.floats[name])[begin : places[name]]
        values = _widen(data, entry.coding, entry.shape)
        if not np.isfinite(values).all():
            raise BundleFormatError(f"tensor {entry.name!r} holds values that are not finite")
        return Coded(entry, values, data=data)

    def tensors(
        self, entries: Sequence[TensorEntry], sha256: str, integers: dict[str, I16] | None = None
    ) -> dict[str, F32]:
        """Expand tensors and check their digest.

        Args:
            entries: from the manifest.
            sha256: of their float32 values, one after another.
            integers: see :meth:`expand`.

        Returns:
            {name: float32 array of the entry's shape}; scaled tensors before :func:`scale_channels`.

        Raises:
            BundleFormatError: see :meth:`expand`.
            DigestError: if the values do not match the digest.
        """
        found, digest = {}, hashlib.sha256()
        for entry, values in self.expand(entries, integers):
            digest.update(_little_endian(values))
            found[entry.name] = values
        if digest.hexdigest() != sha256:
            raise DigestError("the expanded values of the tensors do not match their digest")
        return found


def store(tensors: Sequence[Coded], storage: str, *, fast: bool = False) -> tuple[Stored, str]:
    """Store coded tensors.

    Args:
        tensors: in the order of the manifest.
        storage: of the integers, one of :data:`seedcnn.bundle.compression.STORAGES`.
        fast: see :func:`seedcnn.bundle.compression.compress`.

    Returns:
        The stored tensors, and the SHA-256 of their values for :meth:`Stored.tensors`.
    """
    floats: dict[str, list[bytes | memoryview]] = {name: [] for name in _RAW.values()}
    integers, digest = [], hashlib.sha256()
    for coded in tensors:
        digest.update(_little_endian(coded.plain()))
        if coded.integers is not None:
            integers.append((coded.integers, coded.entry.width))
        elif coded.data is not None:
            floats[_RAW[coded.entry.coding]].append(coded.data)
    joined = {name: b"".join(parts) for name, parts in floats.items() if parts}
    return Stored(store_integers(integers, storage, fast=fast), storage, joined), digest.hexdigest()
