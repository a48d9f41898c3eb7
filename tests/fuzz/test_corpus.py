"""The fuzzer's corpus and its mutations, without the fuzzer; and a short run of it where it is installed."""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.fuzz import fuzz_bundle
from tests.fuzz.fuzz_bundle import CORPUS, LARGEST_INPUT, answer, mutated, parent
from tests.fuzz.make_corpus import RULES


def _mutate(data: bytes, largest: int) -> bytes:
    """A byte changed, inserted or taken away."""
    rng = random.Random(data)
    at = rng.randrange(len(data) + 1)
    return (data[:at] + rng.randbytes(rng.randrange(3)) + data[at + rng.randrange(2) :])[:largest]


def test_every_file_is_answered():
    base = parent()
    told = {path.name: answer(path.read_bytes(), base) for path in sorted(CORPUS.iterdir())}
    assert {told[f"{name}.bundle"] for name in RULES} == {"bundle"}
    assert {told[f"{name}.delta"] for name in ("entropy", "zstd", "zlib", "xz")} == {"delta"}


def test_mutations_reach_behind_the_digests():
    base = parent()
    told: Counter[str] = Counter()
    for path in sorted(CORPUS.iterdir()):
        data = path.read_bytes()
        told.update(answer(mutated(data, LARGEST_INPUT, seed, _mutate), base) for seed in range(200))
    assert told["refused"] > 500  # hardly any mutation is harmless
    assert told["bundle"] + told["delta"] + told["large"] > 5  # and some pass all digests


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
def test_the_fuzzer_runs(tmp_path):
    options = ["-runs=100000", "-timeout=10", f"-artifact_prefix={tmp_path}/"]
    command = [sys.executable, fuzz_bundle.__file__, str(tmp_path), str(CORPUS), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done 100000 runs" in done.stderr
