"""The processor's name, for records of what was measured where."""

from __future__ import annotations

import platform
from pathlib import Path

__all__ = ["processor"]

_CPUINFO = Path("/proc/cpuinfo")
_NAMES = ("model name", "Model", "CPU part")  # x86, and what the kernels of ARM boards write instead


def processor(cpuinfo: Path = _CPUINFO) -> str:
    """The processor's name as the system gives it, or "unknown".

    Args:
        cpuinfo: where Linux lists the processors; where there is no such file, :mod:`platform` is asked.
    """
    try:
        lines = [line.partition(":") for line in cpuinfo.read_text("utf-8", "replace").splitlines()]
    except OSError:
        lines = []
    found = (value.strip() for name, _, value in lines if name.strip() in _NAMES)
    return next(found, "") or platform.processor() or "unknown"
