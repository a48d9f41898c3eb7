"""Records that a device keeps in files: a slot's contents, the oldest rule and release it accepts, a probation."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from seedcnn.literals import parse_json

__all__ = ["Active", "Floor", "SlotRecord", "Trial", "dump", "parse"]

_R = TypeVar("_R", "SlotRecord", "Floor", "Trial")
_TYPES: dict[str, type] = {"str": str, "int": int}


@dataclass(frozen=True)
class SlotRecord:
    """The contents of a slot.

    Attributes:
        family, release, min_release: from the bundle's manifest.
        sha256, size: of the bundle, in hexadecimal and in bytes.
        content: the bundle's content digest.
        artefact: SHA-256 of the published file, which differs from ``sha256`` if a delta made the bundle.
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
    """The anti-rollback floor: no older rule is followed, and no release below ``min_release`` is installed.

    Attributes:
        serial, rule: of the newest rule that was seen; SHA-256 of its bytes, in hexadecimal.
        keys: ids of the keys of the role that signed it.
        signed_at: a time that has passed, in seconds since 1970, by the rules that were seen.
        timekeepers: ids of the keys of the timestamp role, which vouched for that time.
        min_release: the highest minimum release of the bundles that were committed.
    """

    serial: int = 0
    rule: str = ""
    keys: str = ""
    signed_at: int = 0
    timekeepers: str = ""
    min_release: int = 0


@dataclass(frozen=True)
class Trial:
    """A model that will be on probation, or is, once its slot is the current one.

    Attributes:
        artefact, sha256: of the published file and of the bundle, in hexadecimal.
        release, slot: which release is where.
        before, compared: source of the model before it and SHA-256 of its bundle, "" for none.
        serial: of the rule.
        answers, seconds, max_bad, latency_ms, max_late_per_mille: limits of the rule,
            see :class:`seedcnn.bundle.rollout.Probation`.
    """

    artefact: str
    sha256: str
    release: int
    slot: str
    before: str
    compared: str
    serial: int
    answers: int
    seconds: int
    max_bad: int
    latency_ms: int
    max_late_per_mille: int

    def is_of(self, active: Active) -> bool:
        """Return whether it is about this model."""
        return (self.slot, self.artefact) == (active.source, active.record.artefact)


@dataclass(frozen=True)
class Active:
    """The active model: its source ("a", "b" or "factory"), its record, and its verified bytes."""

    source: str
    record: SlotRecord
    data: bytes


def dump(record: SlotRecord | Floor | Trial) -> bytes:
    """Return the JSON text of a record."""
    return json.dumps(asdict(record), sort_keys=True).encode()


def parse(kind: type[_R], text: bytes) -> _R:
    """Read a record.

    Raises:
        ValueError: if it is not JSON, or a field is missing, unknown or of the wrong type.
    """
    value: Any = parse_json(text)
    wanted = {field.name: _TYPES[str(field.type)] for field in fields(kind)}
    if not isinstance(value, dict) or {name: type(item) for name, item in value.items()} != wanted:
        raise ValueError(f"it must hold exactly {', '.join(wanted)}")
    return kind(**value)
