"""kill -9 at any instant of an update: afterwards the old or the new model is active, and the next update completes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from seedcnn.bundle import Rollout
from seedcnn.device.bad import bad_files
from seedcnn.device.choice import remembered
from seedcnn.device.journal import STATES
from seedcnn.device.records import Floor, parse
from seedcnn.errors import UpdateError
from tests.device.attacker import rule, sign_targets
from tests.device.bundles import make_bundle
from tests.device.fleet import IMAGES, Device, expected_logits

KILLED = -signal.SIGKILL


class Zygote:
    """Runs updates that can be killed; see zygote.py."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("zygote.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _send(self, text: str) -> None:
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()

    def start(self, home: Path, kill_at: int = 0, options: Sequence[str] = ()) -> int:
        self._send(json.dumps({"home": str(home), "kill_at": kill_at, "options": list(options)}))
        return int(self._process.stdout.readline())

    def end(self) -> tuple[int, int]:
        self._send("")
        answer = json.loads(self._process.stdout.readline())
        return answer["code"], answer["calls"]

    def run(self, home: Path, kill_at: int = 0, options: Sequence[str] = ()) -> tuple[int, int]:
        self.start(home, kill_at, options)
        return self.end()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def zygote():
    zygote = Zygote()
    yield zygote
    zygote.close()


@pytest.fixture
def prepared(device, fleet, tmp_path):
    """A home at release 1 with release 3 waiting, and the logits of both. Release 2 fills the other slot."""
    fleet.publish(2)
    device.update()
    bundle = fleet.publish(3)
    answers = {2: device.logits(), 3: expected_logits(bundle, tmp_path)}
    return device.home, answers


def fresh(home: Path, name: str) -> Device:
    copy = home.with_name(name)
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(home, copy, symlinks=True)
    return Device(copy)


def killed(
    zygote: Zygote, home: Path, stride: int = 1, options: Sequence[str] = (), code: int = 0, first: int = 1
) -> Iterator[Device]:
    """Copies of a home on which an update was killed before call ``first`` that touches a file, ``first + stride``, ...

    Args:
        code: exit status of the update that is not killed.
    """
    ended, calls = zygote.run(fresh(home, "whole").home, 0, options)
    assert ended == code
    assert calls > 2 * stride
    for kill_at in range(first, calls + 1, stride):
        copy = fresh(home, "killed")
        assert zygote.run(copy.home, kill_at, options) == (KILLED, 0)
        yield copy


def check(device: Device, answers: dict[int, np.ndarray], slots: str = "ab") -> int:
    """The old or the new model is active, bit for bit, and ``slots`` hold whole models; then an update completes."""
    for slot in slots:
        assert device.slots.examine(slot).record.release in (1, 2, 3)
    release, logits = device.answer()
    np.testing.assert_array_equal(logits, answers[release])
    device.update()
    new, logits = device.answer()
    assert new == 3
    np.testing.assert_array_equal(logits, answers[3])
    rule = Rollout.parse((device.home / "rollout.json").read_bytes(), "demo")
    assert parse(Floor, (device.home / "floor.json").read_bytes()).serial == rule.serial
    return release


def test_kill_before_every_call_that_touches_a_file(zygote, prepared):
    home, answers = prepared
    seen, last_states = [], set()
    for device in killed(zygote, home):
        last_states.add(device.slots.journal.last().state)
        seen.append(check(device, answers))
    assert len(seen) > 50
    assert set(seen) == {2, 3}
    assert last_states >= {"CHECK", "ELIGIBLE", "DOWNLOAD", "VERIFY", "EXPAND", "SELFTEST", "SWITCH", "COMMITTED"}


@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_kill_before_the_calls_of_the_first_update(zygote, fleet, tmp_path, make_bundle, stride):
    factory = tmp_path / "factory.bundle"
    factory.write_bytes(make_bundle(2))
    device = fleet.device(tmp_path / "home", factory=factory)
    answers = {2: device.logits(), 3: expected_logits(fleet.publish(3), tmp_path)}
    seen = set()
    for copy in killed(zygote, device.home, stride):
        seen.add(check(copy, answers, slots=""))
    assert seen == {2, 3}


@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_kill_before_the_calls_of_an_update_by_a_delta(zygote, fleet, tmp_path, stride):
    fleet.publish(2)
    device = fleet.device(tmp_path / "home")
    device.update()
    answers = {2: device.logits(), 3: expected_logits(fleet.publish(3, parent=2, deltas=1), tmp_path)}
    assert "by a delta" in fresh(device.home, "asked").update().message
    seen = set()
    for copy in killed(zygote, device.home, stride):
        seen.add(check(copy, answers, slots="a"))
    assert seen == {2, 3}


@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_kill_before_the_calls_of_a_revert(zygote, fleet, tmp_path, stride):
    """Back to what the other slot still holds, by a newer rule."""
    fleet.publish(3)
    device = fleet.device(tmp_path / "home")
    device.update()
    answers = {3: device.logits()}
    sign_targets(fleet.directory, {"demo/2.bundle": make_bundle(2), "rollout/demo.json": rule(2)})
    device.update()
    answers[2] = device.logits()
    fleet.artefact(3).unlink()
    sign_targets(fleet.directory, {"rollout/demo.json": rule(3)})
    seen, states = set(), set()
    for copy in killed(zygote, device.home, stride):
        states.add(copy.slots.journal.last().state)
        seen.add(check(copy, answers))
    assert seen == {2, 3}
    assert "DOWNLOAD" not in states


