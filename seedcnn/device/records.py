"""The small facts a device keeps on file: what a slot holds, and below which release it never goes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

__all__ = ["Active", "Floor", "SlotRecord", "dump", "parse"]

_R = TypeVar("_R", "SlotRecord", "Floor")
_TYPES: dict[str, type] = {"str": str, "int": int}


@dataclass(frozen=True)
class SlotRecord:
    """What a slot holds: ``size`` in bytes and ``sha256`` (hexadecimal) of its bundle, and what its manifest says.

    ``content`` is the digest of what the bundle says; ``artefact`` the SHA-256 of the file that was published, which
    differs from ``sha256`` where a delta made the bundle.
    """

    family: str
    release: int
    min_release: int
    sha256: str
    size: int
    content: str
    artefact: str


@dataclass(frozen=True)
class Floor:
    """No release below ``release`` or ``min_release`` may be installed; ``sha256`` is that of the file
    published as ``release``, if known."""

    release: int = 0
    min_release: int = 0
    sha256: str = ""


@dataclass(frozen=True)
class Active:
    """The model that answers: where it came from ("a", "b" or "factory"), its record, and its checked bytes."""

    source: str
    record: SlotRecord
    data: bytes


def dump(record: SlotRecord | Floor) -> bytes:
    """The JSON text of a record."""
    return json.dumps(asdict(record), sort_keys=True).encode()


def parse(kind: type[_R], text: bytes) -> _R:
    """Read a record.

    Raises:
        ValueError: if it is not JSON, or a field is missing, unknown or of the wrong type.
    """
    value: Any = json.loads(text)
    wanted = {field.name: _TYPES[str(field.type)] for field in fields(kind)}
    if not isinstance(value, dict) or {name: type(item) for name, item in value.items()} != wanted:
        raise ValueError(f"it must hold exactly {', '.join(wanted)}")
    return kind(**value)
