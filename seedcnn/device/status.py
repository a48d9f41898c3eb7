"""The state of a device, read without numpy, a runtime or the network."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from seedcnn.device.agent import open_home
from seedcnn.device.choice import current_key, installed_runtimes, remembered
from seedcnn.device.config import read_config
from seedcnn.device.slots import SLOTS, Slots
from seedcnn.errors import SlotError
from seedcnn.runtime.names import AUTO

__all__ = ["status"]


def _choices(slots: Slots, sha256: str) -> list[dict[str, Any]]:
    """Return the valid choices of "auto" for a bundle, one per number of threads."""
    choices = [item for item in remembered(slots.home) if item.key == current_key(sha256, item.key.threads)]
    return [
        {"threads": item.key.threads, "runtime": item.runtime, "medians_ms": item.medians_ms, "failed": item.failed}
        for item in choices
    ]


def status(home: str | Path) -> dict[str, Any]:
    """Return the state of a device: URL, family, active slot and record, both slots, floor, last journal entry.

    ``runtimes`` has the installed runtimes, and ``choices`` what "auto" chose for the active model, with the medians.

    Raises:
        DeviceError: if the home is not initialised.
    """
    slots = open_home(home)
    config = read_config(slots.home)
    result: dict[str, Any] = {"home": str(slots.home), **asdict(config), "runtimes": installed_runtimes()}
    result |= {"current": slots.current() or "", "choices": []}
    try:
        active = slots.active()
        result["active"] = {"source": active.source, **asdict(active.record)}
        if config.runtime == AUTO:
            result["choices"] = _choices(slots, active.record.sha256)
    except SlotError as error:
        result["active"], result["problem"] = None, str(error)
    for slot in SLOTS:
        try:
            result[f"slot_{slot}"] = asdict(slots.examine(slot).record)
        except SlotError as error:
            result[f"slot_{slot}"] = {"unusable": str(error)}
    try:
        result["floor"] = asdict(slots.floor())
    except SlotError as error:
        result["floor"] = {"unusable": str(error)}
    last = slots.journal.last()
    result["last"] = asdict(last) if last else None
    return result
