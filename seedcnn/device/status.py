"""The state of a device, read without numpy, a runtime or the network."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from seedcnn.bundle.canonical import load_json
from seedcnn.bundle.container import FORMAT, read_container
from seedcnn.bundle.head import manifest_of
from seedcnn.device.adapted import read_sets
from seedcnn.device.agent import open_home
from seedcnn.device.bad import bad_files
from seedcnn.device.choice import current_key, installed_runtimes, remembered
from seedcnn.device.config import read_config
from seedcnn.device.counting import Moment, failed_starts, moment, read_counts
from seedcnn.device.journal import Entry
from seedcnn.device.outbox import queued
from seedcnn.device.postponed import postponed
from seedcnn.device.probation import judge, trial_of
from seedcnn.device.records import Active, Floor
from seedcnn.device.slots import SLOTS, Slots
from seedcnn.device.trusted import BUILT, is_clock_behind
from seedcnn.errors import BundleError, SlotError
from seedcnn.runtime.names import AUTO

__all__ = ["FACTORY", "status"]

FACTORY = "factory"


def _choices(slots: Slots, sha256: str) -> list[dict[str, Any]]:
    """Return the valid choices of "auto" for a bundle, one per number of threads."""
    choices = [item for item in remembered(slots.home) if item.key == current_key(sha256, item.key.threads)]
    return [
        {"threads": item.key.threads, "runtime": item.runtime, "medians_ms": item.medians_ms, "failed": item.failed}
        for item in choices
    ]


def _date(seconds: float | None) -> str:
    """Return a time since 1970 as an ISO date in UTC, or "" for None."""
    return "" if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _model(active: Active) -> str:
    """Return the model's name from the manifest, or "" if the bundle's format is not known."""
    try:
        container = read_container(active.data, FORMAT)
        text = manifest_of(container.head, container.manifest_size)
        return str(load_json(text, "manifest")["model"])
    except (BundleError, KeyError, TypeError):
        return ""


def _since(slots: Slots, active: Active, entries: Sequence[Entry]) -> float | None:
    """Return when the model became the active one: by the journal, else by the link or the factory record.

    The journal forgets old entries. None if neither knows.
    """
    wanted = active.record.release
    for entry in reversed(entries):
        switched = entry.state == "SWITCH" and entry.slot == active.source
        if entry.release == wanted and (switched or entry.state == "ROLLED_BACK"):
            return entry.time
    if active.source in SLOTS and slots.current() != active.source:
        return None  # the home could not be written when its current slot was found damaged
    path = slots.home / ("current" if active.source in SLOTS else "factory.json")
    try:
        return path.lstat().st_mtime
    except OSError:
        return None


def _examine(slots: Slots, source: str) -> dict[str, Any]:
    try:
        return asdict(slots.examine(source).record)
    except SlotError as error:
        return {"unusable": str(error)}


def _previous(slots: Slots, result: dict[str, Any]) -> dict[str, Any] | None:
    """Return the model that answers if the active one cannot: the other slot's, else the factory's, else None."""
    active = result["active"]
    if active is None or active["source"] == FACTORY:
        return None
    (other,) = set(SLOTS) - {active["source"]}
    if os.path.lexists(slots.path(other)):
        found = {"source": other, **result[f"slot_{other}"]}
    elif result["factory"] is not None:
        other = ""
        found = {"source": FACTORY, **result["factory"]}
    else:
        return None
    lowest = result["floor"].get("min_release", 0)
    if other and not slots.is_committed(other) and "unusable" not in found:
        found["unusable"] = "it was taken back, or has not ended its probation"
    if found.get("release", lowest) < lowest:
        found["unusable"] = f"it is below the minimum release {lowest}"
    return found


def _probation(slots: Slots, active: Active | None, now: Callable[[], Moment]) -> dict[str, Any] | None:
    """Return the record, the counts and the state of the active model's probation, or None if it is on none."""
    try:
        trial = trial_of(slots, active)
        if trial is None:
            return None
        counts = read_counts(slots.home, trial.sha256).at(now())
        verdict = judge(trial, counts, failed_starts(slots.home, trial.sha256))
    except (ValueError, OSError) as error:
        return {"unusable": str(error)}
    numbers = {"answers": counts.answers, "bad": counts.bad, "late": counts.late, "seconds": int(counts.seconds)}
    limits = ("answers", "seconds", "max_bad", "latency_ms", "max_late_per_mille")
    return {
        "release": trial.release,
        "serial": trial.serial,
        "before": trial.before,
        "progress": verdict.reason,
        **numbers,
        "limits": {name: getattr(trial, name) for name in limits},
    }


