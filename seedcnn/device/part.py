"""The one file that a device is downloading, which outlives broken transfers and killed processes.

``download/DIGEST.part`` in the home holds the first bytes of the file with that SHA-256, and ``download/DIGEST.etag``
the server's name for them (its entity tag). The next transfer asks for the rest (:mod:`seedcnn.device.transfer`).
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from seedcnn.files import fsync_directory, write_file

__all__ = ["Part", "drop_parts", "is_disk_full"]

_DIRECTORY = "download"
_STRONG = re.compile(r'"[\x21\x23-\x7e]{1,200}"')  # W/"..." is weak and says nothing about bytes


def is_disk_full(error: BaseException | None) -> bool:
    """Return whether the failure is a disk without room."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def drop_parts(home: Path) -> None:
    """Remove the partial download, if there is one. Nothing is written if there is none."""
    directory = home / _DIRECTORY
    paths = list(directory.glob("*"))
    for path in paths:
        path.unlink(missing_ok=True)
    if paths:
        fsync_directory(directory)


class Part:
    """The first bytes of a file of ``length`` bytes with the SHA-256 ``sha256`` (hexadecimal). The caller has the lock.

    ``resumed`` is whether any of them were kept from an earlier transfer.
    """

    def __init__(self, home: Path, sha256: str, length: int) -> None:
        self.path = home / _DIRECTORY / f"{sha256}.part"
        self.length, self.resumed = length, False
        self._home, self._etag = home, self.path.with_suffix(".etag")

    @property
    def size(self) -> int:
        """Number of bytes that are there."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def etag(self) -> str:
        """The server's strong entity tag for them, or ""."""
        try:
            text = self._etag.read_text("ascii")
        except (OSError, ValueError):
            return ""
        return text if _STRONG.fullmatch(text) else ""

    def begin(self, etag: str) -> None:
        """Begin anew, in the place of every other part.

        Raises:
            OSError: if the disk refuses or has no room for the whole.
        """
        drop_parts(self._home)
        self.path.parent.mkdir(exist_ok=True)
        self._check_room()
        self.path.touch()
        if _STRONG.fullmatch(etag):
            write_file(self._etag, etag.encode("ascii"), mode=0o644)
        fsync_directory(self.path.parent)
        self.resumed = False

    def _check_room(self) -> None:
        disk = os.statvfs(self.path.parent)
        free = disk.f_bfree if os.geteuid() == 0 else disk.f_bavail  # root may use what is reserved
        if disk.f_blocks and free * disk.f_frsize < self.length:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def drop(self) -> None:
        """Remove it."""
        drop_parts(self._home)
        self.resumed = False
