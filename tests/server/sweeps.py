"""Commands of a repository interrupted at each of their calls; ``interrupted.py`` is the process that does it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["interrupt"]


def interrupt(place: Path, how: str, command: str, step: int, complete: str | None = None) -> list[dict[str, Any]]:
    """Interrupt a command before its first, its ``step + 1``-th, ... call, and repeat it.

    Args:
        how: "kill", or "full" for a disk that is full from there on.
        complete: part of the sentence of a repetition that has nothing left to do.

    Returns:
        A row for each interruption; the last is of the command that came to its end.
    """
    script = str(Path(__file__).with_name("interrupted.py"))
    line = [sys.executable, script, str(place), how, command, "1", str(step)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    for row in rows:
        if how == "full" and row is not rows[-1]:
            assert "cannot be written: No space left on device" in row["said"], row
            assert "\n" not in row["said"]
        assert row["again"] == "done" or (complete is not None and complete in row["again"]), row
        assert row["problems"] == [], row
    assert rows[-1]["said"] == "done"
    return rows
