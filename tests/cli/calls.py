"""``seedcnn`` as a user types it: through its entry point in this process, or in a process of its own."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from seedcnn.cli import main


class Done(NamedTuple):
    """What a command left behind."""

    stdout: str
    stderr: str


def in_process(*arguments: object, expect: int = 0) -> Done:
    """Run the command here, where everything is imported already; torch alone takes seconds."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["seedcnn", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.argv = before
    assert code == expect, err.getvalue()
    return Done(out.getvalue(), err.getvalue())


def as_process(*arguments: object, expect: int = 0, cwd: Path | None = None) -> Done:
    """Run the command in a new interpreter."""
    command = [sys.executable, "-m", "seedcnn.cli", *map(str, arguments)]
    done = subprocess.run(command, text=True, capture_output=True, timeout=560, cwd=cwd)
    assert done.returncode == expect, done.stderr
    return Done(done.stdout, done.stderr)


def command(path: Path, arguments: list[object], environment: dict[str, str]) -> None:
    """The target of a process: run the command with this environment, and write what it prints beside ``path``."""
    import torch

    torch.set_num_threads(1)
    os.environ.update(environment)
    done = in_process(*arguments)
    for stream, text in (("out", done.stdout), ("err", done.stderr)):
        Path(f"{path}.{environment['RANK']}.{stream}").write_text(text)
