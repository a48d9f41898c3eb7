"""The file system refuses any call in the states around a probation: it is full, read-only or broken; see states.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from seedcnn.device.outbox import queued
from tests.device.sound import check_end, check_point, copied
from tests.device.states import STATES, Cutter, make_stage

FAULTS = ("ENOSPC", "EROFS", "EIO")
QUICK = (("update takes back for bad answers", "EIO"), ("a process takes back", "ENOSPC"))


@pytest.fixture
def cutter():
    cutter = Cutter()
    yield cutter
    cutter.close()


def cases() -> list:
    """Each state with each fault at each call, slow; two of them at a few calls, quick."""
    quick = [pytest.param(*case, 7, id=f"{', '.join(map(str, case))}, few") for case in QUICK]
    return quick + [
        pytest.param(name, fault, 1, id=f"{name}, {fault}", marks=pytest.mark.slow)
        for name in STATES
        for fault in FAULTS
    ]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "fault", "stride"), cases())
def test_refused(fleet, tmp_path: Path, cutter, name, fault, stride, record_property):
    """Nothing fails but an update, with a sentence; then it completes. Every second time all later calls fail, too."""
    state = STATES[name]
    stage = make_stage(fleet, tmp_path / "place", cutter, state)
    whole = copied(stage)
    calls = cutter.run(whole, state.steps, fault).calls
    check_end(stage, state, whole)
    points = range(1, calls + 1, stride)
    wrong, refused = {}, 0
    for at in points:
        place = copied(stage)
        lasting = at // stride % 2 == 1
        ran = cutter.run(place, state.steps, fault, at, lasting)
        refused += ran.code == 1
        _, problem = check_point(stage, state, place, ran)
        if problem:
            wrong[f"{fault} {'from' if lasting else 'at'} call {at} of {calls}"] = problem
    record_property("points", len(points))
    assert not wrong, "\n".join(f"{name}, {where}:\n{problem}" for where, problem in wrong.items())
    assert len(points) > 3
    assert refused or "update" not in state.steps


def test_a_report_that_has_rotted_keeps_none_back(fleet, tmp_path, cutter):
    stage = make_stage(fleet, tmp_path / "place", cutter, STATES["reports are delivered"])
    first, *others = queued(stage.device.home)
    first.write_bytes(first.read_bytes()[:-9])
    stage.device.update(reports=stage.place / "delivered")
    assert queued(stage.device.home) == []
    assert len(list((stage.place / "delivered").iterdir())) >= len(others) > 2
