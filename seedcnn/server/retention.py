"""Remove superseded files, but not before every device has had time to see what took their place.

A device may still hold a timestamp that names older files, so a file goes once it has been superseded for two lives of
a timestamp. ``DIR/retired.json`` says since when; what it lacks, after a crash, counts from the next command.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from pathlib import Path

from seedcnn.files import write_file

__all__ = ["sweep"]

_NAME = "retired.json"
_KEPT = (".root.json", "timestamp.json")  # devices need the whole chain of roots


def _read(path: Path) -> dict[str, int]:
    try:
        value = json.loads(path.read_bytes())
        return {name: since for name, since in value.items() if type(since) is int}
    except (OSError, ValueError, AttributeError):
        return {}


def sweep(directory: Path, named: Collection[str], found: Iterable[str], now: datetime, life: timedelta) -> list[str]:
    """Remove files that have been superseded for two timestamp lives, and note those that are superseded now.

    Args:
        named: paths below ``public/`` that the signed metadata names.
        found: paths below ``public/`` that exist; others stay as they are.
        life: of a timestamp.

    Returns:
        The paths of the files removed.
    """
    path, moment, grace = directory / _NAME, int(now.timestamp()), 2 * max(life, timedelta()).total_seconds()
    before = _read(path)
    since, removed = dict(before), []
    for name in found:
        if name in named or name.endswith(_KEPT):
            since.pop(name, None)
            continue
        since[name] = min(since.get(name, moment), moment)
        if moment - since[name] > grace:
            (directory / "public" / name).unlink(missing_ok=True)
            del since[name]
            removed.append(name)
    if since != before:
        write_file(path, json.dumps(since, sort_keys=True, indent=0).encode(), mode=0o600)
    return removed
