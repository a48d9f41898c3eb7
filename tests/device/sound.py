"""Checks of a device after an interruption, in every state of states.py, and after the steps were repeated."""

from __future__ import annotations

import shutil
import traceback
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from seedcnn.bundle.report import Report
from seedcnn.device.bad import find_bad
from seedcnn.device.counting import Counts, read_counts
from seedcnn.device.outbox import queued
from seedcnn.device.records import Floor, parse
from seedcnn.device.slots import SLOTS
from seedcnn.device.status import status
from seedcnn.errors import SlotError
from tests.device.fleet import Device
from tests.device.states import Ran, Stage, State

ENDS = ("COMMITTED", "ROLLED_BACK")
IMAGES_A_STEP = 5


def copied(stage: Stage, name: str = "cut") -> Path:
    """A copy of the stage's place."""
    place = stage.place.with_name(name)
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(stage.place, place, symlinks=True)
    return place


def stored(home: Path) -> Floor:
    """The floor on disk."""
    return parse(Floor, (home / "floor.json").read_bytes())


def counted(device: Device) -> dict[int, Counts]:
    """The counts of the two models."""
    records = [device.slots.examine(slot).record for slot in SLOTS]
    return {each.release: read_counts(device.home, each.sha256) for each in records}


def debris(place: Path) -> list[str]:
    """Temporary files, partial downloads, and models that no slot holds."""
    found = [path for path in place.rglob("*") if path.suffix == ".tmp" or path.parent.name == "download"]
    used = {path.resolve() for path in (place / "home" / "slots").iterdir()}
    found += [path for path in (place / "home" / "models").iterdir() if path.resolve() not in used]
    return [str(path.relative_to(place)) for path in found]


def reports(place: Path) -> Iterator[Report]:
    """The reports that wait and that were delivered; the same one may be among both."""
    for path in [*queued(place / "home"), *(place / "delivered").glob("*.json")]:
        yield Report.parse(path.read_bytes())


def check_said(stage: Stage, state: State, ran: Ran) -> None:
    """Every answer was right, bit for bit, no answer that is not finite went out, and each failure has a sentence."""
    for name, result in ran.said:
        assert not str(result).startswith("defect"), (name, result)
        if name in ("images", "bright") and result is not None:
            assert isinstance(result, list), (name, result)
            release, *answer = result
            assert answer == stage.answers[release][name], (name, release)
            # If nothing can be read, the model before cannot be opened.
            assert (release, name) != (3, "bright") or ran.unreadable
            assert release in (*state.between, state.last)


def check_models(stage: Stage, device: Device, releases: tuple[int, ...]) -> int:
    """One of some releases answers, bit for bit; both slots are whole; a good fallback answers if the current rots."""
    assert status(device.home)["active"]["release"] in releases
    release, logits = device.answer()
    assert release in releases
    np.testing.assert_array_equal(logits, stage.answers[release]["logits"])
    for slot in SLOTS:
        device.slots.examine(slot)
    copy = Device(device.home.with_name("rotten"))
    shutil.copytree(device.home, copy.home, symlinks=True)
    path = copy.slots.path(copy.slots.current()) / "model.bundle"
    path.write_bytes(path.read_bytes()[:-1])
    if device.slots.is_committed(device.slots.staging()):
        fallback, logits = copy.answer()
        assert fallback != release
        np.testing.assert_array_equal(logits, stage.answers[fallback]["logits"])
    else:
        assert release in (1, 2)  # the model beside it was taken back, and is no fallback
        with pytest.raises(SlotError, match="was taken back, or has not ended its probation"):
            copy.answer()
    shutil.rmtree(copy.home)
    return release


def check_counts(state: State, before: dict[int, Counts], after: dict[int, Counts], most: int) -> None:
    """No counter has gone down, and none counts more than was answered."""
    for release, counts in after.items():
        old = before.get(release, Counts()) if release != state.anew else Counts()
        assert counts.seconds >= old.seconds or release == state.anew
        pairs = [(old.answers, counts.answers), (old.bad, counts.bad), (old.late, counts.late)]
        for earlier, later in pairs:
            assert earlier <= later <= before.get(release, old).answers + most


def check_point(stage: Stage, state: State, place: Path, ran: Ran) -> tuple[int, str]:
    """Check a device after an interruption and at the end; return the release that answered, and what was wrong."""
    try:
        release = check_between(stage, state, place, ran)
        check_end(stage, state, place)
    except Exception:
        return 0, traceback.format_exc()
    return release, ""


def check_between(stage: Stage, state: State, place: Path, ran: Ran) -> int:
    """Check a device after an interruption, and return the release that answers."""
    check_said(stage, state, ran)
    device = Device(place / "home")
    release = check_models(stage, device, state.between)
    steps = sum(name in ("images", "bright") for name in state.steps)
    check_counts(state, counted(stage.device), counted(device), IMAGES_A_STEP * steps)
    before, after = stored(stage.device.home).min_release, stored(device.home).min_release
    assert after >= before
    if after > before:  # on its way to the journal
        assert not (device.home / "probation.json").exists()
    return release


def check_end(stage: Stage, state: State, place: Path) -> None:
    """Repeat what was interrupted, go on to the end, and check it."""
    device = Device(place / "home")
    before = counted(device)
    check_said(stage, state, stage.cutter.run(place, state.steps))
    steps = sum(name in ("images", "bright") for name in state.steps)
    check_counts(state, before, counted(device), IMAGES_A_STEP * steps)
    if state.after:
        check_said(stage, state, stage.cutter.run(place, state.after))
    check_models(stage, device, (state.last,))
    assert not (left := debris(place)), left
    assert device.slots.trial() is None
    check_reports(stage, state, place)
    entries = [(each.state, each.taken or each.release) for each in device.slots.journal.entries()]
    if ("COMMITTED", 3) in entries or ("COMMITTED", 4) in entries:
        assert stored(device.home).min_release == 1
    else:
        assert stored(device.home).min_release == 0
    if state.reported[-1] == ("ROLLED_BACK", 3):
        assert find_bad(
            device.home, device.slots.examine("a" if device.slots.current() == "b" else "b").record.artefact
        )


def check_reports(stage: Stage, state: State, place: Path) -> None:
    """The ends are reported, each once by its id, with serial, release and counts."""
    found = {each.id: each for each in reports(place) if each.state in ENDS}
    assert sorted((each.state, each.release) for each in found.values()) == sorted(state.reported)
    for each in found.values():
        assert each.serial == stage.serials[each.release]
        if each.state == "COMMITTED" and stage.limits.get(each.release):
            assert each.answers >= stage.limits[each.release]
