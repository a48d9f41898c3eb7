"""Tensor codings: how float32 tensors become payload bytes and come back bit-equal on every machine."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from seedcnn.bundle.container import Payload
from seedcnn.bundle.manifest import Grid, Seeded, TensorEntry
from seedcnn.errors import BundleError, BundleFormatError, DigestError
from seedcnn.rng import RNG_NAME, uniform

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["compress", "decode", "decompress", "encode_grid", "encode_raw", "encode_seeded", "grid_of_step", "sha256"]

F32 = npt.NDArray[np.float32]
_LEVEL = 19
_ITEM_TYPES = {"grid-i8-zstd": np.dtype("<i1"), "grid-i16-zstd": np.dtype("<i2")}


def sha256(data: bytes | memoryview) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def compress(data: bytes) -> bytes:
    """One zstd frame that states its content size."""
    return zstd.compress(data, _LEVEL)


def decompress(data: bytes | memoryview, size: int, what: str) -> bytes:
    """Decompress one zstd frame of exactly ``size`` bytes, never allocating for more.

    Raises:
        BundleFormatError: if it is damaged, longer or shorter, or followed by other bytes.
    """
    decoder = zstd.ZstdDecompressor()
    try:
        result = decoder.decompress(bytes(data), max_length=size + 1)
    except zstd.ZstdError as error:
        raise BundleFormatError(f"{what} is not a zstd frame: {error}") from None
    if len(result) != size or not decoder.eof or decoder.unused_data:
        raise BundleFormatError(f"{what} does not decompress to exactly {size} bytes")
    return result


def grid_of_step(step: float) -> Grid:
    """The grid whose step is nearest to ``step`` among those exact in float32.

    Raises:
        ValueError: if step is not a finite positive number between 2**-100 and 2**24.
    """
    if not 2.0**-100 <= step < 2.0**24:
        raise ValueError(f"`step` (={step}) must be in [2**-100, 2**24)")
    exact = float(np.float32(step))
    exponent = 0
    while exact != int(exact) and exponent < 126:
        exact, exponent = exact * 2, exponent + 1
    return Grid(int(exact), exponent)


@dataclass(frozen=True)
class Coded:
    """A coded tensor: what to store (None for a seeded one), its manifest entry, and the value the device will see."""

    entry: TensorEntry
    payload: Payload | None
    expanded: F32


def _checked(name: str, values: npt.ArrayLike) -> F32:
    array = np.ascontiguousarray(values, dtype="<f4")
    if not np.isfinite(array).all():
        raise BundleError(f"tensor {name!r} holds {np.sum(~np.isfinite(array))} values that are not finite")
    return array


def encode_raw(name: str, values: npt.ArrayLike) -> Coded:
    """Store float32 as it is."""
    array = _checked(name, values)
    data = array.tobytes()
    entry = TensorEntry(name, array.shape, "raw-f32", sha256(data), sha256(data))
    return Coded(entry, Payload("F32", array.shape, data), array)


def encode_grid(name: str, values: npt.ArrayLike, grid: Grid) -> Coded:
    """Round to the integer grid, pack as int8 (or int16 in two byte planes), compress.

    Raises:
        BundleError: if a value is not finite or its integer does not fit 16 bits (the step is too fine).
    """
    array = _checked(name, values)
    integers = np.rint(array.astype(np.float64) / grid.step)
    largest = int(np.abs(integers).max(initial=0))
    if largest > 32767:
        raise BundleError(f"tensor {name!r} reaches {largest} grid steps of {grid.step:g}; at most 32767 fit; use a coarser step")
    coding = "grid-i8-zstd" if largest <= 127 else "grid-i16-zstd"
    q = integers.astype(_ITEM_TYPES[coding])
    payload = Payload.of_bytes(compress(_to_planes(q)))
    expanded = _from_grid(q, grid)
    digest = sha256(expanded.tobytes())
    return Coded(TensorEntry(name, array.shape, coding, sha256(payload.data), digest, grid=grid), payload, expanded)


def encode_seeded(name: str, shape: tuple[int, ...], seeded: Seeded) -> Coded:
    """A fixed tensor that travels as a seed; nothing is stored."""
    expanded = _from_seed(seeded, shape)
    return Coded(TensorEntry(name, shape, RNG_NAME, "", sha256(expanded.tobytes()), seeded=seeded), None, expanded)


def _to_planes(q: npt.NDArray[np.signedinteger]) -> bytes:
    return np.ascontiguousarray(q.reshape(-1).view(np.uint8).reshape(-1, q.itemsize).T).tobytes()


def _from_planes(data: bytes, dtype: np.dtype[np.signedinteger], shape: tuple[int, ...]) -> npt.NDArray[np.signedinteger]:
    planes = np.frombuffer(data, np.uint8).reshape(dtype.itemsize, -1)
    return np.ascontiguousarray(planes.T).view(dtype).reshape(shape)


def _from_grid(q: npt.NDArray[np.signedinteger], grid: Grid) -> F32:
    # One correctly rounded product of two exact float32 numbers: the same bits on any IEEE machine.
    return q.astype("<f4") * np.float32(grid.step)


def _from_seed(seeded: Seeded, shape: tuple[int, ...]) -> F32:
    draws = uniform(seeded.seed, seeded.fixed, tensor_id=seeded.tensor_id, stream=seeded.stream, count=seeded.count)
    return np.repeat(draws, seeded.repeat)[: prod(shape)].reshape(shape).astype("<f4")


def decode(entry: TensorEntry, payload: Payload | None) -> F32:
    """Expand one tensor and check both digests.

    Returns:
        float32 array of ``entry.shape``.

    Raises:
        BundleFormatError: if the payload is missing, of the wrong type, or does not decompress to the right size.
        DigestError: if coded or expanded bytes differ from the manifest.
    """
    if entry.seeded is not None:
        result = _from_seed(entry.seeded, entry.shape)
    else:
        if payload is None:
            raise BundleFormatError(f"tensor {entry.name!r} has no payload")
        if sha256(payload.data) != entry.coded_sha256:
            raise DigestError(f"tensor {entry.name!r}: the stored bytes do not match their digest")
        if entry.grid is None:
            if payload.dtype != "F32" or payload.shape != entry.shape:
                raise BundleFormatError(f"tensor {entry.name!r} is stored as {payload.dtype} {payload.shape}, not F32 {entry.shape}")
            result = np.frombuffer(payload.data, "<f4").reshape(entry.shape)
        else:
            dtype = _ITEM_TYPES[entry.coding]
            data = decompress(payload.data, entry.elements * dtype.itemsize, f"tensor {entry.name!r}")
            result = _from_grid(_from_planes(data, dtype, entry.shape), entry.grid)
    if sha256(np.ascontiguousarray(result).tobytes()) != entry.expanded_sha256:
        raise DigestError(f"tensor {entry.name!r}: the expanded values do not match their digest")
    return result
