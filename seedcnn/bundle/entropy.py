"""An entropy coder for the integers of a bundle: adaptive, in integers only, many lanes at a time.

``docs/bundle-format.md`` describes the stream. It is a range variant of asymmetric numeral systems (rANS; Duda,
arXiv:1311.2540): each lane has a state, and in every step each lane decodes one token. The tokens of all lanes are
decoded by the same few operations on arrays, which is what makes it fast in numpy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np
import numpy.typing as npt

from seedcnn.arrays import I64, U8
from seedcnn.errors import BundleFormatError

__all__ = ["TOKENS", "decode_stream", "encode_stream"]

TOKENS = 25
"""Magnitudes 0 to 11 are tokens; token t >= 12 is followed by t - 10 bits of the magnitude less 8."""

_DIRECT, _OFFSET = 12, 8
_LEVELS = (24, 48, 80, 128, 192, 320, 640)  # of the expected token, in 128ths: where the next context begins
_CONTEXTS = len(_LEVELS) + 1
_BITS = 14
_ONE = 1 << _BITS
_LOW = 1 << 16  # the least value of a state
_MOST_BETWEEN = 1 << 17  # tokens between two estimates
_CONTEXT_OF = np.searchsorted(_LEVELS, np.arange(1 << 13), side="right").astype(np.int64) << _BITS
_TOKEN_OF = np.arange(_CONTEXTS * TOKENS, dtype=np.int64) % TOKENS
_MOST_LANES = 12  # log2 of lanes
_LONGEST_ROW = 1 << 20  # values; the memory of the columns takes eight bytes each
_PIECE = 1 << 16  # values that get their signs at a time

Shape = tuple[int, ...]
Integers = npt.NDArray[np.int16]


def lanes_for(values: int) -> int:
    """The binary logarithm of the number of lanes for a stream of this number of values: 4 to 4,096 lanes."""
    return min(_MOST_LANES, max(2, (max(values, 1) - 1).bit_length() - 13))


class _Model:
    """Counts of tokens by context, and the frequencies estimated from them, which add up to 2**14 in each context."""

    def __init__(self, lanes: int, vectors: bool) -> None:
        """Begin with counts that suit weights, most of which are small, or vectors, whose numbers are of any size."""
        self._lanes, self._forgotten = lanes, 1 if vectors else 3
        first = np.full(TOKENS, 64) if vectors else 1024 >> np.minimum(np.arange(TOKENS), 10)
        self.counts = np.tile(first, (_CONTEXTS, 1)).astype(np.int64)
        self.frequency = self.start = np.zeros(0, np.int64)
        self._seen: list[I64] = []
        self._values = self._due = 0

    def begin(self, top: int) -> None:
        """Begin a tensor whose largest token is ``top``: what was learned from others counts for less."""
        self.counts = np.maximum(self.counts >> self._forgotten, 1)
        self._seen, self._values, self._due, self._top = [], 0, 0, top

    def ready(self) -> bool:
        """Estimate the frequencies if it is time to; return whether they changed."""
        if self._values < self._due:
            return False
        if self._seen:
            found = np.bincount(np.concatenate(self._seen), minlength=_CONTEXTS * TOKENS)
            self.counts += 32 * found.reshape(_CONTEXTS, TOKENS)
            self._seen = []
        self._due = self._values + min(self._values >> 3, _MOST_BETWEEN) + self._lanes
        counts = self.counts[:, : self._top + 1]
        spread = counts * (_ONE - self._top - 1) // counts.sum(1, keepdims=True) + 1
        spread[np.arange(_CONTEXTS), counts.argmax(1)] += _ONE - spread.sum(1)
        frequency = np.zeros((_CONTEXTS, TOKENS), np.int64)
        frequency[:, : self._top + 1] = spread
        self.frequency = frequency.reshape(-1)
        self.start = np.cumsum(self.frequency) - self.frequency
        return True

    def add(self, places: I64) -> None:
        """Count tokens; ``places`` are context * TOKENS + token."""
        self._seen.append(places)
        self._values += len(places)


def _is_vector(shape: Shape) -> bool:
    """Whether at most one axis is longer than 1; such tensors have a model of their own."""
    return sum(size > 1 for size in shape) < 2


def _layout(shape: Shape, lanes: int) -> tuple[int, int]:
    """Values in a row of a tensor, and steps that they take."""
    row = min(prod(shape[1:]), _LONGEST_ROW)
    row *= max(1, lanes // row)
    return row, -(-row // lanes)


class _Decoder:
    """The states of all lanes, and the words that they read."""

    def __init__(self, states: I64, words: I64, what: str) -> None:
        self._states, self._words, self._place, self._what = states, words, 0, what
        self._table: npt.NDArray[np.uint16] = np.zeros(0, np.uint16)

    def refresh(self, model: _Model) -> None:
        """Take the model's new frequencies."""
        self._frequency, self._start = model.frequency, model.start
        self._table = np.repeat(np.arange(_CONTEXTS * TOKENS, dtype=np.uint16), model.frequency)

    def step(self, context: I64) -> I64:
        """Decode one token in each of the first lanes; return context * TOKENS + token."""
        states = self._states[: len(context)]
        slot = (states & (_ONE - 1)) + context
        place: I64 = self._table[slot].astype(np.int64)
        states >>= _BITS
        states *= self._frequency[place]
        states += slot
        states -= self._start[place]
        short = np.flatnonzero(states < _LOW)
        if count := len(short):
            words = self._words[self._place : self._place + count]
            if len(words) < count:
                raise BundleFormatError(f"{self._what} ends early")
            states[short] = (states[short] << 16) | words
            self._place += count
        return place

    def end(self) -> None:
        """Check that all words are read and that every state is where an encoder begins."""
        if self._place != len(self._words) or (self._states != _LOW).any():
            raise BundleFormatError(f"{self._what} does not end where its values do")


