"""The processor's name, for records of what was measured where."""

from __future__ import annotations

import platform
from pathlib import Path

__all__ = ["processor"]

_CPUINFO = Path("/proc/cpuinfo")
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
