"""What ``init`` was told: where to ask, what for, and what to answer with."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from seedcnn.errors import DeviceError

__all__ = ["AUTO", "RUNTIMES", "Config", "check_runtime", "check_url", "dump_config", "read_config"]

RUNTIMES = ("onnxruntime", "openvino")
AUTO = "auto"
_FORMAT = "seedcnn-device/1"


@dataclass(frozen=True)
class Config:
    """Repository URL, model family, and runtime: one of :data:`RUNTIMES`, or "auto" (the faster one, measured)."""

    url: str
    family: str
    runtime: str = "onnxruntime"


def check_runtime(runtime: str) -> str:
    """Return ``runtime`` if it names a runtime or is "auto".

    Raises:
        ValueError: naming the choices.
    """
    if runtime not in (*RUNTIMES, AUTO):
        raise ValueError(f"`runtime` (={runtime!r}) must be one of {', '.join((*RUNTIMES, AUTO))}")
    return runtime


def check_url(url: str) -> str:
    """Return the base URL of a repository without a trailing slash.

    Raises:
        ValueError: if it is not an http or https URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.port == 0:
        raise ValueError(f"`url` (={url!r}) must be an http or https URL without query or fragment")
    return url.rstrip("/")


def dump_config(config: Config) -> bytes:
    """The JSON text of a home's ``config.json``."""
    return json.dumps({"format": _FORMAT, **asdict(config)}).encode()


def read_config(home: Path) -> Config:
    """Read a home's ``config.json``; one without a runtime is of an older version and means ONNX Runtime.

    Raises:
        DeviceError: if it is not there or not what :func:`dump_config` writes.
    """
    path = home / "config.json"
    try:
        value: Any = json.loads(path.read_bytes())
        if value.pop("format") != _FORMAT or set(value) | {"runtime"} != {"url", "family", "runtime"}:
            raise ValueError(f"it must hold url, family and runtime in format {_FORMAT!r}")
        config = Config(**{name: str(item) for name, item in value.items()})
        check_runtime(config.runtime)
        return config
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise DeviceError(f"{path} cannot be read: {error}") from None
