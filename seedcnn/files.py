"""Files that survive a power cut: write a temporary file, flush it, rename it into place, flush the directory."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "drop_temporaries",
    "fsync_directory",
    "fsync_file",
    "lock_file",
    "prepare_output",
    "read_file",
    "remove",
    "replace_symlink",
    "write_file",
    "write_in_order",
]

# Short and of one shape: a name of the full 255 bytes can be replaced too, and what a power cut leaves can be found.
_PREFIX, _SUFFIX = ".seedcnn-", ".tmp"
_LOG = logging.getLogger(__name__)
_DESCRIPTORS = ("/dev/stdout", "/dev/stderr", "/dev/fd", "/proc")


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


def read_file(path: Path) -> bytes:
    """Read a file, once more if the medium fails: one error of reading is no reason to take a file for lost.

    Raises:
        FileNotFoundError: if it does not exist.
        OSError: if it fails twice.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise
    except OSError as error:
        _LOG.warning("%s could not be read and is read again: %s", path, error.strerror or error)
        return path.read_bytes()


def _temporary(path: Path, token: str = "") -> Path:
    """Return a name beside ``path`` that no other writer has."""
    return path.with_name(f"{_PREFIX}{token or secrets.token_hex(8)}{_SUFFIX}")


def drop_temporaries(directory: Path) -> None:
    """Remove the temporary files that killed writers left in ``directory``. The caller keeps other writers out."""
    for path in directory.glob(f"{_PREFIX}*{_SUFFIX}"):
        path.unlink(missing_ok=True)


def _replaceable(path: Path) -> tuple[Path, int | None] | None:
    """Return the file to replace and its permission bits, None for a new one; None for what is no regular file."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        bits = None
    else:
        # A file must not take the place of a device or a pipe, nor of the file behind /dev/stdout.
        if not stat.S_ISREG(found.st_mode) or any(map(path.is_relative_to, _DESCRIPTORS)):
            return None
        bits = stat.S_IMODE(found.st_mode) & 0o777
    return (Path(os.path.realpath(path)) if path.is_symlink() else path), bits


def _fill(temporary: Path, data: bytes, mode: int, bits: int | None) -> None:
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        if bits is not None and stat.S_IMODE(os.fstat(descriptor).st_mode) != bits:
            os.fchmod(descriptor, bits)
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _replace(path: Path, data: bytes, mode: int, bits: int | None, token: str) -> None:
    temporary = _temporary(path, token)
    try:
        if token:
            temporary.unlink(missing_ok=True)
        _fill(temporary, data, mode, bits)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def write_in_order(files: Mapping[Path, bytes], *, mode: int) -> None:
    """Write files that belong together: all of them to temporary files, which are then renamed one after the other.

    A disk that is full changes none of them.

    Args:
        mode: permission bits, whatever the umask says.

    Raises:
        OSError: if the file system refuses; it names the file. Temporary files are removed.
    """
    temporaries = {path: _temporary(path) for path in files}
    path = Path()
    try:
        for path, data in files.items():
            _fill(temporaries[path], data, mode, mode)
        for path, temporary in temporaries.items():
            os.replace(temporary, path)
            fsync_directory(path.parent)
    except OSError as error:
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from None
    finally:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)


def prepare_output(path: Path) -> None:
    """Make the directory of a file that will be written, and check that it can be written there.

    Raises:
        OSError: if ``path`` is a directory, its directory cannot be made, or takes no file; nothing else is left.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a directory", str(path))
    if path.exists() and not path.is_file():
        return  # a device or a pipe
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=_PREFIX, suffix=_SUFFIX):
        pass


def write_file(path: Path, data: bytes, *, mode: int = 0o666, exact: bool = False, token: str = "") -> None:
    """Write ``data`` to ``path``. After a power cut the file has the old content or the new, never a part.

    Each call writes to a temporary file of its own, so that writers of one path do not disturb each other: the last one
    wins. A symbolic link stays, and the file that it points to is replaced. A device or a pipe is written to.

    Args:
        mode: permission bits of a new file; the umask applies. A file that exists keeps its own.
        exact: set ``mode`` whatever the umask says, also on a file that exists.
        token: of a file that has one writer: in the name of the temporary file, so that writing again removes what a
            killed writer left. "" for chance.

    Raises:
        OSError: if the file system refuses; it names ``path``. The temporary file is removed.
    """
    path = Path(path)
    try:
        found = _replaceable(path)
        if found is None:
            path.write_bytes(data)
        else:
            target, bits = found
            _replace(target, data, mode, mode if exact else bits, token)
    except OSError as error:
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from None


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
    temporary = _temporary(path)
    os.symlink(target, temporary)
    try:
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def remove(path: Path) -> None:
    """Remove a file if it exists, so that it stays removed after a power cut."""
    path.unlink(missing_ok=True)
    fsync_directory(path.parent)
