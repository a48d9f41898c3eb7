"""Reports of devices in a directory, one file each. Whoever can write there can forge them; nothing there is fatal."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from seedcnn.bundle.report import MAX_BYTES, Report
from seedcnn.errors import RepositoryError, UpdateError

__all__ = ["read_reports"]


def _read(path: str) -> bytes:
    # A pipe must not hold the command, and a link must not lead elsewhere.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UpdateError("it is no regular file")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_BYTES + 1)
    finally:
        os.close(descriptor)


def read_reports(directory: str | Path) -> tuple[list[Report], list[str]]:
    """Read every file of a directory.

    Returns:
        The reports, and a sentence for each file that holds none.

    Raises:
        RepositoryError: if the directory cannot be read.
    """
    try:
        names = sorted(os.listdir(directory))
    except OSError as error:
        raise RepositoryError(f"reports in {directory} cannot be read: {error.strerror}") from None
    reports, ignored = [], []
    for name in names:
        try:
            reports.append(Report.parse(_read(os.path.join(directory, name))))
        except OSError as error:
            ignored.append(f"file {name!r:.120}: {error.strerror}")
        except UpdateError as error:
            ignored.append(f"file {name!r:.120}: {error}")
    return reports, ignored
