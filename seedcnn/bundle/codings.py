"""Tensor codings: they turn float32 tensors into payload bytes, and back into the same bits on every machine."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from math import prod

import numpy as np
import numpy.typing as npt

from seedcnn.arrays import F32, I16
from seedcnn.bundle.compression import compress, decompress, decompressed
from seedcnn.bundle.container import Payload
from seedcnn.bundle.entries import SCALE, Grid, Seeded, TensorEntry
from seedcnn.errors import BundleError, BundleFormatError, DigestError
from seedcnn.rng import RNG_NAME, uniform_pieces

__all__ = [
    "Coded",
    "as_scale",
    "check_payload",
    "decode",
    "encode_grid",
    "encode_integers",
    "encode_raw",
    "encode_seeded",
    "grid_of_step",
    "integers_of",
    "scale_channels",
    "sha256",
]

_RAW = {"raw-f32": "F32", "raw-f16": "F16", "raw-bf16": "BF16"}
_ITEM_BYTES = {"i8": 1, "i16": 2}
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
    """A coded tensor: its manifest entry, the payload to store (None if it travels as a seed), and the expanded values
    that the device will see, scaled if the tensor has a scale."""

    entry: TensorEntry
    payload: Payload | None
    expanded: F32


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
    entry = TensorEntry(name, array.shape, coding, sha256(data), sha256(_little_endian(expanded)))
    return Coded(entry, Payload(_RAW[coding], array.shape, data), expanded)


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


def encode_grid(
    name: str, values: npt.ArrayLike, grid: Grid, compression: str = "zstd", *, scale: Coded | None = None
) -> Coded:
    """Round to the integer grid, pack as int8 (or as int16 in two byte planes), and compress.

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
    return encode_integers(name, integers.astype(np.int16), grid, compression, scale=scale)


def _steps(array: F32, grid: Grid, scale: Coded | None) -> npt.NDArray[np.float64]:
    """The step of each value: float64 of a shape that broadcasts to ``array``."""
    if scale is None:
        return np.full((1,) * array.ndim, grid.step)
    wanted = array.shape[:1]
    if not wanted or scale.expanded.shape != wanted:
        raise BundleFormatError(f"scale {scale.entry.name!r} has shape {scale.expanded.shape}; it must be {wanted}")
    return grid.step * scale.expanded.astype(np.float64).reshape(-1, *[1] * (array.ndim - 1))


def encode_integers(
    name: str, q: I16, grid: Grid, compression: str = "zstd", *, fast: bool = False, scale: Coded | None = None
) -> Coded:
    """Store integers that are already on a grid.

    Args:
        q: int16 array of the tensor's shape, within +-32767.
        fast: see :func:`seedcnn.bundle.compression.compress`.
        scale: see :func:`encode_grid`.
    """
    width = "i8" if np.abs(q).max(initial=0) <= 127 else "i16"
    payload = Payload.of_bytes(compress(_to_planes(q, _ITEM_BYTES[width]), compression, fast=fast))
    expanded = _from_grid(q, grid)
    digest = sha256(_little_endian(expanded))
    coding = f"grid-{width}-{compression}"
    entry = TensorEntry(name, q.shape, coding, sha256(payload.data), digest, grid=grid)
    if scale is not None:
        entry = replace(entry, scale=scale.entry.name)
        expanded = scale_channels(expanded, scale.expanded, scale.entry.name)
    return Coded(entry, payload, expanded)


def encode_seeded(name: str, shape: tuple[int, ...], seeded: Seeded) -> Coded:
    """Code a fixed tensor that travels as a seed; it has no payload."""
    expanded = _from_seed(seeded, shape)
    return Coded(
        TensorEntry(name, shape, RNG_NAME, "", sha256(_little_endian(expanded)), seeded=seeded), None, expanded
    )


def _to_planes(q: I16, item_bytes: int) -> bytes:
    planes = q.astype("<i2").reshape(-1).view(np.uint8).reshape(-1, 2)[:, :item_bytes]
    return planes.T.tobytes()


def _from_planes(data: bytes, item_bytes: int, shape: tuple[int, ...]) -> I16:
    if item_bytes == 1:
        return np.frombuffer(data, np.int8).astype(np.int16).reshape(shape)
    planes = np.frombuffer(data, np.uint8).reshape(2, -1)
    return np.ascontiguousarray(planes.T).view("<i2").astype(np.int16, copy=False).reshape(shape)


