"""A new model is committed after its probation, or taken back: by its answers, their time, or starts without any."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from seedcnn.bundle.report import Report
from seedcnn.device.agent import rollback
from seedcnn.device.counting import Counts, Moment, read_counts, shift
from seedcnn.device.live import LiveModel
from seedcnn.device.outbox import queued
from seedcnn.device.status import status
from seedcnn.device.status_text import brief, full
from seedcnn.errors import DeviceError, RolledBackError, UpdateError
from tests.device.attacker import base, content_of, rule, sign_targets
from tests.device.bundles import make_bundle
from tests.device.fleet import IMAGES, Device, Fleet

TEN = {"answers": 10, "seconds": 0, "max_bad": 0, "latency_ms": 0, "max_late_per_mille": 1000}
BRIGHT = np.full_like(IMAGES, 255)


class Uptime:
    """A device's uptime that a test turns."""

    def __init__(self) -> None:
        self.now = Moment("first", 1000.0)

    def __call__(self) -> Moment:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now = replace(self.now, seconds=self.now.seconds + seconds)

    def restart(self, seconds: float) -> None:
        self.now = Moment(self.now.boot + "+", seconds)


@pytest.fixture
def uptime():
    return Uptime()


def offer(fleet: Fleet, release: int, *, bundle: bytes | None = None, back: int = 1, **limits: int) -> None:
    """Offer a release to all devices with a probation."""
    bundle = bundle or make_bundle(release)
    value = {"probation": {**TEN, **limits}, "content": content_of(bundle), "base": base(back)}
    sign_targets(fleet.directory, {f"demo/{release}.bundle": bundle, "rollout/demo.json": rule(release, value)})


def reports(device: Device) -> list[Report]:
    return [Report.parse(path.read_bytes()) for path in queued(device.home)]


def test_a_model_is_committed_after_its_answers(device, fleet):
    offer(fleet, 2)
    assert device.update().message.endswith("on probation")
    assert device.states()[-1] == "PROBATION"
    found = status(device.home)
    assert found["probation"]["answers"] == 0
    assert "on probation: 0 of 10 answers, 0 of 0 s" in brief(found, found["last"]["time"])
    with LiveModel(device.home) as live:
        np.testing.assert_array_equal(live.predict(IMAGES).indices, device.logits().argmax(axis=1))
        assert device.update().message == "nothing new: release 2 is on probation: 5 of 10 answers, 0 of 0 s"
        for image in IMAGES:
            live.predict(image[None])
        assert device.states()[-1] == "COMMITTED"
    entry = device.slots.journal.last()
    assert (entry.release, entry.answers, entry.bad, entry.late) == (2, 10, 0, 0)
    assert not (device.home / "probation.json").exists()
    assert [each.state for each in reports(device)][-4:] == ["ELIGIBLE", "DOWNLOAD", "PROBATION", "COMMITTED"]
    assert reports(device)[-1].answers == 10
    assert not device.update().updated
    assert status(device.home)["probation"] is None


def test_seconds_count_while_the_device_is_up(device, fleet, uptime):
    offer(fleet, 2, answers=0, seconds=100)
    device.update(passed=uptime)
    uptime.wait(70)
    assert "0 of 0 answers, 70 of 100 s" in device.update(passed=uptime).message
    assert status(device.home, passed=uptime)["probation"]["seconds"] == 70
    uptime.restart(20.0)
    assert "90 of 100 s" in device.update(passed=uptime).message
    uptime.wait(9)
    assert "99 of 100 s" in device.update(passed=uptime).message
    uptime.wait(1)
    device.update(passed=uptime)
    assert device.states()[-1] == "COMMITTED"


def test_an_answer_after_the_seconds_commits(device, fleet, uptime):
    offer(fleet, 2, answers=1, seconds=100)
    device.update(passed=uptime)
    with LiveModel(device.home, passed=uptime) as live:
        live.predict(IMAGES)
        assert device.states()[-1] == "PROBATION"
    uptime.wait(100)
    with LiveModel(device.home, passed=uptime) as live:
        live.predict(IMAGES)
        assert device.states()[-1] == "COMMITTED"


