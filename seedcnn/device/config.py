"""The settings of a device, written by ``init``: repository, model family and runtime."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from seedcnn.bundle import check_family
from seedcnn.errors import DeviceError
from seedcnn.literals import parse_json
from seedcnn.runtime.names import check_runtime

__all__ = ["Config", "check_url", "dump_config", "read_config"]

_FORMAT = "seedcnn-device/1"


@dataclass(frozen=True)
class Config:
    """Repository URL, model family, and the runtime's name (see :func:`seedcnn.runtime.names.check_runtime`)."""

    url: str
    family: str
    runtime: str = "onnxruntime"


def check_url(url: str) -> str:
    """Return a repository's base URL without a trailing slash. An IPv6 address stands in brackets: http://[::1]:8000.

    Raises:
        ValueError: if it is not an http or https URL.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        good = good and url.isprintable() and not set(url) & set("?# \\")
    except (ValueError, AttributeError, TypeError):  # a bad port or bracket; no text at all
        good = False
    if not good:
        raise ValueError(f"`url` (={url!r}) must be an http or https URL without spaces, query or fragment")
    return url.rstrip("/")


def dump_config(config: Config) -> bytes:
    """Return the JSON text of a home's ``config.json``."""
    return json.dumps({"format": _FORMAT, **asdict(config)}).encode()


def read_config(home: Path) -> Config:
    """Read a home's ``config.json``. Without a runtime it is of an older version and means ONNX Runtime.

    Raises:
        DeviceError: if it is missing, or not a file that :func:`dump_config` writes.
    """
    path = home / "config.json"
    try:
        value: Any = parse_json(path.read_bytes())
        if value.pop("format") != _FORMAT or set(value) | {"runtime"} != {"url", "family", "runtime"}:
            raise ValueError(f"it must hold url, family and runtime in format {_FORMAT!r}")
        config = Config(**{name: str(item) for name, item in value.items()})
        check_runtime(config.runtime, auto=True)
        return Config(check_url(config.url), check_family(config.family), config.runtime)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise DeviceError(f"{path} cannot be read: {error}") from None