def _from_grid(q: I16, grid: Grid) -> F32:
    # One correctly rounded product of two exact float32 numbers: the same bits on every IEEE machine.
    return np.multiply(q, np.float32(grid.step), dtype=np.float32)


def _expand_grid(entry: TensorEntry, grid: Grid, payload: Payload | None) -> F32:
    """Compute ``_from_grid(integers_of(...))`` piece by piece, in little more memory than the result takes."""
    _, width, compression = entry.coding.split("-")
    count, step = entry.elements, np.float32(grid.step)
    first = count if width == "i16" else 0  # size of the plane of low bytes, which precedes the signed one
    result = np.empty(count, np.float32)
    low = result.view(np.uint8)[::4]  # holds the low bytes until the high ones arrive
    place = 0
    for piece in decompressed(_stored(entry, payload), first + count, f"tensor {entry.name!r}", compression):
        data = np.frombuffer(piece, np.uint8)
        waiting = data[: max(0, first - place)]
        low[place : place + len(waiting)] = waiting
        if len(signed := data[len(waiting) :].view(np.int8)):
            at = slice(place + len(waiting) - first, place + len(data) - first)
            integers = signed.astype(np.int16) * 256 + low[at] if first else signed
            np.multiply(integers, step, out=result[at], dtype=np.float32)
        place += len(data)
    return result.reshape(entry.shape)


def _from_seed(seeded: Seeded, shape: tuple[int, ...]) -> F32:
    result, repeat = np.empty(prod(shape), np.float32), seeded.repeat
    address = {"tensor_id": seeded.tensor_id, "stream": seeded.stream, "count": seeded.count}
    for start, piece in uniform_pieces(seeded.seed, seeded.fixed, **address):
        at = result[start * repeat : (start + len(piece)) * repeat]
        at[:] = np.repeat(piece, repeat)[: len(at)]
    return result.reshape(shape)


def check_payload(name: str, payload: Payload, coding: str, shape: tuple[int, ...]) -> None:
    """Check that a payload has the dtype and shape that its coding implies: floats of ``shape``, or a row of bytes.

    Raises:
        BundleFormatError: naming the payload, its type and the expected type.
    """
    wanted = (_RAW[coding], shape) if coding in _RAW else ("U8", (len(payload.data),))
    if (payload.dtype, payload.shape) != wanted:
        raise BundleFormatError(
            f"payload {name!r} is {payload.dtype} {payload.shape}; it must be {wanted[0]} {wanted[1]}"
        )


def decode(entry: TensorEntry, payload: Payload | None) -> F32:
    """Expand one tensor and check both digests.

    Returns:
        float32 array of ``entry.shape``; of a scaled tensor before :func:`scale_channels`.

    Raises:
        BundleFormatError: if the payload is missing, has the wrong type, or does not decompress to the right size.
        DigestError: if the stored or the expanded bytes do not match the manifest's digest.
    """
    if entry.seeded is not None:
        result = _from_seed(entry.seeded, entry.shape)
    elif entry.grid is not None:
        result = _expand_grid(entry, entry.grid, payload)
    else:
        result = _widen(_stored(entry, payload), entry.coding, entry.shape)
        if not np.isfinite(result).all():
            raise BundleFormatError(f"tensor {entry.name!r} holds values that are not finite")
    if sha256(_little_endian(result)) != entry.expanded_sha256:
        raise DigestError(f"tensor {entry.name!r}: the expanded values do not match their digest")
    return result


def integers_of(entry: TensorEntry, payload: Payload | None) -> I16:
    """Return the integers of a tensor on a grid, after checking the stored bytes against their digest.

    Raises:
        BundleFormatError, DigestError: see :func:`decode`.
    """
    _, width, compression = entry.coding.split("-")
    item_bytes = _ITEM_BYTES[width]
    data = decompress(_stored(entry, payload), entry.elements * item_bytes, f"tensor {entry.name!r}", compression)
    return _from_planes(data, item_bytes, entry.shape)


def _stored(entry: TensorEntry, payload: Payload | None) -> bytes | memoryview:
    if payload is None:
        raise BundleFormatError(f"tensor {entry.name!r} has no payload")
    check_payload(entry.name, payload, entry.coding, entry.shape)
    if sha256(payload.data) != entry.coded_sha256:
        raise DigestError(f"tensor {entry.name!r}: the stored bytes do not match their digest")
    return payload.data
