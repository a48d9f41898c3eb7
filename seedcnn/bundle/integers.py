"""The integers of all tensors on grids as one run of bytes: entropy-coded, or as compressed byte planes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np

from seedcnn.arrays import F32, I16
from seedcnn.bundle.compression import compress, decompressed
from seedcnn.bundle.entropy import decode_stream, encode_stream
from seedcnn.errors import BundleFormatError

__all__ = ["load_integers", "store_integers", "stored_size", "width_of"]

_WHAT = "the stream of integers"
_LARGEST = {1: 127, 2: 32767}
Shape = tuple[int, ...]


def width_of(integers: I16) -> int:
    """Bytes that each integer of a tensor takes: 1 if all are within +-127, else 2."""
    return 1 if max(int(integers.max(initial=0)), -int(integers.min(initial=0))) <= 127 else 2


def store_integers(tensors: Sequence[tuple[I16, int]], storage: str, *, fast: bool = False) -> bytes:
    """Store integers; no tensor at all takes no byte.

    Args:
        tensors: integers and their width, see :func:`width_of`.
        storage: one of :data:`seedcnn.bundle.compression.STORAGES`.
        fast: see :func:`seedcnn.bundle.compression.compress`.
    """
    if not tensors:
        return b""
    if storage == "entropy":
        return encode_stream([integers for integers, _ in tensors])
    planes = [
        integers.astype("<i2").reshape(-1).view(np.uint8).reshape(-1, 2)[:, :width].T.tobytes()
        for integers, width in tensors
    ]
    return compress(b"".join(planes), storage, fast=fast)


def stored_size(tensors: Sequence[I16], storage: str = "entropy") -> int:
    """Bytes that integers take when they are stored alone."""
    return len(store_integers([(each, width_of(each)) for each in tensors], storage))


def load_integers(data: bytes | memoryview, tensors: Sequence[tuple[Shape, int]], storage: str) -> Iterator[F32]:
    """Load integers, one tensor after another, in little more memory than the result takes.

    Args:
        tensors: shapes and widths.
        storage: as in :func:`store_integers`.

    Yields:
        float32 arrays [values] that hold integers, in C order.

    Raises:
        BundleFormatError: if the bytes are damaged, truncated or too many, perhaps only behind the last tensor; or if
            an integer is beyond 127 (32,767 for a width of 2) in magnitude.
        BundleError: if they are compressed by zstd, which is not installed.
    """
    if not tensors:
        if len(data):
            raise BundleFormatError(f"{_WHAT} has {len(data)} bytes, but no tensor is on a grid")
        return
    if storage == "entropy":
        limits = [_LARGEST[width] for _, width in tensors]
        yield from decode_stream(data, [shape for shape, _ in tensors], limits, _WHAT)
        return
    size = sum(prod(shape) * width for shape, width in tensors)
    source = _Source(decompressed(data, size, _WHAT, storage))
    for shape, width in tensors:
        yield _from_planes(source, prod(shape), width)
    source.end()


class _Source:
    """Bytes that arrive in pieces of any size."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._left = pieces, memoryview(b"")

    def some(self, most: int) -> memoryview:
        """The next bytes, one at least and ``most`` at most."""
        if not len(self._left):
            self._left = memoryview(next(self._pieces))
        found, self._left = self._left[:most], self._left[most:]
        return found

    def end(self) -> None:
        """Raise the errors of the end of the data."""
        for _ in self._pieces:
            pass


def _from_planes(source: _Source, count: int, width: int) -> F32:
    """Integers from a plane of low bytes, where there are two, and one of signed bytes."""
    values = np.empty(count, np.float32)
    low = values.view(np.uint8)[::4]  # holds the low bytes until the high ones arrive
    place = 0
    while width == 2 and place < count:
        piece = np.frombuffer(source.some(count - place), np.uint8)
        low[place : place + len(piece)] = piece
        place += len(piece)
    place = 0
    while place < count:
        signed = np.frombuffer(source.some(count - place), np.int8)
        at = slice(place, place + len(signed))
        values[at] = signed.astype(np.int16) * 256 + low[at] if width == 2 else signed
        place += len(signed)
        if len(low_ones := np.flatnonzero(values[at] < -_LARGEST[width])):
            raise BundleFormatError(f"{_WHAT} holds {values[at][low_ones[0]]:g}; {-_LARGEST[width]} is the least")
    return values