@pytest.mark.parametrize("by", ["live", "update"])
def test_an_answer_that_is_not_finite_takes_the_model_back(device, fleet, by):
    old = device.logits()
    offer(fleet, 2, bundle=make_bundle(2, fragile=True))
    device.update()
    with LiveModel(device.home) as live:
        live.predict(IMAGES)
        assert live.model.bundle.manifest.release == 2
        if by == "update":
            with device.slots.lock():  # an update is running, so nothing can be written down but the counts
                found = live.predict(BRIGHT)
            assert device.states()[-1] == "PROBATION"
            with pytest.raises(RolledBackError, match="5 of 10 answers were not finite or failed; 0 may"):
                device.update()
        else:
            found = live.predict(BRIGHT)
        assert np.isfinite(found.probabilities).all()  # the model before has answered
        assert live.model.bundle.manifest.release == 1
        np.testing.assert_array_equal(live.predict(IMAGES).indices, old.argmax(axis=1))
    np.testing.assert_array_equal(device.logits(), old)
    entry = device.slots.journal.last()
    assert (entry.state, entry.release, entry.taken, entry.code) == ("ROLLED_BACK", 1, 2, "bad-answers")
    assert "too many answers were bad, so back to release 1" in brief(status(device.home), entry.time)
    with pytest.raises(UpdateError, match="has failed or was taken back here and is not fetched again"):
        device.update()
    report = reports(device)[-1]
    assert (report.state, report.release, report.code, report.bad) == ("ROLLED_BACK", 2, "bad-answers", 5)


def test_some_answers_may_be_bad(device, fleet):
    offer(fleet, 2, bundle=make_bundle(2, fragile=True), max_bad=2, answers=6)
    device.update()
    with LiveModel(device.home) as live:
        assert np.isnan(live.predict(BRIGHT[:2]).probabilities).all()
        live.predict(IMAGES[:4])
    entry = device.slots.journal.last()
    assert (entry.state, entry.answers, entry.bad) == ("COMMITTED", 6, 2)


def test_late_answers_take_the_model_back(device, fleet):
    offer(fleet, 2, bundle=make_bundle(2, width=4096), answers=4, latency_ms=1, max_late_per_mille=250)
    device.update()
    with LiveModel(device.home) as live:
        live.predict(IMAGES[:1])
        assert device.states()[-1] == "PROBATION"  # one of four
        live.predict(IMAGES[:3])
    assert device.slots.journal.last().code == "late-answers"
    assert device.release() == 1


def start(device: Device, code: str) -> int:
    """Run a process with a LiveModel as ``live``, and return its exit status."""
    lines = f"from seedcnn.device.live import LiveModel\nimport os\nlive = LiveModel({str(device.home)!r})\n{code}"
    return subprocess.run([sys.executable, "-c", lines], check=False, timeout=60).returncode


@pytest.mark.parametrize("by", ["live", "update"])
def test_three_starts_without_an_answer_take_the_model_back(device, fleet, by):
    old = device.logits()
    offer(fleet, 2)
    device.update()
    for code in ("os.kill(os.getpid(), 9)", "os.abort()", "raise SystemExit(1)"):
        assert "on probation" in device.update().message
        assert start(device, code) != 0
    if by == "update":
        with pytest.raises(RolledBackError, match="3 starts without an answer; release 1 answers again"):
            device.update()
    else:
        with LiveModel(device.home) as live:
            assert live.model.bundle.manifest.release == 1
    np.testing.assert_array_equal(device.logits(), old)
    assert device.slots.journal.last().code == "crash-loop"


def test_starts_that_do_not_count(device, fleet):
    """Those that are alive, that were closed, and those before an answer."""
    offer(fleet, 2)
    device.update()
    alive = [LiveModel(device.home) for _ in range(4)]
    for each in alive:
        assert each.model.bundle.manifest.release == 2
    assert "on probation" in device.update().message
    for each in alive:
        each.close()
    for _ in range(3):
        start(device, "live.close()")
    for _ in range(2):
        assert start(device, "os.abort()") != 0
    with LiveModel(device.home) as live:
        live.predict(IMAGES[:1])
    for _ in range(2):
        assert start(device, "os.abort()") != 0
    assert "on probation: 1 of 10 answers" in device.update().message


