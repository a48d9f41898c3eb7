"""Servers that stall, lie, break off or are busy: each update ends in time, with the old model or the new one, whole.

All cases run at once in a few threads, against real sockets; then each is judged by itself.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from seedcnn.device.postponed import postponed
from seedcnn.errors import UpdateError
from tests.device.fleet import Device, Fleet, expected_logits, open_fleet
from tests.device.hostile import hostile
from tests.device.hostile_cases import BUNDLE, CASES, DEAF, TIMESTAMP, Case, bomb_200


@dataclass(frozen=True)
class Outcome:
    """How an update ended: after ``seconds``, with ``sentence`` if it failed."""

    device: Device
    seconds: float
    sentence: str
    updated: bool
    sent: int
    waits: bool


@dataclass(frozen=True)
class World:
    """A repository with release 2, the logits of both releases, and how each case ended."""

    fleet: Fleet
    answers: dict[int, np.ndarray]
    outcomes: dict[str, Outcome]


def _run(fleet: Fleet, home: Path, one: Case) -> Outcome:
    device = Device(home.with_name(f"home-{CASES.index(one)}"))
    shutil.copytree(home, device.home, symlinks=True)
    with hostile(fleet.directory / "public", one.behave, one.suffix) as (server, url):
        begin, sentence, updated = time.monotonic(), "", False
        try:
            updated = device.update(url.replace("http", one.scheme, 1), one.limits).updated
        except UpdateError as error:
            sentence = str(error)
        seconds = time.monotonic() - begin
        waits = postponed(device.home, time.time()) is not None
    return Outcome(device, seconds, sentence, updated, sum(each.sent for each in server.spoiled), waits)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory):
    place = tmp_path_factory.mktemp("hostile")
    with open_fleet(place / "repository") as fleet:
        fleet.publish(1)
        device = fleet.device(place / "home")
        device.update()
        answers = {1: device.logits(), 2: expected_logits(fleet.publish(2), place)}
        with ThreadPoolExecutor(6) as pool:
            # The slow ones first, so that no thread waits for the last.
            order = sorted(CASES, key=lambda one: one.limits is not DEAF)
            outcomes = pool.map(lambda one: _run(fleet, device.home, one), order)
            yield World(fleet, answers, {one.name: found for one, found in zip(order, outcomes, strict=True)})


@pytest.mark.parametrize("one", CASES, ids=lambda one: one.name)
def test_it_ends_in_time_with_a_whole_model(world: World, one: Case):
    found = world.outcomes[one.name]
    assert found.seconds < one.limits.deadline + 1
    if one.words is None:
        assert found.sentence == ""
        assert found.updated
    else:
        assert re.search(one.words, found.sentence), found.sentence
        assert "\n" not in found.sentence
        assert found.device.slots.journal.last().reason == found.sentence
    device, release = found.device, 2 if one.words is None else 1
    got, logits = device.answer()
    assert got == release
    np.testing.assert_array_equal(logits, world.answers[release])
    assert len(list(device.home.glob("download/*.part"))) <= 1
    assert found.waits == one.waits
    # The lock is free, and the next update from a good server completes, whatever the bad one left.
    if release == 1:
        assert device.update(world.fleet.url).release == 2
        np.testing.assert_array_equal(device.logits(), world.answers[2])
    assert not list(device.home.glob("download/*"))


@pytest.mark.parametrize("name", ["cut at 30 % of the file each time", "cut at 30 % of what is left each time"])
def test_what_has_come_is_not_sent_again(world: World, name: str):
    size = world.fleet.artefact(2).stat().st_size
    assert size <= world.outcomes[name].sent <= 1.01 * size


PEAK = """
import sys
from seedcnn.device.main import main
code = main(sys.argv[1:])
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
sys.exit(code)
"""


@pytest.mark.parametrize("suffix", [BUNDLE, TIMESTAMP])
def test_a_bomb_takes_no_memory(world: World, suffix: str):
    """4 GiB in 4 MB: the process that refuses them is as large as one that finds nothing new, within 4 MB."""
    peaks = []
    home = world.outcomes["404"].device.home.with_name(f"bombed-{suffix}")
    shutil.copytree(home.with_name("home"), home, symlinks=True)
    config = (home / "config.json").read_text()
    for behave in (bomb_200, lambda request: request.reply(b"", "404 Not Found")):
        with hostile(world.fleet.directory / "public", behave, suffix) as (_, url):
            (home / "config.json").write_text(config.replace(world.fleet.url, url))
            line = [sys.executable, "-c", PEAK, "--home", str(home), "update"]
            done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 1
        assert ("sends more than" if behave is bomb_200 else "HTTP status 404") in done.stderr
        peaks.append(int(done.stdout))
    assert peaks[0] < peaks[1] + 4096
