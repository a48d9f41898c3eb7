"""Processes that answer and count, updates in a loop and an operator, all at once; and clocks that jump meanwhile."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest

from seedcnn.device.agent import rollback
from seedcnn.device.counting import Moment, read_counts
from seedcnn.device.slots import SLOTS
from seedcnn.errors import DeviceError, UpdateError
from tests.device.sound import debris, reports
from tests.device.states import STATES, Cutter, make_stage
from tests.few import few

YEAR = 365 * 86400

LOOP = """
import sys, time
from pathlib import Path
from seedcnn.device.agent import update
from seedcnn.errors import DeviceError
while not Path(sys.argv[2]).exists():
    try:
        update(sys.argv[1], reports=sys.argv[3])
    except DeviceError as error:  # locked, taken back, or known as bad
        print(error)
    time.sleep(0.02)
"""


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def wanted_by_operator(home) -> str:
    """Roll back as soon as no update holds the lock."""
    while True:
        try:
            return rollback(home)
        except DeviceError as error:
            if "is locked" not in str(error):
                raise
            time.sleep(0.01)


@pytest.fixture
def cutter():
    cutter = Cutter()
    yield cutter
    cutter.close()


def told(stage, path) -> None:
    """Write the right answers down."""
    path.write_text(json.dumps({release: found["images"] for release, found in stage.answers.items()}))


@pytest.mark.parametrize("seconds", few([3.0, 20.0], {0}))
def test_all_at_once(fleet, tmp_path, cutter, seconds):
    """No process fails, every answer is right, and every answer since a probation began is counted."""
    stage = make_stage(fleet, tmp_path / "place", cutter, STATES["probation begins"])
    home, stop, right = stage.device.home, tmp_path / "stop", tmp_path / "right.json"
    told(stage, right)
    answering = [sys.executable, "-m", "tests.device.together", str(home), str(stop), str(right)]
    loop = [sys.executable, "-c", LOOP, str(home), str(stop), str(stage.place / "delivered")]
    lines = [answering] * 4 + [loop] * 2
    processes = [subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for line in lines]
    release, end = 3, time.monotonic() + seconds
    try:
        while True:
            until(lambda wanted=release: stage.device.slots.active().record.release == wanted)
            until(lambda: stage.device.states()[-1] in ("COMMITTED", "REFUSED"))
            if time.monotonic() > end:
                break
            if release % 2:
                assert f"release {release} was taken back" in wanted_by_operator(home)
            release += 1
            stage.make(release)
            told(stage, right)
            stage.offer(release, answers=40)
    finally:
        stop.touch()
        ended = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0] * 6, ended
    assert all("Traceback" not in text for pair in ended for text in pair)
    stage.device.update(reports=stage.place / "delivered")
    np.testing.assert_array_equal(stage.device.logits(), stage.answers[release]["logits"])
    given = [json.loads(out) for out, _ in ended[:4]]
    for slot in SLOTS:
        record = stage.device.slots.examine(slot).record
        if record.release > 2:
            answered = sum(each.get(str(record.release), 0) for each in given)
            assert read_counts(home, record.sha256).answers == answered
    check_ends(stage, release)


def check_ends(stage, newest: int) -> None:
    """Every release has been committed, and every second one taken back, each reported once."""
    found = {each.id: each for each in reports(stage.place)}.values()
    taken = [each for each in range(3, newest) if each % 2]
    assert sorted(each.release for each in found if each.state == "COMMITTED") == list(range(3, newest + 1))
    assert sorted(each.release for each in found if each.state == "ROLLED_BACK") == taken
    assert all(each.serial == stage.serials[each.release] for each in found)
    assert debris(stage.place) == []
    assert not list((stage.device.home / "counted" / "starts").iterdir())


@pytest.mark.parametrize("jump", [-20 * YEAR, -YEAR, YEAR, 20 * YEAR])
def test_a_clock_that_jumps_does_not_move_a_probation(fleet, tmp_path, cutter, jump):
    """Seconds of a probation are the device's uptime; only metadata looks too old by a clock that is ahead."""
    stage = make_stage(fleet, tmp_path / "place", cutter, STATES["probation begins"])
    stage.offer(3, answers=0, seconds=100)
    now = [Moment("first", 1000.0)]
    device = stage.device
    assert device.update(passed=lambda: now[0]).message.endswith("on probation")
    now[0] = Moment("first", 1099.0)

    def jumped() -> None:
        options = {"passed": lambda: now[0], "clock": lambda: time.time() + jump}
        if jump < 0:
            assert device.update(**options).release == 3
        else:
            with pytest.raises(UpdateError, match="has expired or this device's clock is wrong"):
                device.update(**options)

    jumped()
    assert "99 of 100 s" in device.update(passed=lambda: now[0]).message
    now[0] = Moment("first", 1100.0)
    jumped()
    assert "COMMITTED" in device.states()[-3:]
    assert device.release() == 3


def test_a_clock_that_jumps_in_every_process(fleet, tmp_path, cutter):
    """The time of the whole process jumps, not its uptime: the journal's times go back, and nothing else does."""
    if shutil.which("faketime") is None:
        pytest.skip("faketime is not installed")
    stage = make_stage(fleet, tmp_path / "place", cutter, STATES["probation begins"])
    stage.offer(3, answers=40)
    told(stage, tmp_path / "right.json")
    lines = f"from seedcnn.device.agent import update\nprint(update({str(stage.device.home)!r}).message)"
    environment = {**os.environ, "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"}
    done = subprocess.run(
        ["faketime", "-f", "-300d", sys.executable, "-c", lines],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "on probation" in done.stdout
    last = stage.device.slots.journal.last()
    assert last.state == "PROBATION"
    assert time.time() - last.time > 200 * 86400
    assert "on probation: 0 of 40 answers, " in stage.device.update().message
    code = (
        "import sys\nfrom seedcnn.device.live import LiveModel\nfrom tests.device.fleet import IMAGES\n"
        f"with LiveModel({str(stage.device.home)!r}) as live:\n    [live.predict(IMAGES) for _ in range(8)]\n"
    )
    subprocess.run(["faketime", "-f", "+300d", sys.executable, "-c", code], env=environment, check=True, timeout=120)
    entry = stage.device.slots.journal.last()
    assert (entry.state, entry.release, entry.answers) == ("COMMITTED", 3, 40)
