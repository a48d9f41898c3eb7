"""``seedcnn-device run``: real processes that keep a device up to date, with servers that go and come, and signals."""

from __future__ import annotations

import signal
import threading
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from seedcnn.bundle.report import Report
from seedcnn.device.main import main
from seedcnn.device.outbox import queued
from seedcnn.device.service import run_forever
from tests.device.fleet import Device, Fleet, expected_logits
from tests.device.hostile import Request, hostile
from tests.device.running import Running, named, until

SECOND = 10**9


@pytest.fixture
def early(fleet: Fleet, tmp_path: Path) -> Device:
    """A device without a release, which asks at once after its start and then an hour later."""
    fleet.publish(1)
    return fleet.device(tmp_path / "home", device_id=named(3600, 0, 0.003))


def test_what_is_refused_at_the_start(tmp_path, device, capsys):
    assert main(["--home", str(tmp_path / "none"), "run"]) == 1
    assert "none is not initialised; run: seedcnn-device" in capsys.readouterr().err
    errors = []

    def other_thread() -> None:
        try:
            run_forever(device.home, timedelta(hours=1))
        except ValueError as error:
            errors.append(str(error))

    thread = threading.Thread(target=other_thread)
    thread.start()
    thread.join()
    assert len(errors) == 1
    assert "main thread" in errors[0]


def test_a_new_release_is_installed_within_an_interval_and_sigterm_ends_a_sleep(fleet, tmp_path):
    fleet.publish(1)
    device = fleet.device(tmp_path / "home")
    with Running(device.home, "--every", "1s") as running:
        running.says("release 1 is installed in slot a (before: none)")
        expected = expected_logits(fleet.publish(2), tmp_path)
        assert running.says("release 2 is installed in slot b (before: 1)") < 1.8
        time.sleep(1.2)  # nothing new
        assert running.end() < 2
        assert (len(running.out), running.err) == (2, [])
    np.testing.assert_array_equal(device.logits(), expected)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_during_an_update(device, fleet, tmp_path, number):
    before, expected = device.logits(), expected_logits(fleet.publish(2), tmp_path)
    with hostile(fleet.directory / "public", Request.hang, ".bundle") as (server, url):
        config = device.home / "config.json"
        config.write_text(config.read_text().replace(fleet.url, url))
        with Running(device.home, "--every", "1s") as running:
            until(lambda: bool(server.spoiled) and device.states()[-1] == "DOWNLOAD")
            assert running.end(number) < 2
            assert (running.out, running.err) == ([], [])
        config.write_text(config.read_text().replace(url, fleet.url))
    last = device.slots.journal.last()
    assert (last.state, last.code) == ("REFUSED", "stopped")
    assert last.reason == f"Stopped: the update could not finish, because {number.name} ended it"
    # It is no failure of the release, so nobody hears that it was refused.
    assert {Report.parse(path.read_bytes()).state for path in queued(device.home)} & {"REFUSED"} == set()
    np.testing.assert_array_equal(device.logits(), before)
    assert device.update().release == 2
    np.testing.assert_array_equal(device.logits(), expected)


def test_kill_and_restart(device, fleet, tmp_path):
    expected = expected_logits(fleet.publish(2), tmp_path)
    steps = len(device.states())
    with Running(device.home, "--every", "1s") as running:
        until(lambda: len(device.states()) > steps + 2)
        running.process.kill()
        assert running.process.wait() == -signal.SIGKILL
    assert device.release() in (1, 2)
    with Running(device.home, "--every", "1s") as running:
        until(lambda: device.states()[-1] == "COMMITTED" and device.release() == 2)
        running.end()
    np.testing.assert_array_equal(device.logits(), expected)


def test_another_process_holds_the_lock(early):
    with Running(early.home, 3600, "", script="pause=0.3") as running:
        with early.slots.lock():
            running.warns(f"UTC {early.home} is locked: another update is running")
        assert running.says("release 1 is installed") < 3
        running.end()
        assert len(running.err) == 1
