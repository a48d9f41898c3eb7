"""Sparse differences of integers: where two tensors on the same grid differ, and by how much.

All gaps come first, then all differences. A gap is the number of unchanged values since the previous change (or since
the start). A difference d is never 0 and travels as 2 d - 1 if it is positive, else as -2 d. Both are variable-length
integers in their shortest form: seven bits per byte, the lowest first, the top bit set in every byte but the last.
"""

from __future__ import annotations

import numpy as np

from seedcnn.arrays import I16, I64, U8
from seedcnn.errors import BundleFormatError

__all__ = ["LONGEST", "add_sparse", "sparse_difference"]

LONGEST = 4  # bytes per variable-length integer: gaps are below 2**27, coded differences below 2**17
_LARGEST = 32767


def sparse_difference(before: I16, after: I16) -> tuple[bytes, int]:
    """Return the bytes that turn ``before`` into ``after``, and the number of values that change.

    Raises:
        ValueError: if the shapes differ.
    """
    if before.shape != after.shape:
        raise ValueError(f"`after` has shape {after.shape}; it must be {before.shape}, the shape of `before`")
    difference = after.reshape(-1).astype(np.int64) - before.reshape(-1)
    places = np.flatnonzero(difference)
    gaps = np.diff(places, prepend=-1) - 1
    changes = difference[places]
    return _to_bytes(gaps) + _to_bytes(np.where(changes > 0, 2 * changes - 1, -2 * changes)), len(places)


def add_sparse(before: I16, data: bytes, count: int, what: str) -> I16:
    """Return ``before`` with ``count`` of its values changed.

    Raises:
        BundleFormatError: if ``data`` is not ``count`` gaps and differences, or if a change lies outside the tensor, is
            0, or leads beyond +-32767.
    """
    numbers = _from_bytes(data, what)
    if len(numbers) != 2 * count:
        raise BundleFormatError(f"{what} holds {len(numbers)} numbers; {count} changes take {2 * count}")
    places = np.cumsum(numbers[:count] + 1) - 1
    if count and places[-1] >= before.size:
        raise BundleFormatError(f"{what} changes value {places[-1]}; the tensor has {before.size} values")
    coded = numbers[count:]
    changes = np.where(coded & 1, (coded + 1) >> 1, -(coded >> 1))
    result = before.reshape(-1).copy()
    changed = result[places] + changes
    if not changes.all():
        raise BundleFormatError(f"{what} holds a change by 0")
    if np.abs(changed).max(initial=0) > _LARGEST:
        raise BundleFormatError(f"{what} leads to an integer beyond {_LARGEST}")
    result[places] = changed
    return result.reshape(before.shape)


def _to_bytes(numbers: I64) -> bytes:
    parts = np.stack([numbers >> (7 * place) for place in range(LONGEST)], axis=1)
    used = np.concatenate([np.ones((len(numbers), 1), bool), parts[:, 1:] > 0], axis=1)
    more = np.concatenate([used[:, 1:], np.zeros((len(numbers), 1), bool)], axis=1)
    stored: U8 = ((parts & 127) | (more * 128)).astype(np.uint8)[used]
    return stored.tobytes()


def _from_bytes(data: bytes, what: str) -> I64:
    stored = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(stored < 128)
    if len(stored) and (not len(ends) or ends[-1] != len(stored) - 1):
        raise BundleFormatError(f"{what} ends in the middle of a number")
    starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)[: len(ends)]
    lengths = ends - starts + 1
    if lengths.max(initial=0) > LONGEST:
        raise BundleFormatError(f"{what} holds a number longer than {LONGEST} bytes")
    if ((lengths > 1) & (stored[ends] == 0)).any():
        raise BundleFormatError(f"{what} holds a number that could be written shorter")
    numbers = np.zeros(len(ends), np.int64)
    for place in range(LONGEST):
        longer = lengths > place
        numbers[longer] |= (stored[starts[longer] + place].astype(np.int64) & 127) << (7 * place)
    return numbers
