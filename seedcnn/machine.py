"""Where a process runs: the processor's name, and its place among the processes that torchrun started."""

from __future__ import annotations

import os
import platform
from pathlib import Path

__all__ = ["computes_in_bf16", "is_first_process", "processor"]

_CPUINFO = Path("/proc/cpuinfo")
_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}  # flags of x86 and ARM
_NAMES = ("model name", "Model", "CPU part")  # x86 has the first; ARM boards have one of the others


def processor(cpuinfo: Path = _CPUINFO) -> str:
    """Return the processor's name as the system reports it, or "unknown".

    Args:
        cpuinfo: the file in which Linux lists its processors; without it, :mod:`platform` answers.
    """
    try:
        lines = [line.partition(":") for line in cpuinfo.read_text("utf-8", "replace").splitlines()]
    except OSError:
        lines = []
    found = (value.strip() for name, _, value in lines if name.strip() in _NAMES)
    return next(found, "") or platform.processor() or "unknown"


def computes_in_bf16(cpuinfo: Path = _CPUINFO) -> bool:
    """Whether the processor multiplies bfloat16 numbers itself; others emulate it, which is slower than float32.

    Args:
        cpuinfo: the file in which Linux lists its processors; without it the answer is no.
    """
    try:
        lines = [line.partition(":") for line in cpuinfo.read_text("utf-8", "replace").splitlines()]
    except OSError:
        return False
    flags = next((value.split() for name, _, value in lines if name.strip() in ("flags", "Features")), [])
    return bool(_BF16 & set(flags))


def is_first_process() -> bool:
    """Whether this process is the first of its run, which alone prints and writes; True without torchrun."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["RANK"] == "0"
