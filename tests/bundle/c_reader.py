"""The reader in C: how it is built and run, and that it agrees with the one in Python."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from seedcnn.bundle import read_bundle
from seedcnn.errors import BundleError, ImageError
from seedcnn.runtime.pictures import check_canned_pictures
from tests.bundle.bundles import explore

SOURCE = Path(__file__).parents[2] / "examples" / "reader" / "seedcnn_reader.c"


def tool(name: str) -> str:
    """A program's path; without it the test is skipped."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def build(tmp: Path, compiler: str, *options: str | Path) -> Path:
    """Compile the reader; a warning is an error."""
    out = tmp / "reader"
    warnings = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    subprocess.run([tool(compiler), *warnings, "-o", out, SOURCE, *options, "-lm"], check=True)
    return out


def run(command: list[str | Path]) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def agree(reader: Path, place: Path, data: bytes) -> None:
    """Either both readers accept a file or both refuse it, a wrong picture only as such; the C reader never crashes."""
    found = None
    try:
        bundle = read_bundle(data)
        explore(bundle)
        check_canned_pictures(bundle)
    except (BundleError, ImageError) as error:
        found = error
    place.write_bytes(data)
    done = run([reader, place])
    assert done.returncode == (found is not None), (done.stderr, found)
    pictures = "canned pictures do not" in done.stderr or "a size that the rule refuses" in done.stderr
    assert pictures == isinstance(found, ImageError), (done.stderr, found)
