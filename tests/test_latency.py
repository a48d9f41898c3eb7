"""Interleaved timing."""

from __future__ import annotations

import time

import pytest

from seedcnn.latency import interleave


def test_interleaved_latency_tells_slow_from_fast():
    result = interleave({"fast": lambda: None, "slow": lambda: time.sleep(0.003)}, rounds=20, warmup=2)
    assert result["slow"].median_ms > 3 > result["fast"].median_ms
    assert result["slow"].q1_ms <= result["slow"].median_ms <= result["slow"].q3_ms
    assert result["slow"].n == 20


def test_interleaving_calls_each_once_a_round_in_changing_order():
    calls = []
    interleave({name: lambda name=name: calls.append(name) for name in "abc"}, rounds=30, warmup=3)
    rounds = [tuple(calls[i : i + 3]) for i in range(0, len(calls), 3)]
    assert len(rounds) == 33
    assert all(sorted(r) == ["a", "b", "c"] for r in rounds)
    assert len(set(rounds)) > 2
    with pytest.raises(ValueError, match=r"rounds.*=0"):
        interleave({}, rounds=0)


def test_no_round_begins_after_its_time():
    result = interleave({"slow": lambda: time.sleep(0.002)}, rounds=1000, warmup=0, seconds=0.05)
    assert 5 <= result["slow"].n < 30
    assert interleave({"a": lambda: None}, warmup=0, seconds=0)["a"].n == 5


def test_untimed_calls_come_right_before_the_timed_one():
    calls = []
    interleave({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=6, warmup=1, settle=2)
    turns = [calls[i : i + 3] for i in range(0, len(calls), 3)]
    assert len(turns) == 14
    assert all(len(set(turn)) == 1 for turn in turns)
