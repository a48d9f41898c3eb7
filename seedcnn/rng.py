"""The counter-based generator "seedcnn-rng/1": the same numbers from the same seed on every machine.

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). The key is a 64-bit seed, the
counter is ``(block, tensor_id, stream, version=1)``, so every number has an address and none depends on what was
drawn before it. Integers become numbers in fixed point, ``v = (lo_q + ((span_q * x) >> 32)) * 2**-frac_bits`` with
``|v * 2**frac_bits| < 2**24``, which is exact in float32 with or without a floating-point unit.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

__all__ = ["RNG_NAME", "FixedPoint", "layer_seed", "philox4x32", "random_bytes", "random_words", "uniform"]

RNG_NAME = "seedcnn-rng/1"
_VERSION = 1
_MAX_FRAC_BITS = 23
_MASK32 = np.uint64(0xFFFFFFFF)
_SHIFT32 = np.uint64(32)
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)

U32 = npt.NDArray[np.uint32]
F32 = npt.NDArray[np.float32]


def _check_u64(name: str, value: int) -> None:
    if not 0 <= value < 2**64:
        raise ValueError(f"`{name}` (={value}) must be in [0, 2**64)")


def _check_u32(name: str, value: int) -> None:
    if not 0 <= value < 2**32:
        raise ValueError(f"`{name}` (={value}) must be in [0, 2**32)")


def philox4x32(counter: U32, key: int) -> U32:
    """Philox4x32 with 10 rounds.

    Args:
        counter: uint32 array of shape [..., 4].
        key: 64-bit key; its low word is key word 0.

    Returns:
        uint32 array of the counter's shape.
    """
    _check_u64("key", key)
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
    """The first ``count`` 32-bit words of the stream addressed by (seed, tensor_id, stream).

    Returns:
        uint32 array of shape [count]; a longer draw starts with the shorter one.
    """
    _check_u32("tensor_id", tensor_id)
    _check_u32("stream", stream)
    if count < 0:
        raise ValueError(f"`count` (={count}) must not be negative")
    blocks = (count + 3) // 4
    _check_u32("count // 4", blocks)
    counter = np.empty((blocks, 4), np.uint32)
    counter[:, 0] = np.arange(blocks, dtype=np.uint32)
    counter[:, 1:] = (tensor_id, stream, _VERSION)
    return philox4x32(counter, seed).reshape(-1)[:count]


def random_bytes(seed: int, *, tensor_id: int, stream: int = 0, count: int) -> npt.NDArray[np.uint8]:
    """The first ``count`` bytes of a stream: its words in little-endian order. uint8 array of shape [count]."""
    words = random_words(seed, tensor_id=tensor_id, stream=stream, count=(count + 3) // 4)
    return words.astype("<u4").view(np.uint8)[:count]


@dataclass(frozen=True)
class FixedPoint:
    """A uniform range in fixed point: values ``(lo_q + k) * 2**-frac_bits`` for k in [0, span_q).

    Raises:
        ValueError: if a value of the range would not be exact in float32.
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
        """The finest fixed-point form of [lo, hi) that is exact in float32.

        Raises:
            ValueError: if lo > hi, or a bound is not finite or its size is 2**24 or more.
        """
        if not np.isfinite(lo) or not np.isfinite(hi) or lo > hi:
            raise ValueError(f"range ({lo}, {hi}) must be finite with lo <= hi")
        largest = max(abs(Fraction(lo)), abs(Fraction(hi)))
        if largest >= 2**24:
            raise ValueError(f"range ({lo}, {hi}) must stay within (-2**24, 2**24)")
        frac_bits = _MAX_FRAC_BITS
        while largest * 2**frac_bits >= 2**24 - 1:
            frac_bits -= 1
        lo_q, hi_q = round(Fraction(lo) * 2**frac_bits), round(Fraction(hi) * 2**frac_bits)
        return cls(lo_q, hi_q - lo_q, frac_bits)


def uniform(seed: int, fixed: FixedPoint, *, tensor_id: int, stream: int = 0, count: int) -> F32:
    """``count`` uniform numbers in the fixed-point range, exact in float32. float32 array of shape [count]."""
    words = random_words(seed, tensor_id=tensor_id, stream=stream, count=count).astype(np.uint64)
    steps = ((np.uint64(fixed.span_q) * words) >> _SHIFT32).astype(np.int64) + fixed.lo_q
    # Both factors are exact in float32 (|steps| < 2**24, a power of two), and so is their product.
    return steps.astype(np.float32) * np.float32(2.0**-fixed.frac_bits)


def layer_seed(model_seed: int, name: str) -> int:
    """The 64-bit seed of a layer.

    First 8 bytes, little-endian, of SHA-256("seedcnn/1" | model_seed | name): the nine ASCII bytes of the tag, the
    model seed as 8 little-endian bytes, and the layer's qualified name in UTF-8.
    """
    _check_u64("model_seed", model_seed)
    digest = hashlib.sha256(b"seedcnn/1" + model_seed.to_bytes(8, "little") + name.encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "little")