def test_the_command_predict_counts(device, fleet, tmp_path):
    np.save(tmp_path / "batch.npy", IMAGES)
    np.save(tmp_path / "bright.npy", BRIGHT)
    offer(fleet, 2, bundle=make_bundle(2, fragile=True))
    device.update()
    before = status(device.home)["probation"]
    assert device.command("evaluate", tmp_path).returncode == 1
    assert device.command("predict", tmp_path / "batch.npy", "--runtime", "onnxruntime").returncode == 0
    assert status(device.home)["probation"]["answers"] == before["answers"] == 0
    assert device.command("predict", tmp_path / "batch.npy").returncode == 0
    assert "on probation: 5 of 10 answers" in device.update().message
    done = device.command("predict", tmp_path / "bright.npy")
    assert (done.returncode, "nan" in done.stdout) == (0, False)  # the model before has answered
    assert (device.release(), device.slots.journal.last().code) == (1, "bad-answers")


def test_many_processes_count_together(device, fleet):
    offer(fleet, 2, answers=400)
    device.update()
    code = "import numpy as np\nfor _ in range(100): live.predict(np.zeros((1, 32, 32, 3), np.uint8))\n"
    lines = f"from seedcnn.device.live import LiveModel\nlive = LiveModel({str(device.home)!r})\n{code}live.close()"
    processes = [subprocess.Popen([sys.executable, "-c", lines]) for _ in range(4)]
    assert [process.wait(timeout=60) for process in processes] == [0] * 4
    device.update()
    entry = device.slots.journal.last()
    assert (entry.state, entry.answers) == ("COMMITTED", 400)


def test_a_child_process_leaves_the_counts_to_its_parent(device, fleet):
    offer(fleet, 2, answers=7)
    device.update()
    sha256 = device.slots.examine("b").record.sha256
    code = (  # without a session: a child of a process that has one does not end
        "import os, sys\nimport numpy as np\nfrom seedcnn.device.config import read_config\n"
        "from seedcnn.device.slots import Slots\nfrom seedcnn.device.tally import Tally\nslots = Slots(sys.argv[1])\n"
        "tally = Tally(slots, read_config(slots.home), sys.argv[2], ['cat', 'dog'])\n"
        "tally.count(np.ones((3, 2), np.float32), np.zeros(3, np.int64), 0.1)\n"
        "if os.fork() == 0:\n    tally.close()\n    os._exit(0)\nos.wait()\ntally.close()\n"
    )
    subprocess.run([sys.executable, "-c", code, str(device.home), sha256], check=True, timeout=60)
    assert read_counts(device.home, sha256).labels == {"cat": 3}


def test_the_shift_of_the_labels_is_reported(device, fleet):
    with LiveModel(device.home) as live:
        first = live.predict(IMAGES)
    offer(fleet, 2)
    device.update()
    with LiveModel(device.home) as live:
        second = live.predict(np.concatenate([IMAGES, IMAGES]))
    new = np.bincount(second.indices, minlength=10) / 10
    old = np.bincount(first.indices, minlength=10) / 5
    report = reports(device)[-1]
    assert (report.state, report.compared) == ("COMMITTED", 5)
    assert report.shift == round(500 * np.abs(new - old).sum())
    assert shift(Counts(labels={"cat": 3}), Counts(labels={"dog": 1})) == 1000
    assert shift(Counts(labels={"cat": 3}), Counts()) == 0


def test_a_release_after_one_on_probation_does_not_replace_the_known_good_one(device, fleet):
    offer(fleet, 2)
    device.update()
    offer(fleet, 3)
    assert device.update().message.startswith("release 3 is installed in slot b (before: 1")
    taken = next(each for each in device.slots.journal.entries() if each.state == "ROLLED_BACK")
    assert (taken.release, taken.taken, taken.code) == (1, 2, "superseded")
    assert all(each.state != "ROLLED_BACK" for each in reports(device))
    for _ in range(3):
        start(device, "os.abort()")
    with pytest.raises(RolledBackError, match=r"release 3 was taken back: .* release 1 answers again"):
        device.update()
    assert device.release() == 1


