"""Sets of norm statistics that a device has learned of its places, in one file beside the models.

The file names the bundle that its sets are of, so that a new release drops them and a fallback does not take them for
its own. It is replaced as a whole; whatever is wrong with it, the model answers as shipped.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seedcnn.bundle.ranges import LATEST
from seedcnn.files import remove, write_file
from seedcnn.literals import parse_json

__all__ = ["FILE", "MAX_SETS", "SHIPPED", "LearnedSet", "check_name", "read_sets", "write_sets"]

FILE = "adapted.json"
SHIPPED = "shipped"
MAX_SETS = 16
_FORMAT = "seedcnn-adapted/1"
_MAX_BYTES = 64 << 20
_LONGEST = 64
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class LearnedSet:
    """A set of norm statistics.

    Attributes:
        name: of the place.
        images: how many it was learned from.
        time: seconds since 1970 by the device's clock.
        means, stds: little-endian float32 of each channel of the bundle's norms.
    """

    name: str
    images: int
    time: int
    means: bytes
    stds: bytes


def check_name(name: str) -> str:
    """Return the name of a set.

    Raises:
        ValueError: if it is empty, too long, not printable, or that of the shipped set.
    """
    if not name or len(name) > _LONGEST or not name.isprintable() or name == SHIPPED:
        raise ValueError(
            f"`set` (={name!r}) must be 1 to {_LONGEST} printable characters, and not {SHIPPED!r}, the release's own"
        )
    return name


def _set(item: dict[str, Any]) -> LearnedSet:
    means, stds = (base64.b64decode(item.pop(name), validate=True) for name in ("means", "stds"))
    found = LearnedSet(**item, means=means, stds=stds)
    kinds = [type(found.name), type(found.images), type(found.time)]
    if kinds != [str, int, int] or found.images < 1 or not 0 <= found.time <= LATEST:
        raise ValueError(f"its set {found.name!r:.80} is not valid")
    if not means or len(means) % 4 or len(means) != len(stds):
        raise ValueError(f"its set {found.name!r:.80} has {len(means)} and {len(stds)} bytes of statistics")
    check_name(found.name)
    return found


def read_sets(home: Path, sha256: str) -> tuple[LearnedSet, ...]:
    """Return the sets that were learned for a bundle, oldest first; () if there are none.

    A file that cannot be read is logged and counts as absent: the model then answers as shipped.

    Args:
        sha256: of the bundle on the device.
    """
    path = home / FILE
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"it has more than {_MAX_BYTES} bytes")
        value: Any = parse_json(path.read_bytes())
        if value["format"] != _FORMAT:
            raise ValueError(f"its format is {value['format']!r:.80}, not {_FORMAT!r}")
        if value["bundle"] != sha256:
            return ()
        sets = tuple(map(_set, value["sets"]))
        if len({each.name for each in sets}) != len(sets) or len(sets) > MAX_SETS:
            raise ValueError(f"it has sets of one name, or more than {MAX_SETS}")
        return sets
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error) as error:
        _LOG.warning("%s cannot be read, so the model answers as shipped: %s", path, error)
        return ()


def write_sets(home: Path, sha256: str, sets: Sequence[LearnedSet]) -> None:
    """Replace the sets of a bundle; none removes the file.

    Raises:
        OSError: if the file system refuses; the sets are then those before.
    """
    if not sets:
        remove(home / FILE)
        return
    rows = [
        {
            "name": each.name,
            "images": each.images,
            "time": each.time,
            "means": base64.b64encode(each.means).decode(),
            "stds": base64.b64encode(each.stds).decode(),
        }
        for each in sets
    ]
    value = {"format": _FORMAT, "bundle": sha256, "sets": rows}
    write_file(home / FILE, json.dumps(value, separators=(",", ":")).encode(), mode=0o644)
