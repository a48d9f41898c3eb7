"""Every command of a rollout, killed or out of room at any call that touches a file, and repeated."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from seedcnn.bundle.report import Report
from seedcnn.bundle.rollout import bucket
from seedcnn.server.families import Access, add_family
from seedcnn.server.repository import init_repository, publish
from seedcnn.server.rollouts import Plan, pause, start
from tests.server.client import Client
from tests.server.interrupted import SALT
from tests.server.sweeps import interrupt

# The command -> what is remembered before and after it: state, serials of rollout and rule, dial.
OLD = ["running", 2, 2, 10]
COMMANDS = {
    "start": ([], OLD),
    "dial": (OLD, ["running", 3, 3, 50]),
    "pause": (OLD, ["paused", 2, 2, 10]),
    "resume": (["paused", 2, 2, 10], OLD),
    "revert": (OLD, ["stopped", 2, 3, 1000]),
    "advance": (OLD, ["running", 3, 3, 50]),
    "stop": (OLD, ["stopped", 2, 3, 1000]),
}
# The repetition of a command that was complete when it was interrupted.
COMPLETE = {
    "start": "a rollout of release 2 of 'demo' is running",
    "dial": "is at 5% already",
    "pause": "only a running one can be paused",
    "resume": "only a paused one can be resumed",
    "revert": "has no base",
}


@pytest.fixture(scope="module")
def starts(tmp_path_factory, make_bundle):
    """Make a place for a command: a repository, two hours old, with a rollout unless the command starts one."""

    def make(name):
        place = tmp_path_factory.mktemp(name) / "start"
        directory, early = place / "r", datetime.now(UTC) - timedelta(hours=2)
        init_repository(directory, now=early)
        add_family(directory, "demo", access=Access(now=early))
        publish(directory, make_bundle(1), now=early)
        publish(directory, make_bundle(2, parent=1), hold=True, now=early)
        (place / "reports").mkdir()
        device = next(each for each in (f"cam-{number}" for number in range(9999)) if bucket(SALT, each) < 10)
        state = "ROLLED_BACK" if name == "stop" else "COMMITTED"
        report = Report("0" * 32, device, "", "demo", 2, 2, state, int(early.timestamp()) + 60)
        (place / "reports" / "1").write_bytes(report.dump())
        if name != "start":
            start(directory, "demo", 2, Plan((10, 50, 1000), 3600, 86400, 20), salt=SALT, access=Access(now=early))
        if name == "resume":
            pause(directory, "demo")
        Client(directory, place / "home").look()
        return place

    return make


def check(place, how, name, step):
    rows = interrupt(place, how, "advance" if name == "stop" else name, step, COMPLETE.get(name))
    old, new = COMMANDS[name]
    offered = {"start": {1, 2}, "revert": {1, 2}, "stop": {1, 2}}.get(name, {2})
    for row in rows:
        assert row["remembered"][0] in (old, new), row
        assert row["remembered"][1] == new, row
        assert set(row["between"]) <= offered, row
        assert row["after"] == ([1, 1] if name in ("revert", "stop") else [2, 2]), row
    return len(rows)


@pytest.mark.parametrize("how", ["kill", "full"])
@pytest.mark.parametrize("name", ["start", "pause"])
def test_interrupted_at_some_calls(starts, name, how):
    assert check(starts(name), how, name, 7 if how == "kill" else 2) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "full"])
@pytest.mark.parametrize("name", COMMANDS)
def test_interrupted_at_every_call(starts, name, how, capsys):
    number = check(starts(name), how, name, 1)
    with capsys.disabled():
        print(f"\n{name}, {how}: {number} calls")
    assert number >= 2