def _clock(floor: Floor, now: float) -> dict[str, Any]:
    """Return the clock's time, the latest time that has certainly passed, and whether the clock is behind that."""
    passed = max(BUILT, floor.signed_at)
    return {"date": _date(now), "passed": _date(passed), "behind": is_clock_behind(now, floor)}


def status(
    home: str | Path, *, clock: Callable[[], float] = time.time, passed: Callable[[], Moment] = moment
) -> dict[str, Any]:
    """Return the state of a device: name, cohort, URL, family, active model, slots, factory model, floor, last entry.

    ``runtimes`` has the installed runtimes, and ``choices`` the runtimes that "auto" chose for the active model, with
    the medians. ``sets`` are those that were learned for it. ``previous`` is the model that answers if the active one
    cannot. ``probation`` has the counts and limits of the active model if it is on probation. ``reports`` is how many
    reports wait. ``bad`` are files that failed here. ``postponed`` says until when the repository has asked to wait.
    ``clock`` says whether the clock is behind a time that has certainly passed; then the age of metadata is not known.
    Dates are ISO dates in UTC; ``last`` also has its time in seconds since 1970. What cannot be used has the reason
    under ``unusable``.

    Args:
        clock: seconds since 1970.
        passed: for the seconds of a probation.

    Raises:
        DeviceError: if the home is not initialised.
    """
    slots = open_home(home)
    config = read_config(slots.home)
    result: dict[str, Any] = {"home": str(slots.home), **asdict(config), "runtimes": installed_runtimes()}
    result |= {"current": slots.current() or "", "choices": [], "sets": []}
    active: Active | None
    try:
        active = slots.active()
    except SlotError as error:
        active, result["active"], result["problem"] = None, None, str(error)
    else:
        since = _date(_since(slots, active, slots.journal.entries()))
        result["active"] = {
            "source": active.source,
            "model": _model(active),
            "since": since,
            **asdict(active.record),
        }
        sets = read_sets(slots.home, active.record.sha256)
        result["sets"] = [{"name": each.name, "images": each.images, "date": _date(each.time)} for each in sets]
        if config.runtime == AUTO:
            result["choices"] = _choices(slots, active.record.sha256)
    for slot in SLOTS:
        result[f"slot_{slot}"] = _examine(slots, slot)
    result["factory"] = _examine(slots, FACTORY) if (slots.home / "factory.json").exists() else None
    try:
        floor = slots.floor()
        result["floor"] = asdict(floor)
    except SlotError as error:
        floor = Floor()
        result["floor"] = {"unusable": str(error)}
    result["clock"] = _clock(floor, clock())
    result["previous"] = _previous(slots, result)
    result["probation"] = _probation(slots, active, passed)
    result["reports"] = len(queued(slots.home))
    last = slots.journal.last()
    result["bad"] = [{"date": _date(each.time), **asdict(each)} for each in bad_files(slots.home)]
    wait = postponed(slots.home, clock())
    result["postponed"] = {"date": _date(wait.until), **asdict(wait)} if wait else None
    result["last"] = {"date": _date(last.time), **asdict(last)} if last else None
    return result
