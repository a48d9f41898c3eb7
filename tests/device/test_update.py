"""The path of a model from the repository to its answers."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from seedcnn.device.agent import init, update
from seedcnn.device.slots import Slots
from seedcnn.device.status import status
from seedcnn.errors import DeviceError, SlotError, UpdateError
from tests.device.fleet import expected_logits


def test_first_update_installs_and_answers_like_the_bundle(fleet, tmp_path):
    bundle = fleet.publish(1)
    device = fleet.device(tmp_path / "home")
    with pytest.raises(SlotError, match="no usable model"):
        device.logits()
    result = device.update()
    assert (result.updated, result.release, result.previous) == (True, 1, 0)
    np.testing.assert_array_equal(device.logits(), expected_logits(bundle, tmp_path))
    states = ["CHECK", "ELIGIBLE", "DOWNLOAD", "VERIFY", "EXPAND", "SELFTEST", "SWITCH", "COMMITTED"]
    assert device.states() == states


def test_nothing_new_is_said_and_fetches_two_small_files(device, fleet):
    before = device.slots.current()
    result = device.update()
    assert (result.updated, result.release) == (False, 1)
    assert "nothing new" in result.message
    assert device.slots.current() == before
    # Neither the rule nor the bundle is fetched again; both may be gone from the server.
    for path in (fleet.directory / "public" / "targets").rglob("*.*"):
        path.unlink()
    assert not device.update().updated


def test_second_release_goes_to_the_other_slot_and_the_first_stays(device, fleet, tmp_path):
    first = device.slots.current()
    bundle = fleet.publish(2)
    result = device.update()
    assert (result.updated, result.release, result.previous) == (True, 2, 1)
    assert device.slots.current() != first
    assert device.slots.examine(first).record.release == 1
    np.testing.assert_array_equal(device.logits(), expected_logits(bundle, tmp_path))
    assert device.slots.floor().serial == 2
    fleet.publish(5)
    assert device.update().release == 5
    assert device.slots.current() == first


def test_factory_model_answers_first_and_its_minimum_release_counts(fleet, tmp_path, make_bundle):
    factory = tmp_path / "factory.bundle"
    factory.write_bytes(make_bundle(3, min_release=2))
    device = fleet.device(tmp_path / "home", factory=factory)
    assert device.release() == 3
    fleet.publish(1)
    with pytest.raises(UpdateError, match=r"release 1 of .demo. was refused: a model .* requires release 2 or later"):
        device.update()
    assert device.release() == 3
    fleet.publish(2)
    assert device.update().previous == 3
    assert device.release() == 2
    fleet.publish(3, min_release=2)
    assert device.update().updated
    assert device.update().message == "nothing new: release 3 is installed"


def test_init_refuses_what_it_cannot_trust(fleet, tmp_path, make_bundle):
    root = fleet.directory / "root.json"
    bad = tmp_path / "bad.json"
    bad.write_bytes(root.read_bytes().replace(b'"threshold":2', b'"threshold":1'))
    with pytest.raises(UpdateError, match="trust anchor was refused"):
        init(tmp_path / "h1", bad, fleet.url, "demo")
    bad.write_bytes((fleet.directory / "public" / "metadata" / "timestamp.json").read_bytes())
    with pytest.raises(UpdateError, match="it is timestamp metadata"):
        init(tmp_path / "h2", bad, fleet.url, "demo")
    with pytest.raises(DeviceError, match="cannot be initialised: No such file"):
        init(tmp_path / "h3", tmp_path / "absent.json", fleet.url, "demo")
    with pytest.raises(ValueError, match="`family`"):
        init(tmp_path / "h4", root, fleet.url, "../demo")
    with pytest.raises(ValueError, match="`url`"):
        init(tmp_path / "h5", root, "file:///etc", "demo")
    other = tmp_path / "other.bundle"
    other.write_bytes(make_bundle(1, family="other"))
    with pytest.raises(UpdateError, match="family is 'other', not 'demo'"):
        init(tmp_path / "h6", root, fleet.url, "demo", factory=other)
    init(tmp_path / "h6", root, fleet.url, "demo")
    with pytest.raises(DeviceError, match="already initialised"):
        init(tmp_path / "h6", root, fleet.url, "demo")
    with pytest.raises(DeviceError, match="not initialised"):
        update(tmp_path / "h7")


def test_a_url_given_for_once_is_used(device, fleet):
    fleet.publish(2)
    (config := device.home / "config.json").write_text(config.read_text().replace(fleet.url, "http://127.0.0.1:1"))
    with pytest.raises(UpdateError, match="cannot be reached"):
        device.update()
    assert device.update(fleet.url).release == 2


def test_status_tells_slots_floor_and_last_step(device):
    result = status(device.home)
    assert result["active"]["release"] == 1
    assert result["active"]["source"] == result["current"] == "a"
    assert result["slot_b"] == {"unusable": "slot.json: No such file or directory"}
    assert (result["floor"]["serial"], result["floor"]["min_release"]) == (1, 0)
    assert result["last"]["state"] == "COMMITTED"
    json.dumps(result)


def test_a_second_update_is_refused_while_one_runs(device, fleet):
    fleet.publish(2)
    with device.slots.lock():
        done = device.command("update")
    assert done.returncode == 1
    assert done.stderr.strip() == f"seedcnn-device: {device.home} is locked: another update is running"
    assert device.release() == 1


def test_many_updates_at_once_end_in_one_good_state(device, fleet):
    fleet.publish(2, width=64)
    line = [sys.executable, "-m", "seedcnn.device.main", "--home", str(device.home), "update"]
    running = [subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    ends = [(*process.communicate(timeout=120), process.returncode) for process in running]
    for out, err, code in ends:
        assert (code == 0 and ("release 2 is installed" in out)) or (code == 1 and "another update is running" in err)
    assert sum("is installed in slot" in out for out, _, _ in ends) == 1
    assert device.release() == 2
    assert device.slots.floor().serial == 2
    assert Slots(device.home).examine("a").record.release == 1
