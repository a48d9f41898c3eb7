"""Files that survive a power cut: write a temporary file, flush it, rename it into place, flush the directory."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from pathlib import Path
from typing import BinaryIO

__all__ = ["fsync_directory", "fsync_file", "lock_file", "prepare_output", "remove", "replace_symlink", "write_file"]


def fsync_directory(path: Path) -> None:
    """Flush a directory, so that changes of names in it survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> None:
    """Flush a file written by other code."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write ``data`` to ``path``. After a power cut the file has the old content or the new, never a part.

    Args:
        mode: permission bits, set before anything is written (the umask applies).

    Raises:
        OSError: if the file system refuses. The temporary file is removed.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    os.replace(temporary, path)
    fsync_directory(path.parent)


def prepare_output(path: Path) -> None:
    """Make the directory of a file that will be written, and check that it can be written there.

    Raises:
        OSError: if ``path`` is a directory, its directory cannot be made, or takes no file; nothing else is left.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a directory", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
        pass


def lock_file(path: Path) -> BinaryIO:
    """Lock ``path``, an empty file that is created if needed. Close the returned file to release the lock.

    The holder of the lock may remove the file before closing it.

    Raises:
        BlockingIOError: if another process holds the lock.
        OSError: if the file cannot be opened.
    """
    while True:
        file = open(path, "ab")  # noqa: SIM115 - the caller closes it
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        except FileNotFoundError:
            pass
        except OSError:
            file.close()
            raise
        file.close()  # the file was removed between opening and locking


def replace_symlink(path: Path, target: str) -> None:
    """Point the symbolic link ``path`` at ``target`` in one step, by renaming a new link over the old one."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    os.symlink(target, temporary)
    os.replace(temporary, path)
    fsync_directory(path.parent)


def remove(path: Path) -> None:
    """Remove a file if it exists, so that it stays removed after a power cut."""
    path.unlink(missing_ok=True)
    fsync_directory(path.parent)
