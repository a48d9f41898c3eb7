"""The settings of a device, written by ``init``: repository, model family, runtime, and the device's own name."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from seedcnn.bundle import check_family
from seedcnn.bundle.rollout import check_cohort, check_device_id
from seedcnn.errors import DeviceError
from seedcnn.literals import parse_json
from seedcnn.runtime.names import check_runtime

__all__ = ["Config", "check_config", "check_url", "dump_config", "read_config"]

_FORMAT = "seedcnn-device/2"


@dataclass(frozen=True)
class Config:
    """Settings of a device.

    Attributes:
        url: base URL of the repository.
        family: model family.
        runtime: its name (see :func:`seedcnn.runtime.names.check_runtime`).
        device_id: the device's name, by which a rollout rule selects it.
        cohort: the devices that it belongs with; "" for none.
    """

    url: str
    family: str
    runtime: str
    device_id: str
    cohort: str = ""


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


def check_config(config: Config) -> Config:
    """Return the settings with the URL as :func:`check_url` returns it.

    Raises:
        ValueError: naming the setting that is not allowed, and the rule.
    """
    check_family(config.family)
    check_runtime(config.runtime, auto=True)
    check_device_id(config.device_id)
    if config.cohort:
        check_cohort(config.cohort)
    return replace(config, url=check_url(config.url))


def read_config(home: Path) -> Config:
    """Read a home's ``config.json``.

    Raises:
        DeviceError: if it is missing, or not a file that :func:`dump_config` writes.
    """
    path = home / "config.json"
    try:
        value: Any = parse_json(path.read_bytes())
        if (found := value.pop("format")) != _FORMAT:
            raise DeviceError(
                f"{path} has the format {found!r:.80}, not {_FORMAT!r}: another version of seedcnn made this home; "
                "remove it and initialise it anew"
            )
        names = [field.name for field in fields(Config)]
        if set(value) != set(names) or not all(isinstance(item, str) for item in value.values()):
            raise ValueError(f"it must hold {', '.join(names)}, which are strings")
        return check_config(Config(**value))
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise DeviceError(f"{path} cannot be read: {error}") from None
