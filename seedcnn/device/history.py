"""The journal for people, a line for each step, and for programs."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seedcnn.device.agent import open_home
from seedcnn.device.journal import Entry
from seedcnn.device.slots import SLOTS
from seedcnn.messages import shown

__all__ = ["as_json", "as_text", "history"]


def history(home: str | Path, last: int | None = None) -> tuple[Entry, ...]:
    """Return the steps that the journal holds, the newest last.

    Args:
        last: how many, from 1; None for all.

    Raises:
        DeviceError: if the home is not initialised.
    """
    entries = open_home(home).journal.entries()
    return entries if last is None else entries[-last:]


def as_json(entries: tuple[Entry, ...]) -> list[dict[str, Any]]:
    """Return the steps with all their fields, and ``date``, an ISO date in UTC."""
    return [{"date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(each.time)), **asdict(each)} for each in entries]


def as_text(entries: tuple[Entry, ...]) -> list[str]:
    """Return a line for each step: time in UTC, state, and what it concerns."""
    width = max((len(each.state) for each in entries), default=0)
    lines = []
    for each in entries:
        date = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(each.time))
        lines.append(shown(f"{date}  {each.state:<{width}}  {_about(each)}").rstrip())
    return lines


def _about(entry: Entry) -> str:
    parts = [f"release {entry.release}"] * bool(entry.release) + [f"slot {entry.slot}"] * bool(entry.slot)
    if entry.state == "ROLLED_BACK":
        parts = [f"to release {entry.release}" if entry.release else "to no model"]
        parts += [f"from release {entry.taken}"] * bool(entry.taken) + [f"in slot {entry.slot}"] * bool(entry.slot)
    if entry.answers:
        parts += [f"{entry.answers} answers ({entry.bad} bad, {entry.late} late)"]
    if entry.state in ("SWITCH", "PROBATION"):
        before = f"slot {entry.reason}" if entry.reason in SLOTS else entry.reason
        parts += [f"before: {before}"] * bool(entry.reason)
        return ", ".join(parts)
    return ", ".join(parts) + (": " * bool(parts) + entry.reason if entry.reason else "")
