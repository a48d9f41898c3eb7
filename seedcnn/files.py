"""Files that survive a power cut: written beside their place, flushed to the medium, renamed, the directory flushed."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import BinaryIO

__all__ = ["fsync_directory", "fsync_file", "lock_file", "remove", "replace_symlink", "write_file"]


def fsync_directory(path: Path) -> None:
    """Flush a directory, so that names added, renamed or removed in it last."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_file(path: Path) -> None:
    """Flush a file that somebody else wrote."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write ``data`` to ``path``: after a cut the old content or the new is there, never a part.

    Args:
        mode: permission bits of the file, which it has before it holds anything (the umask applies).

    Raises:
        OSError: if the file system refuses; the half-written temporary file is removed.
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


def lock_file(path: Path) -> BinaryIO:
    """Lock ``path``, an empty file that is made if it is not there; closing what is returned gives the lock back.

    Whoever holds the lock may remove the file before closing.

    Raises:
        BlockingIOError: if another process holds it.
        OSError: if it cannot be opened.
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
    """Point the symbolic link ``path`` at ``target`` in one step: a fresh link is renamed over the old one."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    os.symlink(target, temporary)
    os.replace(temporary, path)
    fsync_directory(path.parent)


def remove(path: Path) -> None:
    """Remove a file for good, if it is there."""
    path.unlink(missing_ok=True)
    fsync_directory(path.parent)
