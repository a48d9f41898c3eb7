"""The server's name for the timestamp metadata that a device has, so that an idle check need not fetch it again.

``validator.json`` says which entity tag an address gave to which bytes. It is only a hint: it counts if the device
still has exactly these bytes, and whoever answers wrongly that nothing has changed can withhold new metadata until
the old one expires, as anybody on the way can. Nothing here imports python-tuf.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from seedcnn.files import write_file
from seedcnn.literals import parse_json

__all__ = ["Validator"]

_FILE, _FORMAT = "validator.json", "seedcnn-validator/1"
_TAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e]{1,200}"')


class Validator:
    """The entity tag of one file at one address.

    Args:
        home: of the device.
        cached: where the device keeps the file.
    """

    def __init__(self, home: Path, cached: Path) -> None:
        self._path, self._cached = home / _FILE, cached
        self._seen: dict[str, str] = {}

    def cached(self) -> bytes:
        """Return the bytes that the device has; b"" for none."""
        try:
            return self._cached.read_bytes()
        except OSError:
            return b""

    def _record(self, url: str, tag: str, data: bytes) -> dict[str, str]:
        return {"format": _FORMAT, "url": url, "tag": tag, "sha256": hashlib.sha256(data).hexdigest()}

    def tag(self, url: str) -> str:
        """Return the entity tag under which an address gave the bytes that the device has; "" if it gave none."""
        try:
            known: Any = parse_json(self._path.read_bytes())
            tag = known["tag"]
            return tag if _TAG.fullmatch(tag) and known == self._record(url, tag, self.cached()) else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def saw(self, url: str, tag: str | None, data: bytes) -> None:
        """Note what an address gave; :meth:`remember` writes it down once the bytes have been verified."""
        self._seen = self._record(url, tag, data) if tag and _TAG.fullmatch(tag) else {}

    def remember(self) -> None:
        """Write down what was noted, if the device keeps these bytes and the note is new.

        Raises:
            OSError: if the file system refuses.
        """
        if not self._seen or self._seen["sha256"] != hashlib.sha256(self.cached()).hexdigest():
            return
        text = json.dumps(self._seen, sort_keys=True).encode()
        try:
            if self._path.read_bytes() == text:
                return
        except OSError:
            pass
        write_file(self._path, text, mode=0o644)
