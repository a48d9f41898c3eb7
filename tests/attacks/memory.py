"""The peak memory of a child process alone; ``ru_maxrss`` would start from the parent's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_PEAK = """
def peak():
    try:
        lines = open("/proc/self/status").read().splitlines()
        return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))
    except OSError:
        import resource, sys
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
"""


def printed(code: str, *arguments: object) -> list[str]:
    """Return the lines that ``code`` prints in a separate process, which has a ``peak()`` in bytes."""
    command = [sys.executable, "-c", _PEAK + code, *map(str, arguments)]
    return subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
