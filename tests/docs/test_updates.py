"""The page about updates: its commands exist, its units are valid, its table has the keys of ``status --json``."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seedcnn.device.adapted import LearnedSet, write_sets
from seedcnn.device.bad import note_bad
from seedcnn.device.main import _parser
from seedcnn.device.postponed import postpone
from seedcnn.device.service import longest_update
from seedcnn.device.status import status
from tests.device.attacker import base, content_of, rule, sign_targets
from tests.device.bundles import make_bundle
from tests.device.fleet import open_fleet

TEXT = (Path(__file__).parents[2] / "docs" / "updates.md").read_text()
SERVICE, ONCE, TIMER = re.findall(r"```ini\n(.*?)```", TEXT, re.DOTALL)
ROWS = [
    [re.findall(r"`(\w+)`", cell) for cell in row.split("|")[1:3]]
    for row in TEXT.partition("## The state as JSON")[2].splitlines()
    if row.startswith("| `")
]
FIELDS = {key: set(fields) for keys, fields in ROWS for key in keys}


@pytest.mark.parametrize("unit", [SERVICE, ONCE])
def test_the_command_of_a_unit_exists(unit):
    (line,) = re.findall(r"^ExecStart=/opt/seedcnn/bin/seedcnn-device (.*)$", unit, re.MULTILINE)
    assert _parser().parse_args(shlex.split(line)).command in ("run", "update")


def verify(directory: Path, **units: str) -> subprocess.CompletedProcess[str]:
    """Run ``systemd-analyze verify`` on units; the program's path is one that exists here."""
    directory.mkdir()
    paths = []
    for kind, text in units.items():
        paths.append(directory / f"seedcnn-device.{kind}")
        paths[-1].write_text(text.replace("/opt/seedcnn/bin/seedcnn-device", sys.executable))
    line = ["systemd-analyze", "verify", *map(str, paths)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


def test_systemd_accepts_the_units(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    done = verify(tmp_path / "service", service=SERVICE)
    assert (done.returncode, done.stderr) == (0, "")
    done = verify(tmp_path / "timer", service=ONCE, timer=TIMER)
    assert (done.returncode, done.stderr) == (0, "")
    done = verify(tmp_path / "wrong", service=SERVICE.replace("WatchdogSec", "WatchdogSecs"))
    assert "Unknown key 'WatchdogSecs'" in done.stderr


def test_the_time_of_an_update_is_that_of_the_page():
    assert f"{longest_update() / 60:g} minutes, for" in TEXT


@pytest.fixture(scope="module")
def states(tmp_path_factory):
    """Devices in states that show every key."""
    place = tmp_path_factory.mktemp("states")
    with open_fleet(place / "repository") as fleet:
        (place / "factory.bundle").write_bytes(make_bundle(1))
        device = fleet.device(place / "home", factory=place / "factory.bundle", runtime="auto")
        found = [status(fleet.device(place / "new").home)]
        fleet.publish(2)
        device.update()
        bundle = make_bundle(3)
        limits = {"answers": 10, "seconds": 0, "max_bad": 0, "latency_ms": 0, "max_late_per_mille": 1000}
        value = {"probation": limits, "content": content_of(bundle), "base": base(2)}
        sign_targets(fleet.directory, {"demo/3.bundle": bundle, "rollout/demo.json": rule(3, value)})
        device.update()
        note_bad(device.home, "0" * 64, 4, "why")
        postpone(device.home, fleet.url, 60.0, "why", time.time())
        write_sets(device.home, device.slots.active().record.sha256, [LearnedSet("here", 10, 0, bytes(4), bytes(4))])
        return [*found, status(device.home)]


def test_the_keys_of_the_table_are_those_of_the_command(states):
    new, full = states
    assert set(new) == set(FIELDS)
    assert set(full) == set(FIELDS) - {"problem"}


@pytest.mark.parametrize("key", [key for key in FIELDS if FIELDS[key]])
def test_the_fields_of_a_key(states, key):
    value = states[1][key]
    value = value[0] if isinstance(value, list) else value
    assert set(value) == FIELDS[key]


def test_keys_without_fields_are_plain(states):
    for key in FIELDS:
        if not FIELDS[key] and key in states[1] and key != "runtimes":
            assert isinstance(states[1][key], str | int), key
