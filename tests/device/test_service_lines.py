"""The lines of ``seedcnn-device run``: one for each change, and a failure that lasts is logged once."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest

from seedcnn.bundle.report import Report
from seedcnn.device.live import LiveModel
from seedcnn.server.static import serve
from tests.device.attacker import base, content_of, rule, sign_targets
from tests.device.bundles import make_bundle
from tests.device.fleet import IMAGES
from tests.device.hostile import Request, hostile
from tests.device.running import Running, until


def test_a_server_that_goes_away_and_comes_back(fleet, tmp_path):
    fleet.publish(1)
    with serve(fleet.directory) as server:
        device = fleet.device(tmp_path / "home", url=server.url)
        port = int(server.url.rpartition(":")[2])
        running = Running(device.home, "--every", "1s")
        running.__enter__()
        running.says("release 1 is installed")
    with running:
        running.warns("cannot be reached")
        time.sleep(2.5)  # it is the same failure, so nothing more is logged
        assert len(running.err) == 1
        assert re.match(r"seedcnn-device: 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC .*cannot be reached", running.err[0])
        with serve(fleet.directory, port=port):
            running.says("nothing new: release 1 is installed")
            fleet.publish(2)
            running.says("release 2 is installed")
            assert running.end(signal.SIGINT) < 2
        assert len(running.out) == 3


def test_holds_are_said_once_and_failures_of_the_probe_too(device, fleet):
    fleet.publish(2)
    with Running(device.home, "--every", "1s", "--ready", "false") as running:
        running.says("release 2 is held: the command of --ready ended with exit status 1; release 1 stays")
        time.sleep(2.2)
        running.end()
        assert (len(running.out), running.err) == (1, [])
    with Running(device.home, "--every", "1s", "--probe", "false") as running:
        running.warns("release 2 was taken back: the probe ended with exit status 1; release 1 answers again")
        running.end()
        assert running.out == []


def test_reports_and_a_commit_after_probation(device, fleet, tmp_path):
    bundle = make_bundle(2)
    wanted = {"answers": 10, "seconds": 0, "max_bad": 0, "latency_ms": 0, "max_late_per_mille": 1000}
    value = {"probation": wanted, "content": content_of(bundle), "base": base(1)}
    sign_targets(fleet.directory, {"demo/2.bundle": bundle, "rollout/demo.json": rule(2, value)})
    (reports := tmp_path / "reports").mkdir()
    with Running(device.home, "--every", "1s", "--reports", reports) as running:
        running.says("release 2 is installed in slot b (before: 1); on probation")
        with LiveModel(device.home) as live:
            live.predict(IMAGES)
            live.predict(IMAGES)
        running.says("release 2 is committed")
        until(lambda: "COMMITTED" in {Report.parse(path.read_bytes()).state for path in reports.glob("*.json")})
        running.end()
        assert len(running.out) == 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_memory_stays_flat_over_200_checks(fleet, tmp_path):
    fleet.publish(1)
    asked = []

    def noted(request: Request) -> None:
        asked.append(request.path)
        request.serve()

    def used() -> tuple[int, int]:
        text = Path(f"/proc/{running.process.pid}/status").read_text()
        descriptors = list(Path(f"/proc/{running.process.pid}/fd").iterdir())
        return int(re.search(r"VmRSS:\s+(\d+) kB", text)[1]), len(descriptors)

    with hostile(fleet.directory / "public", noted, "timestamp.json") as (_, url):
        device = fleet.device(tmp_path / "home", url=url)
        with Running(device.home, "--every", "1s") as running:
            until(lambda: len(asked) >= 20)
            memory, descriptors = used()
            until(lambda: len(asked) >= 220, 400)
            assert used()[0] - memory < 2048  # kB; the allocator settles within some hundred
            assert used()[1] <= descriptors + 1
            running.end()
