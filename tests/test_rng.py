"""The generator: published and own known answers, addressing, exactness, and a second implementation in C."""

from __future__ import annotations

import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seedcnn.rng import FixedPoint, layer_seed, philox4x32, random_bytes, random_words, uniform

SEED = 0x0123456789ABCDEF

# Random123, kat_vectors, "philox4x32 10": counter words, key words (low, high), answer.
RANDOM123 = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]

# seed, tensor id, stream, (lo_q, span_q, frac_bits), the first numbers.
MAPPING = [
    (0, 0, 0, (0, 1 << 23, 23), "0x1.6e739p-3 0x1.348e2p-4 0x1.f9f1cp-1 0x1.450f54p-1 0x1.d2a6b4p-1 0x1.44311p-2"),
    (SEED, 7, 3, (-8388608, 16777216, 23), "-0x1.e16188p-2 0x1.304c28p-2 -0x1.981d34p-1 0x1.f47becp-1 -0x1.04391p-1"),
    (2**64 - 1, 2**32 - 1, 2**32 - 1, (-12582912, 8388608, 22), "-0x1.2c1d18p+1 -0x1.01e9fcp+1 -0x1.eda7f4p+0"),
    (42, 1, 0, (209715, 10276045, 21), "0x1.6ef448p+0 0x1.73f5f8p+0 0x1.99f374p+1 0x1.1536dap+2 0x1.41eep-3"),
    (42, 1, 0, (3, 0, 0), "0x1.8p+1 0x1.8p+1 0x1.8p+1"),
]

