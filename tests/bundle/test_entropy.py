"""The entropy coder: what goes in comes out, it is small, and whatever is wrong with a stream is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nst

from seedcnn.bundle import grid_of_step
from seedcnn.bundle.codings import encode_integers
from seedcnn.bundle.compression import compress
from seedcnn.bundle.entropy import TOKENS, decode_stream, encode_stream, lanes_for
from seedcnn.errors import BundleFormatError
from tests.bundle.bundles import tiny_bundle
from tests.bundle.c_reader import run
from tests.bundle.make_vectors import told

SHAPES = nst.array_shapes(min_dims=0, max_dims=4, max_side=9)
SPREADS = st.sampled_from([0.05, 0.3, 1.0, 5.0, 300.0, 9000.0])


def _draw(shape, seed, spread):
    values = np.random.default_rng(seed).laplace(0, spread, shape)
    return np.asarray(np.clip(np.rint(values), -32767, 32767), np.int16)


def _decoded(data, tensors, limit=32767):
    return list(decode_stream(data, [each.shape for each in tensors], [limit] * len(tensors), "the stream"))


def _same(tensors):
    found = _decoded(encode_stream(tensors), tensors)
    assert [each.dtype for each in found] == [np.float32] * len(tensors)
    return all((one.reshape(-1) == other).all() for one, other in zip(tensors, found, strict=True))


@settings(deadline=None, max_examples=150)
@given(st.lists(st.tuples(SHAPES, st.integers(0, 99), SPREADS), min_size=1, max_size=5))
def test_tensors_come_back(draws):
    assert _same([_draw(*each) for each in draws])


@settings(deadline=None, max_examples=80)
@given(nst.arrays(np.int16, SHAPES, elements=st.integers(-32767, 32767)))
def test_any_integers_come_back(integers):
    assert _same([integers])


@pytest.mark.parametrize(
    "shape", [(1,), (7, 1), (1, 5000), (5000,), (3, 1, 1, 4099), (64, 3, 3, 3), (600, 9), (2, 65_000)], ids=str
)
@pytest.mark.parametrize("spread", [0.01, 0.4, 30.0])
def test_shapes_of_layers_come_back(shape, spread):
    assert _same([_draw(shape, 0, spread), _draw((17,), 1, 500), np.zeros((4, 4), np.int16), _draw(shape, 2, spread)])


def test_a_row_of_over_a_million_values_comes_back(reader, tmp_path):
    """In both readers: such rows are cut."""
    values = _draw((1, 3, 400_000), 0, 0.4)
    assert _same([values])
    data = tiny_bundle(tensors=[encode_integers("w", values, grid_of_step(1))])
    (tmp_path / "long").write_bytes(data)
    done = run([reader, tmp_path / "long"])
    assert (done.returncode, done.stdout) == (0, told(data)), done.stderr


def test_every_token_comes_back():
    edges = [0, 1, 11, 12, 15, 16, 23, 24, 39, 40, 16_391, 16_392, 32_766, 32_767]
    assert _same([np.array([*edges, *(-value for value in edges)], np.int16)])


def test_the_same_integers_give_the_same_bytes():
    tensors = [_draw((32, 16, 3, 3), 0, 0.5)]
    assert encode_stream(tensors) == encode_stream([each.copy() for each in tensors])


@pytest.mark.parametrize(("spread", "share"), [(0.3, 0.84), (0.6, 0.97), (1.2, 0.99)])
def test_it_is_smaller_than_zstd_and_near_the_entropy(spread, share):
    tensors = [_draw(shape, seed, spread) for seed, shape in enumerate([(64, 64, 3, 3)] * 3)]
    size = len(encode_stream(tensors))
    whole = np.concatenate([each.reshape(-1) for each in tensors])
    counts = np.unique(whole, return_counts=True)[1]
    entropy = -(counts * np.log2(counts / whole.size)).sum() / 8
    assert size < 1.012 * entropy
    assert size < share * len(compress(whole.astype(np.int8).tobytes()))


def test_patterns_make_it_smaller():
    """Dead inputs and dead outputs, as training with a price on bits leaves them."""
    integers = _draw((64, 64, 3, 3), 0, 0.6)
    dead = integers.copy()
    dead[:, ::2] = 0
    shuffled = np.random.default_rng(0).permutation(dead.reshape(-1)).reshape(dead.shape)
    assert len(encode_stream([dead])) < 0.87 * len(encode_stream([shuffled]))


def test_the_example_is_the_documented_one():
    integers = np.array([3, 0, 0, -1, 0, 2, 0, 0, 0, 0, 40, 1], np.int16).reshape(3, 4)
    text = (Path(__file__).parents[2] / "docs" / "bundle-format.md").read_text()
    assert f"`{encode_stream([integers]).hex(' ')}`" in text


def test_the_number_of_lanes_grows_with_the_values():
    assert [lanes_for(count) for count in (1, 40_000, 306_000, 11_000_000, 1 << 28)] == [2, 3, 6, 11, 12]


TENSORS = [_draw((8, 6, 3), 0, 0.8), _draw((20,), 1, 90)]
STREAM = encode_stream(TENSORS)


@pytest.mark.parametrize("length", range(len(STREAM)))
def test_a_stream_that_is_cut(length):
    with pytest.raises(BundleFormatError, match=r"the stream (ends early|is no stream of|does not end where)"):
        _decoded(STREAM[:length], TENSORS)


@pytest.mark.parametrize("tail", [b"\0", b"\xff", bytes(99)])
def test_a_stream_that_goes_on(tail):
    with pytest.raises(BundleFormatError, match="the stream does not end where its values do"):
        _decoded(STREAM + tail, TENSORS)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_damage_is_refused_or_gives_integers_within_the_limit(data):
    damaged = bytearray(STREAM)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    limit = data.draw(st.sampled_from([127, 32767]))
    try:
        found = _decoded(bytes(damaged), TENSORS, limit)
    except BundleFormatError:
        return
    assert max(np.abs(each).max() for each in found) <= limit


@pytest.mark.parametrize(
    ("at", "value", "words"),
    [
        (0, 1, "no stream of 4 to 4096 lanes"),
        (0, 13, "no stream of 4 to 4096 lanes"),
        (0, 12, "ends early"),
        (4, 255, "ends early"),
        (5, TOKENS, f"has the token {TOKENS}; the largest is {TOKENS - 1}"),
        (10, 0, "has a lane that begins below"),
    ],
)
def test_a_header_that_makes_no_sense(at, value, words):
    damaged = bytearray(STREAM)
    damaged[at] = value
    if at == 10:
        damaged[9:11] = b"\0\0"
    with pytest.raises(BundleFormatError, match=words):
        _decoded(bytes(damaged), TENSORS)


def test_an_integer_over_its_limit():
    with pytest.raises(BundleFormatError, match=r"the stream holds the integer [0-9]+; at most 127 is allowed here"):
        _decoded(STREAM, TENSORS, 127)


@pytest.mark.slow
def test_many_damaged_streams():
    """A hundred thousand of them; ``make fuzz`` tries more, with the coverage in sight."""
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(100_000):
        damaged = np.frombuffer(STREAM, np.uint8).copy()
        places = rng.integers(0, len(damaged), rng.integers(1, 4))
        damaged[places] ^= rng.integers(1, 256, len(places), np.uint8)
        try:
            _decoded(damaged.tobytes(), TENSORS)
        except BundleFormatError:
            refused += 1
    assert refused > 90_000