@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_kill_before_the_calls_of_a_hold_and_of_the_update_after_it(zygote, fleet, tmp_path, stride):
    fleet.publish(2)
    device = fleet.device(tmp_path / "home")
    device.update()
    answers = {2: device.logits(), 3: expected_logits(make_bundle(3), tmp_path)}
    held = rule(3, {"per_mille": 0})
    serial = json.loads(held)["serial"]
    sign_targets(fleet.directory, {"demo/3.bundle": make_bundle(3), "rollout/demo.json": held})
    for copy in killed(zygote, device.home, stride):
        assert not copy.update().updated
        assert copy.states()[-1] == "HOLD"
        assert copy.slots.floor().serial == serial
        np.testing.assert_array_equal(copy.logits(), answers[2])
    device.update()
    sign_targets(fleet.directory, {"rollout/demo.json": rule(3)})
    seen = set()
    for copy in killed(zygote, device.home, stride):
        seen.add(check(copy, answers, slots="a"))
    assert seen == {2, 3}


@pytest.mark.parametrize("stride", [6, pytest.param(1, marks=pytest.mark.slow)])
def test_kill_before_the_calls_of_an_update_that_its_probe_takes_back(zygote, fleet, tmp_path, stride):
    """Killed anywhere, repeating it ends with the model before."""
    fleet.publish(2)
    device = fleet.device(tmp_path / "home")
    device.update()
    before = device.logits()
    fleet.publish(3)
    states = set()
    for copy in killed(zygote, device.home, stride, ["--probe", "false"], code=1):
        assert copy.release() in (2, 3)
        states.add(copy.slots.journal.last().state)
        with pytest.raises(UpdateError, match="release 3 was"):
            copy.update(probe="false")
        np.testing.assert_array_equal(copy.logits(), before)
        assert "ROLLED_BACK" in copy.states()
        assert bad_files(copy.home)
    assert states >= {"SWITCH", "ROLLED_BACK"}


@pytest.mark.parametrize("stride", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_kill_where_the_device_measures_its_runtimes(zygote, fleet, tmp_path, stride):
    """The memory of "auto" is a cache: whatever happens to it, the old or the new model is active."""
    pytest.importorskip("openvino")
    fleet.publish(2)
    device = fleet.device(tmp_path / "home", runtime="auto")
    device.update()
    answers = {2: device.logits(), 3: expected_logits(fleet.publish(3), tmp_path)}
    seen, chosen = set(), set()
    for copy in killed(zygote, device.home, stride, first=2):
        chosen.add(len(remembered(copy.home)))
        release, logits = copy.answer()
        # The two runtimes round differently.
        np.testing.assert_allclose(logits, answers[release], atol=1e-3)
        copy.update()
        assert copy.release() == 3
        seen.add(release)
    assert seen == {2, 3}
    assert chosen == {1, 2}


def test_kill_after_delays_across_the_whole_update(zygote, prepared):
    home, answers = prepared
    durations, codes = [], []
    for step in range(-3, 60):  # the first three come to their end
        device = fresh(home, "killed")
        begin = time.monotonic()
        pid = zygote.start(device.home)
        if step >= 0:
            time.sleep(min(durations) * (step % 12) / 12)
            os.kill(pid, signal.SIGKILL)
        codes.append(zygote.end()[0])
        if codes[-1] == 0:  # also if the machine was quicker this time
            durations.append(time.monotonic() - begin)
        check(device, answers)
        if codes.count(KILLED) == 20:
            break
    assert codes[:3] == [0, 0, 0]
    assert codes.count(KILLED) >= 10


@pytest.mark.parametrize(
    "state",
    [state for state in STATES if state not in ("HOLD", "PROBATION", "REFUSED", "ROLLED_BACK", "ADAPTED", "UNADAPTED")],
)
def test_kill_on_seeing_a_journal_state(zygote, prepared, state):
    home, answers = prepared
    device = fresh(home, "killed")
    before = len(device.states())
    pid = zygote.start(device.home)
    deadline = time.monotonic() + 30
    # The new steps only: the copied journal ends with those of the previous release.
    while state not in device.states()[before:] and time.monotonic() < deadline:
        pass
    os.kill(pid, signal.SIGKILL)
    zygote.end()
    assert state in device.states()[before:]
    check(device, answers)


def test_kill_of_the_real_command(device, fleet, tmp_path):
    answers = {1: device.logits(), 3: expected_logits(fleet.publish(3), tmp_path)}
    process = subprocess.Popen([sys.executable, "-m", "seedcnn.device.main", "--home", str(device.home), "update"])
    while device.states()[-1] == "COMMITTED" and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    assert process.wait(timeout=60) == KILLED
    check(device, answers, slots="a")
    done = device.command("predict", "--json", _batch(tmp_path))
    assert done.returncode == 0, done.stderr
    assert [item["index"] for item in json.loads(done.stdout)] == answers[3].argmax(axis=1).tolist()


def _batch(tmp_path: Path) -> Path:
    np.save(tmp_path / "batch.npy", IMAGES)
    return tmp_path / "batch.npy"