C_PROGRAM = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
static void philox(uint32_t c[4], uint32_t k0, uint32_t k1) {
  for (int round = 0; round < 10; round++) {
    uint64_t a = (uint64_t)0xD2511F53u * c[0], b = (uint64_t)0xCD9E8D57u * c[2];
    uint32_t n0 = (uint32_t)(b >> 32) ^ c[1] ^ k0, n2 = (uint32_t)(a >> 32) ^ c[3] ^ k1;
    c[0] = n0; c[1] = (uint32_t)b; c[2] = n2; c[3] = (uint32_t)a;
    k0 += 0x9E3779B9u; k1 += 0xBB67AE85u;
  }
}
int main(int argc, char **argv) {
  uint64_t seed = strtoull(argv[1], 0, 10);
  uint32_t tensor = strtoul(argv[2], 0, 10), stream = strtoul(argv[3], 0, 10), span = strtoul(argv[5], 0, 10);
  int32_t lo = atoi(argv[4]), frac_bits = atoi(argv[6]), count = atoi(argv[7]);
  float scale = 1.0f;
  for (int i = 0; i < frac_bits; i++) scale *= 0.5f;
  for (int32_t i = 0; i < count; i += 4) {
    uint32_t c[4] = {(uint32_t)i / 4, tensor, stream, 1};
    philox(c, (uint32_t)seed, (uint32_t)(seed >> 32));
    for (int j = 0; j < 4 && i + j < count; j++) {
      float value = (float)(lo + (int32_t)(((uint64_t)span * c[j]) >> 32)) * scale;
      fwrite(&value, sizeof value, 1, stdout);
    }
  }
  return argc != 8;
}
"""


@pytest.mark.parametrize(("counter", "key", "answer"), RANDOM123)
def test_philox_gives_the_published_answers(counter, key, answer):
    result = philox4x32(np.array([counter], np.uint32), key[0] | key[1] << 32)
    assert result.dtype == np.uint32
    assert result.tolist() == [list(answer)]


@pytest.mark.parametrize(("seed", "tensor_id", "stream", "fixed", "answer"), MAPPING)
def test_fixed_point_mapping_gives_our_published_answers(seed, tensor_id, stream, fixed, answer):
    expected = [float.fromhex(text) for text in answer.split()]
    values = uniform(seed, FixedPoint(*fixed), tensor_id=tensor_id, stream=stream, count=len(expected))
    assert values.dtype == np.float32
    assert values.tolist() == expected


def test_words_have_the_published_address():
    assert random_words(0, tensor_id=0, count=3).tolist() == [0x2DCE73E5, 0x1348E23F, 0xFCF8E0EC]
    far = random_words(42, tensor_id=1, count=262_145)
    assert far[262_143:].tolist() == [0x4E3E8D50, 0x3A829BFE]  # either side of a piece of 65,536 blocks


def test_bytes_are_the_words_in_little_endian_order():
    words, raw = random_words(9, tensor_id=2, stream=5, count=3), random_bytes(9, tensor_id=2, stream=5, count=11)
    assert raw.dtype == np.uint8
    assert raw.tobytes() == b"".join(int(word).to_bytes(4, "little") for word in words)[:11]


@given(st.integers(0, 40), st.integers(0, 40))
def test_a_longer_draw_starts_with_the_shorter_one(short, more):
    long = random_words(SEED, tensor_id=1, count=short + more)
    assert random_words(SEED, tensor_id=1, count=short).tolist() == long[:short].tolist()
    assert len(long) == short + more


def test_every_part_of_the_address_matters():
    base = {"seed": 5, "tensor_id": 6, "stream": 7}
    draws = {tuple(random_words(**base, count=4).tolist())}
    for name, value in (("seed", 6), ("seed", 5 + 2**32), ("tensor_id", 7), ("stream", 8)):
        draws.add(tuple(random_words(**(base | {name: value}), count=4).tolist()))
    assert len(draws) == 5
    assert random_words(5, tensor_id=7, stream=6, count=4).tolist() != random_words(**base, count=4).tolist()


def test_no_word_is_drawn_twice_within_a_stream():
    assert len(np.unique(random_words(3, tensor_id=0, count=40_000))) > 39_990  # 0.2 collisions are expected by chance


def test_uniform_fills_its_range_evenly():
    values = uniform(11, FixedPoint.from_range(-2, 2), tensor_id=0, count=100_000)
    counts, _ = np.histogram(values, bins=16, range=(-2, 2))
    assert counts.sum() == 100_000
    assert np.abs(counts - 6250).max() < 5 * 6250**0.5


@settings(deadline=None)
@given(
    st.floats(-16_000_000, 16_000_000, width=32),
    st.floats(-16_000_000, 16_000_000, width=32),
    st.integers(0, 2**64 - 1),
)
def test_numbers_are_exact_in_float32_and_within_the_range(one, other, seed):
    lo, hi = sorted((one, other))
    fixed = FixedPoint.from_range(lo, hi)
    values = uniform(seed, fixed, tensor_id=0, count=8)
    words = random_words(seed, tensor_id=0, count=8)
    step = Fraction(1, 2**fixed.frac_bits)
    assert abs(fixed.lo_q * step - Fraction(lo)) <= step / 2
    assert abs((fixed.lo_q + fixed.span_q) * step - Fraction(hi)) <= step / 2
    for value, word in zip(values, words, strict=True):
        assert Fraction(float(value)) == (fixed.lo_q + (fixed.span_q * int(word) >> 32)) * step
        assert fixed.lo_q * step <= Fraction(float(value)) <= (fixed.lo_q + fixed.span_q) * step


def test_from_range_takes_the_finest_form():
    assert FixedPoint.from_range(-1, 1) == FixedPoint(-8388608, 16777216, 23)
    assert FixedPoint.from_range(0.1, 5) == FixedPoint(209715, 10276045, 21)
    assert FixedPoint.from_range(-100, 100) == FixedPoint(-13107200, 26214400, 17)
    assert FixedPoint.from_range(np.float32(-3), np.float32(-1)) == FixedPoint(-12582912, 8388608, 22)


@pytest.mark.parametrize(
    ("model_seed", "name", "answer"),
    [
        (0, "layer1.0.conv1", 5216093800127989938),
        (SEED, "features.3", 17638263219888396794),
        (2**64 - 1, "stäge/é", 15491807076852979662),
        (1, "", 13763157699925879030),
    ],
)
def test_layer_seed_gives_our_published_answers(model_seed, name, answer):
    assert layer_seed(model_seed, name) == answer


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: philox4x32(np.zeros((2, 3), np.uint32), 0), r"`counter` has shape \(2, 3\)"),
        (lambda: philox4x32(np.zeros(4, np.uint32), 2**64), r"`key` \(=18446744073709551616\)"),
        (lambda: random_words(-1, tensor_id=0, count=0), r"`seed` \(=-1\)"),
        (lambda: random_words(0, tensor_id=2**32, count=1), r"`tensor_id` \(=4294967296\)"),
        (lambda: random_words(0, tensor_id=0, stream=-1, count=1), r"`stream` \(=-1\)"),
        (lambda: random_words(0, tensor_id=0, count=-1), r"`count` \(=-1\)"),
        (lambda: random_words(0, tensor_id=0, count=2**34), r"`count` \(=17179869184\)"),
        (lambda: random_bytes(0, tensor_id=0, count=-5), r"`count` \(=-5\)"),
        (lambda: layer_seed(2**64, "a"), r"`model_seed`"),
        (lambda: FixedPoint(0, 1, 61), r"`frac_bits` \(=61\)"),
        (lambda: FixedPoint(0, 2**25, 0), r"`span_q` \(=33554432\)"),
        (lambda: FixedPoint(0, -1, 0), r"`span_q` \(=-1\)"),
        (lambda: FixedPoint(-(2**24), 1, 0), r"range \[-16777216, -16777215\]"),
        (lambda: FixedPoint(1, 2**24 - 1, 0), r"range \[1, 16777216\]"),
        (lambda: FixedPoint.from_range(1, 0), r"lo <= hi"),
        (lambda: FixedPoint.from_range(0, float("nan")), r"finite"),
        (lambda: FixedPoint.from_range(float("-inf"), 0), r"finite"),
        (lambda: FixedPoint.from_range(0, 2**24 - 0.5), r"must stay within"),
    ],
)
def test_a_wrong_value_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: random_words(1.5, tensor_id=0, count=1),
        lambda: random_words(1, tensor_id="0", count=1),
        lambda: philox4x32(np.zeros(4, np.int64), 0),
    ],
)
def test_a_wrong_type_is_refused(call):
    with pytest.raises(TypeError):
        call()


def test_numpy_integers_are_integers():
    expected = random_words(2**63 + 5, tensor_id=3, count=5).tolist()
    assert random_words(np.uint64(2**63 + 5), tensor_id=np.int32(3), count=np.int64(5)).tolist() == expected


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler on PATH")
def test_a_c_program_gives_the_same_bits(tmp_path: Path):
    source, program = tmp_path / "rng.c", tmp_path / "rng"
    source.write_text(C_PROGRAM)
    # The flags that break a floating-point mapping must not touch this one.
    subprocess.run(["cc", "-O3", "-ffast-math", "-o", program, source], check=True, capture_output=True)
    cases = [(SEED, 7, 3, -0.37, 1.9), (2**64 - 1, 2**32 - 1, 1, -3.0, 3.0), (0, 0, 0, 0.001, 12_345.678)]
    for seed, tensor_id, stream, lo, hi in cases:
        fixed = FixedPoint.from_range(lo, hi)
        numbers = (seed, tensor_id, stream, fixed.lo_q, fixed.span_q, fixed.frac_bits, 10_000)
        output = subprocess.run([program, *map(str, numbers)], check=True, capture_output=True).stdout
        ours = uniform(seed, fixed, tensor_id=tensor_id, stream=stream, count=10_000)
        assert output == ours.astype("=f4").tobytes()