class _Encoder:
    """Remembers what each step encodes, because states are written backwards."""

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self._steps: list[tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]] = []

    def refresh(self, model: _Model) -> None:
        """Take the model's new frequencies."""
        self._frequency, self._start = model.frequency, model.start & (_ONE - 1)

    def step(self, place: I64) -> I64:
        """Encode one token in each of the first lanes."""
        self._steps.append((self._frequency[place].astype(np.uint16), self._start[place].astype(np.uint16)))
        return place

    def written(self) -> tuple[bytes, bytes]:
        """The states that a decoder begins with, and the words that it reads."""
        states = np.full(self._lanes, _LOW, np.int64)
        written: list[bytes] = []
        for frequency, start in reversed(self._steps):
            part, wide = states[: len(frequency)], frequency.astype(np.int64)
            full = np.flatnonzero(part >= wide << (32 - _BITS))
            if len(full):
                written.append(part[full].astype("<u2").tobytes())
                part[full] >>= 16
            quotient, rest = np.divmod(part, wide)
            part[:] = (quotient << _BITS) + rest + start
        return states.astype("<u4").tobytes(), b"".join(reversed(written))


def _walk(tokens: U8, shape: Shape, model: _Model, coder: _Decoder | _Encoder, lanes: int) -> None:
    """Visit a tensor's tokens, uint8 [values], step by step; a decoder fills them in.

    In a step, lane l is at column l * steps + s of a row, s from 0 up. The context of a token is what its column was in
    the rows before, fading, and the two tokens before it in its lane.
    """
    row, steps = _layout(shape, lanes)
    faded = [np.zeros(len(range(s, row, steps)), np.int64) for s in range(steps)]
    decoding = isinstance(coder, _Decoder)
    for begin in range(0, len(tokens), row):
        left = tokens[begin : begin + row]
        near = last = np.zeros(len(faded[0]), np.int64)
        for s in range(min(steps, len(left))):
            if model.ready():
                coder.refresh(model)
            here = left[s::steps]
            memory = faded[s][: len(here)]
            context = _CONTEXT_OF[(memory + near[: len(here)]) >> 1]
            if decoding:
                place = coder.step(context)
                token = _TOKEN_OF[place]
                here[:] = token
            else:
                token = here.astype(np.int64)
                place = coder.step((context >> _BITS) * TOKENS + token)
            model.add(place)
            token <<= 5
            memory -= memory >> 3
            memory += token
            near, last = 2 * token + last[: len(here)], token


class _Bits:
    """Reads single bits, the highest of a byte first."""

    def __init__(self, data: memoryview, what: str) -> None:
        self._data, self._what, self.place = np.frombuffer(data, np.uint8), what, 0

    def at(self, place: int, count: int) -> U8:
        """``count`` bits from ``place`` on, as uint8 of 0 and 1."""
        if place + count > 8 * len(self._data):
            raise BundleFormatError(f"{self._what} ends early")
        first = place >> 3
        return np.unpackbits(self._data[first : (place + count + 7) >> 3])[place - 8 * first :][:count]

    def end(self) -> None:
        """Check that fewer than eight bits are left, all of them 0."""
        rest = 8 * len(self._data) - self.place
        if rest >= 8 or self.at(self.place, rest).any():
            raise BundleFormatError(f"{self._what} does not end where its values do")


def _extra(tokens: U8) -> I64:
    """Bits that follow each token."""
    wide = tokens.astype(np.int64)
    return np.where(wide >= _DIRECT, wide - _DIRECT + 2, 0)


def _magnitudes(tokens: U8, bits: _Bits, place: int) -> tuple[I64, int]:
    """Magnitudes of some tokens whose further bits begin at ``place``, and where those end."""
    found = tokens.astype(np.int64)
    at = np.flatnonzero(tokens >= _DIRECT)
    if len(at):
        sizes = _extra(tokens[at])
        ends = np.cumsum(sizes)
        read = bits.at(place, int(ends[-1]))
        value = np.ones(len(at), np.int64)
        for bit in range(int(sizes.max())):
            more = np.flatnonzero(sizes > bit)
            value[more] = 2 * value[more] + read[(ends - sizes)[more] + bit]
        found[at] = value + _OFFSET
        place += int(ends[-1])
    return found, place


