"""kill -9 before every call that touches a file, in the states around a probation; see states.py and sound.py."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.device.sound import check_end, check_point, copied
from tests.device.states import STATES, Cutter, make_stage

QUICK = ("probation begins", "a process takes back", "rollback", "damaged record")


@pytest.fixture
def cutter():
    cutter = Cutter()
    yield cutter
    cutter.close()


def cases() -> list:
    """Each state at every call, slow; some at a few calls, quick."""
    quick = [pytest.param(name, 12, id=f"{name}, few") for name in QUICK]
    return quick + [pytest.param(name, 1, id=name, marks=pytest.mark.slow) for name in STATES]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "stride"), cases())
def test_kill(fleet, tmp_path: Path, cutter, name, stride, record_property):
    state = STATES[name]
    stage = make_stage(fleet, tmp_path / "place", cutter, state)
    whole = copied(stage)
    calls = cutter.run(whole, state.steps, "kill").calls
    check_end(stage, state, whole)
    seen, wrong = set(), {}
    points = range(1, calls + 1, stride)
    for at in points:
        place = copied(stage)
        ran = cutter.run(place, state.steps, "kill", at)
        assert ran.code == -signal.SIGKILL
        release, problem = check_point(stage, state, place, ran)
        seen.add(release)
        if problem:
            wrong[f"killed before call {at} of {calls}"] = problem
    record_property("points", len(points))
    assert not wrong, "\n".join(f"{name}, {where}:\n{problem}" for where, problem in wrong.items())
    assert len(points) > 3
    assert stride > 1 or seen >= {state.between[0], state.last}
