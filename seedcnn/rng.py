"""The counter-based generator "seedcnn-rng/1": the same numbers from the same seed on every machine.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). The key is a 64-bit seed and the
counter is ``(block, tensor_id, stream, version=1)``, so every number has an address and none depends on earlier draws.
Integers become numbers in fixed point, ``v = (lo_q + ((span_q * x) >> 32)) * 2**-frac_bits`` with
``|v * 2**frac_bits| < 2**24``, which is exact in float32 with or without a floating-point unit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from operator import index

import numpy as np

from seedcnn.arrays import F32, U8, U32

__all__ = [
    "RNG_NAME",
    "FixedPoint",
    "layer_seed",
    "philox4x32",
    "random_bytes",
    "random_words",
    "to_int64",
    "uniform",
    "uniform_pieces",
]

RNG_NAME = "seedcnn-rng/1"
_VERSION = 1
_MAX_FRAC_BITS = 23
_BLOCKS_AT_ONCE = 1 << 14
_MASK32 = np.uint64(0xFFFFFFFF)
_SHIFT32 = np.uint64(32)
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)


def _unsigned(name: str, value: int, bits: int) -> int:
    value = index(value)
    if not 0 <= value < 2**bits:
        raise ValueError(f"`{name}` (={value}) must be in [0, 2**{bits})")
    return value


def philox4x32(counter: U32, key: int) -> U32:
    """Compute Philox4x32 with 10 rounds.

    Args:
        counter: uint32 array of shape [..., 4].
        key: 64-bit key; its low word is key word 0.

    Returns:
        uint32 array of the counter's shape.

    Raises:
        ValueError: if the last axis does not have length 4, or the key does not fit 64 bits.
        TypeError: if the counter is not uint32 or the key is not an integer.
    """
    key = _unsigned("key", key, 64)
    if counter.dtype != np.uint32:
        raise TypeError(f"`counter` is {counter.dtype}; it must be uint32")
    if counter.shape[-1:] != (4,):
        raise ValueError(f"`counter` has shape {counter.shape}; its last axis must have length 4")
    c0, c1, c2, c3 = (counter[..., i].astype(np.uint64) for i in range(4))
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        p0, p1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (p1 >> _SHIFT32) ^ c1 ^ np.uint64(k0),
            p1 & _MASK32,
            (p0 >> _SHIFT32) ^ c3 ^ np.uint64(k1),
            p0 & _MASK32,
        )
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def random_words(seed: int, *, tensor_id: int, stream: int = 0, count: int) -> U32:
    """Draw the first ``count`` 32-bit words of the stream at (seed, tensor_id, stream).

    Returns:
        uint32 array of shape [count]; a longer draw starts with the shorter one.

    Raises:
        ValueError: if a part of the address or the count is out of range (a stream has 2**34 words).
    """
    words = np.empty(_unsigned("count", count, 34), np.uint32)
    for start, piece in _pieces(seed, tensor_id, stream, count):
        words[start : start + len(piece)] = piece
    return words


def _pieces(seed: int, tensor_id: int, stream: int, count: int) -> Iterator[tuple[int, U32]]:
    """Yield (place, words) pieces of a stream, so that a large draw needs little more memory than its result."""
    tensor_id, stream = _unsigned("tensor_id", tensor_id, 32), _unsigned("stream", stream, 32)
    seed, count = _unsigned("seed", seed, 64), _unsigned("count", count, 34)
    for start in range(0, count, 4 * _BLOCKS_AT_ONCE):
        blocks = (min(count - start, 4 * _BLOCKS_AT_ONCE) + 3) // 4
        counter = np.empty((blocks, 4), np.uint32)
        counter[:, 0] = np.arange(start // 4, start // 4 + blocks, dtype=np.uint32)
        counter[:, 1:] = (tensor_id, stream, _VERSION)
        yield start, philox4x32(counter, seed).reshape(-1)[: count - start]


def random_bytes(seed: int, *, tensor_id: int, stream: int = 0, count: int) -> U8:
    """Draw the first ``count`` bytes of a stream, its words in little-endian order: uint8 array of shape [count]."""
    count = _unsigned("count", count, 36)
    words = random_words(seed, tensor_id=tensor_id, stream=stream, count=(count + 3) // 4)
    return words.astype("<u4").view(np.uint8)[:count]


@dataclass(frozen=True)
class FixedPoint:
    """A uniform range in fixed point: values ``(lo_q + k) * 2**-frac_bits`` for k in [0, max(1, span_q)).

    Raises:
        ValueError: if a value in the range would not be exact in float32.
    """

    lo_q: int
    span_q: int
    frac_bits: int

    def __post_init__(self) -> None:
        if not 0 <= self.frac_bits <= 60:
            raise ValueError(f"`frac_bits` (={self.frac_bits}) must be in [0, 60]")
        if not 0 <= self.span_q < 2**25:
            raise ValueError(f"`span_q` (={self.span_q}) must be in [0, 2**25)")
        if max(abs(self.lo_q), abs(self.lo_q + self.span_q)) >= 2**24:
            raise ValueError(f"range [{self.lo_q}, {self.lo_q + self.span_q}] must stay within (-2**24, 2**24)")

    @classmethod
    def from_range(cls, lo: float, hi: float) -> FixedPoint:
        """Return the finest form of [lo, hi) with at most 23 fractional bits that is exact in float32.

        The bounds are rounded to that form; lo = hi gives the constant lo.

        Raises:
            ValueError: if lo > hi, or if a bound is not finite or not within +-(2**24 - 1).
        """
        lo, hi = float(lo), float(hi)
        if not np.isfinite(lo) or not np.isfinite(hi) or lo > hi:
            raise ValueError(f"range ({lo}, {hi}) must be finite with lo <= hi")
        largest = max(abs(Fraction(lo)), abs(Fraction(hi)))
        if largest >= 2**24 - 1:
            raise ValueError(f"range ({lo}, {hi}) must stay within (-(2**24 - 1), 2**24 - 1)")
        frac_bits = _MAX_FRAC_BITS
        while largest * 2**frac_bits >= 2**24 - 1:
            frac_bits -= 1
        lo_q, hi_q = round(Fraction(lo) * 2**frac_bits), round(Fraction(hi) * 2**frac_bits)
        return cls(lo_q, hi_q - lo_q, frac_bits)


def uniform(seed: int, fixed: FixedPoint, *, tensor_id: int, stream: int = 0, count: int) -> F32:
    """Draw ``count`` uniform numbers from a fixed-point range, exact in float32: float32 array of shape [count]."""
    values = np.empty(_unsigned("count", count, 34), np.float32)
    for start, piece in uniform_pieces(seed, fixed, tensor_id=tensor_id, stream=stream, count=count):
        values[start : start + len(piece)] = piece
    return values


def uniform_pieces(
    seed: int, fixed: FixedPoint, *, tensor_id: int, stream: int = 0, count: int
) -> Iterator[tuple[int, F32]]:
    """Yield the numbers of :func:`uniform` as (place, piece) pairs."""
    for start, words in _pieces(seed, tensor_id, stream, count):
        steps = ((np.uint64(fixed.span_q) * words.astype(np.uint64)) >> _SHIFT32).astype(np.int64) + fixed.lo_q
        # Both factors are exact in float32 (|steps| < 2**24, and a power of two), and so is their product.
        yield start, steps.astype(np.float32) * np.float32(2.0**-fixed.frac_bits)


def to_int64(seed: int) -> int:
    """Return the signed integer with the bits of a 64-bit seed; not every tensor format has unsigned integers."""
    seed = _unsigned("seed", seed, 64)
    return seed - 2**64 if seed >= 2**63 else seed


def layer_seed(model_seed: int, name: str) -> int:
    """Derive the 64-bit seed of a layer.

    It is the first 8 bytes, little-endian, of SHA-256("seedcnn/1" | model_seed | name): the nine ASCII bytes of the
    tag, the model seed in 8 little-endian bytes, and the layer's qualified name in UTF-8.
    """
    model_seed = _unsigned("model_seed", model_seed, 64)
    digest = hashlib.sha256(b"seedcnn/1" + model_seed.to_bytes(8, "little") + name.encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "little")