def _signed(values: npt.NDArray[np.float32], tokens: U8, limit: int, bits: _Bits, what: str) -> None:
    """Turn tokens, which lie in the memory of ``values``, into integers with their signs."""
    signs = bits.place
    place = signs + int(np.count_nonzero(tokens))
    for begin in range(0, len(values), _PIECE):
        some = tokens[begin : begin + _PIECE].copy()
        whole, place = _magnitudes(some, bits, place)
        at = np.flatnonzero(some)
        whole[at] *= 1 - 2 * bits.at(signs, len(at)).astype(np.int64)
        signs += len(at)
        if (largest := int(np.abs(whole).max(initial=0))) > limit:
            raise BundleFormatError(f"{what} holds the integer {largest}; at most {limit} is allowed here")
        values[begin : begin + _PIECE] = whole
    bits.place = place


def decode_stream(
    data: bytes | memoryview, shapes: Sequence[Shape], limits: Sequence[int], what: str
) -> Iterator[npt.NDArray[np.float32]]:
    """Decode tensors of integers, one after another, in little more memory than the result takes.

    Args:
        shapes: of the tensors, each of at least one value.
        limits: largest magnitude of an integer of each tensor, at most 32,767.
        what: name of the stream, for messages.

    Yields:
        float32 arrays [values] that hold integers, in C order.

    Raises:
        BundleFormatError: if the stream is damaged, truncated or too long, or an integer is over its limit. What is
            wrong at the end of the stream is raised behind the last tensor.
    """
    view, count = memoryview(data), len(shapes)
    if len(view) < 5 or not 2 <= view[0] <= _MOST_LANES:
        raise BundleFormatError(f"{what} is no stream of 4 to {1 << _MOST_LANES} lanes")
    lanes, words = 1 << view[0], 2 * int.from_bytes(view[1:5], "little")
    tops = view[5 : 5 + count]
    begin = 5 + count + 4 * lanes
    if begin + words > len(view):
        raise BundleFormatError(f"{what} ends early")
    if max(tops, default=0) >= TOKENS:
        raise BundleFormatError(f"{what} has the token {max(tops)}; the largest is {TOKENS - 1}")
    states = np.frombuffer(view[5 + count : begin], "<u4").astype(np.int64)
    if (states < _LOW).any():
        raise BundleFormatError(f"{what} has a lane that begins below 2**16")
    decoder = _Decoder(states, np.frombuffer(view[begin : begin + words], "<u2"), what)
    models, bits = (_Model(lanes, False), _Model(lanes, True)), _Bits(view[begin + words :], what)
    for shape, top, limit in zip(shapes, tops, limits, strict=True):
        values = np.zeros(prod(shape), np.float32)
        if top:
            tokens = values.view(np.uint8)[::4]
            model = models[_is_vector(shape)]
            model.begin(top)
            _walk(tokens, shape, model, decoder, lanes)
            _signed(values, tokens, limit, bits, what)
        yield values
    decoder.end()
    bits.end()


def _packed(integers: Integers, tokens: U8) -> U8:
    """The signs of a tensor's integers, and the further bits of its large ones, as uint8 of 0 and 1."""
    wide = integers.reshape(-1).astype(np.int64)
    at = np.flatnonzero(tokens >= _DIRECT)
    sizes, value = _extra(tokens[at]), np.abs(wide[at]) - _OFFSET
    ends = np.cumsum(sizes)
    extra = np.zeros(int(ends[-1]) if len(at) else 0, np.uint8)
    for bit in range(int(sizes.max(initial=0))):
        more = np.flatnonzero(sizes > bit)
        extra[(ends - 1)[more] - bit] = (value[more] >> bit) & 1
    return np.concatenate([(wide[wide != 0] < 0).astype(np.uint8), extra])


def _tokens(integers: Integers) -> U8:
    sizes = np.abs(integers.reshape(-1).astype(np.int64))
    large = sizes >= _DIRECT
    bits = np.frexp(np.where(large, sizes - _OFFSET, 1))[1] - 1
    found: U8 = np.where(large, bits + _DIRECT - 2, sizes).astype(np.uint8)
    return found


def encode_stream(tensors: Sequence[Integers]) -> bytes:
    """Encode tensors of integers; the same integers give the same bytes.

    Args:
        tensors: int16 arrays, each of at least one value, within +-32,767.
    """
    size = lanes_for(sum(each.size for each in tensors))
    lanes = 1 << size
    models, encoder, tops, bits = (_Model(lanes, False), _Model(lanes, True)), _Encoder(lanes), [], []
    for integers in tensors:
        tokens = _tokens(integers)
        tops.append(int(tokens.max()))
        if tops[-1]:
            model = models[_is_vector(integers.shape)]
            model.begin(tops[-1])
            _walk(tokens, integers.shape, model, encoder, lanes)
            bits.append(_packed(integers, tokens))
    states, words = encoder.written()
    raw = np.packbits(np.concatenate(bits) if bits else np.zeros(0, np.uint8)).tobytes()
    return bytes([size]) + (len(words) // 2).to_bytes(4, "little") + bytes(tops) + states + words + raw
