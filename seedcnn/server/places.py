"""``DIR/places.json``: where keys that are kept elsewhere were last seen, for people. Nothing depends on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from seedcnn.files import write_file

__all__ = ["note_places", "read_places"]

_NAME = "places.json"


def read_places(directory: Path) -> dict[str, str]:
    """Return the path of each key file that is not in ``DIR/keys/``, by key id."""
    try:
        value = json.loads((directory / _NAME).read_bytes())
        return {str(keyid): str(path) for keyid, path in value.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def note_places(directory: Path, places: Mapping[str, Path]) -> None:
    """Remember where keys are.

    Raises:
        OSError: if the file system refuses.
    """
    before = read_places(directory)
    after = before | {keyid: str(path.absolute()) for keyid, path in places.items()}
    if after != before:
        write_file(directory / _NAME, json.dumps(after, sort_keys=True, indent=1).encode(), mode=0o600)
