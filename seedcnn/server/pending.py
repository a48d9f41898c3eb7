"""Changes that wait for offline keys: ``DIR/pending/ROLE.json``, and the todo file that travels to these keys.

A todo file is JSON: its format, the role, the keys that may sign, and the TUF metadata with the signatures so far. Only
the metadata counts; whoever imports it checks it against the repository's own keys.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuf.api.exceptions import RepositoryError as TufRepositoryError
from tuf.api.metadata import Metadata, Root, Targets

from seedcnn.errors import RepositoryError
from seedcnn.files import remove, write_file

__all__ = ["FORMAT", "Todo", "drop_pending", "pending_path", "read_pending", "same_content"]

FORMAT = "seedcnn-todo/1"
_MOST = 16 << 20  # bytes


def pending_path(directory: Path, role: str) -> Path:
    """Return the file in which a change of ``role`` waits."""
    return directory / "pending" / f"{role}.json"


@dataclass
class Todo:
    """Metadata that waits for signatures.

    Attributes:
        role: that signs it.
        threshold: how many of the role's keys must sign.
        keyids: of the keys that may sign.
        metadata: of type root or targets.
    """

    role: str
    threshold: int
    keyids: list[str]
    metadata: Metadata[Root] | Metadata[Targets]

    def dump(self) -> bytes:
        """Return the text of the file."""
        value = {
            "format": FORMAT,
            "role": self.role,
            "threshold": self.threshold,
            "keyids": self.keyids,
            "metadata": self.metadata.to_dict(),
        }
        return json.dumps(value, sort_keys=True, indent=1).encode() + b"\n"

    @classmethod
    def read(cls, path: Path) -> Todo:
        """Read a todo file.

        Raises:
            RepositoryError: if it cannot be read or is no todo file.
        """
        try:
            with open(path, "rb") as file:
                data = file.read(_MOST + 1)
        except OSError as error:
            raise RepositoryError(f"{path} cannot be read: {error.strerror}") from None
        try:
            value: dict[str, Any] = json.loads(data)
            if len(data) > _MOST or value["format"] != FORMAT:
                raise ValueError(f"its format is not {FORMAT!r}")
            metadata: Metadata[Any] = Metadata.from_dict(value["metadata"])
            role, keyids, threshold = value["role"], value["keyids"], value["threshold"]
            right = (
                isinstance(keyids, list) and all(isinstance(each, str) for each in keyids) and type(threshold) is int
            )
            kind = "root" if role == "root" else "targets"
            if not isinstance(role, str) or not right or metadata.signed.type != kind:
                raise ValueError(f"it holds no metadata of {role!r:.80}")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, TufRepositoryError) as error:
            raise RepositoryError(f"{path} is no todo file of seedcnn repo export: {error}") from None
        return cls(role, threshold, keyids, metadata)

    def write(self, path: Path) -> None:
        """Write the file, whole."""
        write_file(path, self.dump())

    @staticmethod
    def write_metadata(path: Path, metadata: Metadata[Targets]) -> None:
        """Write the metadata of a family that waits with a change of targets."""
        write_file(path, metadata.to_bytes())


def read_pending(directory: Path, role: str) -> Todo | None:
    """Return the change of ``role`` that waits, or None."""
    path = pending_path(directory, role)
    return Todo.read(path) if path.exists() else None


def drop_pending(directory: Path, role: str) -> None:
    """Forget the change of ``role`` that waits, if there is one."""
    path = pending_path(directory, role)
    if path.exists():
        remove(path)


def same_content(first: Metadata[Any], second: Metadata[Any]) -> bool:
    """Return whether two pieces of metadata differ in nothing but version, expiry and signatures."""

    def content(metadata: Metadata[Any]) -> dict[str, Any]:
        value: dict[str, Any] = metadata.signed.to_dict()
        return {name: each for name, each in value.items() if name not in ("version", "expires")}

    return content(first) == content(second)
