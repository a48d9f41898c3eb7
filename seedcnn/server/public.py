"""Directories and files to be served: another user's web server can read them, whatever the umask of the publisher."""

from __future__ import annotations

from pathlib import Path

from seedcnn.files import write_file

__all__ = ["public_directory", "write_public"]


def public_directory(path: Path) -> None:
    """Create a directory and its missing parents with mode 0755.

    Raises:
        OSError: if the file system refuses.
    """
    missing = [each for each in (path, *path.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        each.chmod(0o755)


def write_public(path: Path, data: bytes) -> None:
    """Write a file with mode 0644; see :func:`seedcnn.files.write_file`."""
    write_file(path, data, mode=0o644, exact=True)