def test_a_revert_during_a_probation_fetches_nothing(device, fleet):
    old = device.logits()
    offer(fleet, 2, answers=1000)
    with LiveModel(device.home) as live:
        device.update()
        live.predict(IMAGES)
        assert live.model.bundle.manifest.release == 2
        fleet.artefact(1).unlink()
        sign_targets(fleet.directory, {"rollout/demo.json": rule(1)})
        assert "the slot still held it" in device.update().message
        live.predict(IMAGES)
        assert live.model.bundle.manifest.release == 1
    assert device.states()[-1] == "COMMITTED"
    np.testing.assert_array_equal(device.logits(), old)
    assert status(device.home)["probation"] is None


def test_the_minimum_release_counts_from_the_commit(device, fleet):
    offer(fleet, 2, bundle=make_bundle(2, min_release=2))
    device.update()
    assert device.slots.floor().min_release == 0
    for _ in range(3):
        start(device, "os.abort()")
    with pytest.raises(RolledBackError, match="release 1 answers again"):
        device.update()
    offer(fleet, 3, bundle=make_bundle(3, min_release=2), answers=1)
    device.update()
    with LiveModel(device.home) as live:
        live.predict(IMAGES)
    assert device.slots.floor().min_release == 2
    with pytest.raises(DeviceError, match=r"cannot go back to release 1: a model .* requires release 2 or later"):
        rollback(device.home)


def test_a_damaged_record_of_a_probation_ends_with_the_model_before(device, fleet):
    offer(fleet, 2)
    device.update()
    path = device.home / "probation.json"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(RolledBackError, match=r"release 2 was taken back: .*probation.json cannot be read: "):
        device.update()
    assert device.release() == 1
    assert device.update().updated  # it was not the model's fault


def test_a_first_model_on_probation_leaves_none(fleet, tmp_path):
    fleet.publish(1)
    offer(fleet, 2)
    device = fleet.device(tmp_path / "home")
    assert device.update().release == 2
    for _ in range(3):
        start(device, "os.abort()")
    with pytest.raises(RolledBackError, match="3 starts without an answer; no model is left"):
        device.update()
    assert not os.path.lexists(device.home / "current")


def test_an_operator_takes_a_model_back(device, fleet):
    with pytest.raises(DeviceError, match="has no model to go back to: release 1 is its only one"):
        rollback(device.home)
    fleet.publish(2)
    device.update()
    assert rollback(device.home) == "release 2 was taken back: an operator wanted it; release 1 answers again"
    assert (device.release(), device.slots.journal.last().code) == (1, "operator")
    with pytest.raises(UpdateError, match="the reason: an operator wanted it"):
        device.update()
    report = reports(device)[-1]
    assert (report.state, report.code, report.release) == ("ROLLED_BACK", "operator", 2)
    fleet.publish(3)
    assert device.update().release == 3


def test_the_command_rollback_and_its_report(device, fleet, tmp_path):
    fleet.publish(2)
    device.update()
    done = device.command("rollback", "--reports", tmp_path / "missing")
    assert done.stdout == "release 2 was taken back: an operator wanted it; release 1 answers again\n"
    assert "reports could not be put into" in done.stderr
    waiting = len(queued(device.home))
    (tmp_path / "reports").mkdir()
    done = device.command("update", "--reports", tmp_path / "reports")
    assert (done.returncode, "an operator wanted it" in done.stderr) == (1, True)
    assert len(list((tmp_path / "reports").iterdir())) == waiting
    assert queued(device.home) == []
    done = device.command("rollback")
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot go back to release 2: " in done.stderr


def test_a_home_that_cannot_be_written_still_answers(device, fleet, tmp_path):
    if os.geteuid() == 0:
        (device.home / "counted").write_text("in the way")
    else:
        device.home.chmod(0o500)
    with LiveModel(device.home) as live:
        assert len(live.predict(IMAGES).labels) == 5
    device.home.chmod(0o700)


def test_full_status(device, fleet):
    offer(fleet, 2, seconds=5)
    device.update()
    (line,) = [each for each in full(status(device.home)) if each.startswith("probation")]
    assert "0 of 10 answers, " in line
    assert "back to slot a" in line
