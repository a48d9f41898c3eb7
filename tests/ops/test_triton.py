"""The Triton kernels in Triton's interpreter, and the rule that says when they are used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from seedcnn.ops.group_nl import NLFS
from seedcnn.ops.group_nl.op import uses_triton

ROOT = Path(__file__).parents[2]


def test_kernels_agree_with_the_reference():
    """In a separate process, because the interpreter must be selected before the kernels are imported."""
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.ops.triton_worker"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 6 * len(NLFS) + 30


def test_every_function_has_a_kernel():
    kernels = pytest.importorskip("seedcnn.ops.group_nl.triton", exc_type=ImportError)
    assert set(kernels._CODES) == set(NLFS)


def test_a_tensor_on_the_cpu_takes_the_form_in_torch():
    assert not uses_triton(torch.zeros(1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu():
    for dtype, used in ((torch.float32, True), (torch.bfloat16, True), (torch.float16, True), (torch.float64, False)):
        assert uses_triton(torch.zeros(1, device="cuda", dtype=dtype)) == used
