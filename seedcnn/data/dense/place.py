"""A directory or a zip file to read named files from. A zip is never unpacked."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from seedcnn.data.sets._layouts import some_of
from seedcnn.errors import DataError

__all__ = ["LARGEST", "Place", "inner"]

LARGEST = 1 << 30
"""Most bytes of one file: the largest official one, COCO's training annotations, has 470 MB."""

# RuntimeError: a password is wanted, or zipfile does not know the compression.
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError)


def inner(name: str, what: str) -> str:
    """Check that a name from a file stays below the root.

    Raises:
        DataError: if it is empty, absolute or leads upwards; ``what`` begins the message.
    """
    path = PurePosixPath(name)
    if not name or "\0" in name or "\\" in name or path.is_absolute() or ".." in path.parts:
        raise DataError(f"{what} has the file name {name!r}; it must be a path below its folder, with /")
    return path.as_posix()


class Place:
    """Named files below a directory, or in a zip file.

    It can be used from threads, and pickled or forked into worker processes: each opens the zip file for itself.

    Args:
        root: a directory, a zip file, or a folder in one (``data.zip/folder``).

    Raises:
        DataError: if there is none, or the zip file is damaged.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        self._zip, self._prefix = _zip_of(self.root)
        self._archive: zipfile.ZipFile | None = None
        self._process = -1
        self._sizes: dict[str, int] = {}
        self._tree: dict[str, set[str]] = {}
        if self._zip is not None:
            for member in self._opened().infolist():
                if not member.is_dir() and member.filename.startswith(self._prefix):
                    self._sizes[member.filename[len(self._prefix) :]] = member.file_size
            if not self._sizes:
                raise DataError(f"{self.root} holds no file")
            for name in self._sizes:
                self._add(name)
        elif not self.root.is_dir():
            state = "is neither a directory nor a zip file" if self.root.exists() else "does not exist"
            raise DataError(f"the data directory {self.root} {state}")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_archive": None, "_process": -1}

    def _add(self, name: str) -> None:
        while name:
            above, _, last = name.rpartition("/")
            members = self._tree.setdefault(above, set())
            if last in members:
                return
            members.add(last)
            name = above

    def _opened(self) -> zipfile.ZipFile:
        # A process that was forked shares its parent's file position.
        if self._archive is None or self._process != os.getpid():
            try:
                self._archive = zipfile.ZipFile(self._zip or "")
            except _BROKEN as error:
                raise DataError(f"{self._zip} cannot be read as a zip file: {error}") from None
            self._process = os.getpid()
        return self._archive

    def names(self, folder: str = "") -> list[str]:
        """Return the names of files and folders in a folder, in order, without hidden ones; [] if it does not exist.

        Raises:
            DataError: if the folder may not be read.
        """
        if self._zip is not None:
            found: Iterable[str] = self._tree.get(folder, ())
        else:
            path = self.root / folder
            try:
                found = os.listdir(path) if path.is_dir() else ()
            except OSError as error:
                raise DataError(f"{path} cannot be listed: {error.strerror}") from None
        return sorted(name for name in found if not name.startswith("."))

    def is_file(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return name in self._sizes if self._zip is not None else (self.root / name).is_file()

    def path(self, name: str) -> str:
        """The name with its root, for messages."""
        return str(self.root / name)

    def found(self) -> str:
        """The first few names at the root, for messages."""
        return some_of(self.names())

    def source(self, name: str) -> Path | bytes:
        """A file as the decoders take it: its path, or its bytes out of the zip."""
        return self.root / name if self._zip is None else self.read(name)

    def read(self, name: str, most: int = LARGEST) -> bytes:
        """The content of a file.

        Raises:
            DataError: if it does not exist, cannot be read, or has more than ``most`` bytes.
        """
        try:
            size = self._sizes[name] if self._zip is not None else (self.root / name).stat().st_size
            if size > most:
                raise DataError(f"{self.path(name)} has {size:,} bytes; at most {most:,} are read")
            if self._zip is not None:
                return self._opened().read(self._prefix + name)
            return (self.root / name).read_bytes()
        except (KeyError, FileNotFoundError):
            raise DataError(f"{self.path(name)} does not exist") from None
        except _BROKEN as error:
            raise DataError(f"{self.path(name)} cannot be read: {error}") from None


def _zip_of(root: Path) -> tuple[Path | None, str]:
    """The zip file that a path names or leads into, and the folder in it with a final "/"; (None, "") for neither."""
    for above in (root, *root.parents):
        if above.is_dir():
            break
        if above.is_file():
            inside = root.relative_to(above).as_posix()
            return above, "" if inside == "." else f"{inside}/"
    return None, ""
