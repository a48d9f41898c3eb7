"""The choice of a runtime on a device set to "auto": measured once and remembered in ``runtime.json``.

That file is only a cache. If it is missing or damaged, or belongs to another bundle, number of threads, machine or
runtime version, the runtimes are measured again. Nothing here imports numpy or a runtime.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import platform
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from seedcnn.device.slots import Slots
from seedcnn.errors import DeviceError
from seedcnn.files import write_file
from seedcnn.literals import parse_json
from seedcnn.machine import processor
from seedcnn.runtime.names import RUNTIMES

__all__ = ["Choice", "Key", "current_key", "installed_runtimes", "machine", "recall", "remember", "remembered"]

_FILE, _FORMAT, _KEPT = "runtime.json", "seedcnn-runtime/1", 8
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Key:
    """Conditions of a choice: the bundle's SHA-256, threads per run, machine, {installed runtime: version}."""

    sha256: str
    threads: int
    machine: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Choice:
    """A runtime chosen by measuring.

    Attributes:
        key: what the choice is valid for.
        runtime: the fastest one.
        medians_ms: {runtime: milliseconds per image}; empty if only one runtime passed, since nothing is timed then.
        failed: {runtime: why it did not pass}.
    """

    key: Key
    runtime: str
    medians_ms: dict[str, float]
    failed: dict[str, str]


def installed_runtimes() -> dict[str, str]:
    """Return {runtime: version} of the runtimes that can be imported, without importing them."""
    found = {}
    for name in RUNTIMES:
        try:
            spec = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            continue
        # A directory of that name has a spec too, but no file.
        if spec is not None and spec.origin is not None:
            found[name] = _version(name)
    return found


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        # It is installed under another distribution name; the module knows its version.
        return str(importlib.import_module(name).__version__)


def machine() -> str:
    """Return architecture, processor and number of usable cores in one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.machine()}, {processor()}, {cores} cores"


def current_key(sha256: str, threads: int) -> Key:
    """Return the key of a choice made now."""
    return Key(sha256, threads, machine(), installed_runtimes())


def _parse(value: Any) -> Choice:
    if set(value) != {field.name for field in fields(Choice)}:
        raise ValueError(f"its fields are {sorted(value)}")
    choice = Choice(**{**value, "key": Key(**value["key"])})
    medians, failed = choice.medians_ms, choice.failed
    if choice.runtime not in RUNTIMES or not isinstance(medians, dict) or not isinstance(failed, dict):
        raise ValueError(f"runtime {choice.runtime!r} is unknown, or medians_ms or failed is not an object")
    if not all(isinstance(item, float) for item in medians.values()):
        raise ValueError("a median is not a number")
    return choice


def remembered(home: Path) -> list[Choice]:
    """Return all remembered choices, oldest first. A damaged file is logged and counts as empty."""
    path = home / _FILE
    try:
        value: Any = parse_json(path.read_bytes())
        if value["format"] != _FORMAT:
            raise ValueError(f"its format is {value['format']!r}, not {_FORMAT!r}")
        return [_parse(item) for item in value["choices"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        _LOG.warning("%s cannot be read, so the runtimes are measured again: %s", path, error)
        return []


def recall(home: Path, key: Key) -> Choice | None:
    """Return the choice remembered under exactly this key, or None."""
    return next((choice for choice in reversed(remembered(home)) if choice.key == key), None)


def remember(slots: Slots, choice: Choice, *, locked: bool = False) -> None:
    """Remember a choice. A failure is only logged: the runtimes are then measured again next time.

    Args:
        locked: whether the caller holds the home's lock.
    """
    try:
        with nullcontext() if locked else slots.lock():
            others = [item for item in remembered(slots.home) if item.key != choice.key]
            value = {"format": _FORMAT, "choices": [asdict(item) for item in (*others, choice)[-_KEPT:]]}
            write_file(slots.home / _FILE, json.dumps(value, indent=1).encode(), mode=0o644)
    except (OSError, DeviceError) as error:
        _LOG.warning("the choice of a runtime could not be remembered: %s", error)
