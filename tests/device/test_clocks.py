"""Wrong clocks, by faketime: the real commands under a clock that is behind, ahead, or jumps while they run.

Only the time of day is changed; the monotonic clock, which deadlines use, goes on. START is the right time. No case
makes a process sleep, which faketime does not survive: its clock_nanosleep fails with EINVAL in Python 3.11 and later.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from seedcnn.device.trusted import BUILT
from seedcnn.server.families import Access, add_family
from seedcnn.server.repository import init_repository, publish
from seedcnn.server.static import serve
from tests.device.bundles import make_bundle
from tests.device.certificates import server_context, write_certificate
from tests.device.fleet import Device, Fleet, contents
from tests.device.hostile import Request, hostile
from tests.few import few

pytestmark = pytest.mark.skipif(shutil.which("faketime") is None, reason="faketime is not installed")

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
START = datetime.fromtimestamp(BUILT, UTC) + 40 * DAY
EPOCH = datetime(1970, 1, 1, 0, 1, tzinfo=UTC)
Y2106 = datetime(2106, 2, 8, tzinfo=UTC)
EXPIRED = "its metadata has expired or this device's clock is wrong"


@dataclass(frozen=True)
class Clock:
    """A clock that processes see; ``file`` holds its time, and a change of it is a jump."""

    file: Path

    def set(self, moment: datetime, file: Path | None = None) -> Path:
        file = file or self.file
        file.write_text(f"@{moment:%Y-%m-%d %H:%M:%S}\n")
        return file

    def environment(self) -> dict[str, str]:
        library = subprocess.run(
            ["faketime", "-f", "+0", "printenv", "LD_PRELOAD"], capture_output=True, text=True, check=True
        )
        return {
            **os.environ,
            "LD_PRELOAD": library.stdout.strip(),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
            "TZ": "UTC",
        }

    def run(self, module: str, *arguments: object, at: datetime | None = None, **variables: str):
        """Run a command at a time, or at the time that the clock says."""
        if at is not None:
            self.set(at)
        line = [sys.executable, "-m", module, *map(str, arguments)]
        environment = {**self.environment(), **variables}
        return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False, env=environment)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "clock")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Fleet, Device]]:
    """A repository of START with release 2, and a device that runs release 1; the device is copied for each case."""
    place = tmp_path_factory.mktemp("clocks")
    directory = place / "repository"
    signed_at(directory, START)
    with serve(directory) as server:
        fleet = Fleet(directory, server.url)
        device = fleet.device(place / "home")
        device.update(clock=START.timestamp)
        publish(directory, make_bundle(2), now=START, deltas=0)
        yield fleet, device


def signed_at(directory: Path, moment: datetime) -> None:
    """Make a repository with release 1."""
    init_repository(directory, now=moment)
    add_family(directory, "demo", access=Access(now=moment))
    publish(directory, make_bundle(1), now=moment)


@pytest.fixture
def fleet(world: tuple[Fleet, Device]) -> Fleet:
    return world[0]


@pytest.fixture
def device(world: tuple[Fleet, Device], tmp_path: Path) -> Device:
    home = tmp_path / "home"
    shutil.copytree(world[1].home, home, symlinks=True)
    return Device(home)


def asked(device: Device, clock: Clock, *options: str, at: datetime | None = None, url: str = "", **variables: str):
    """Run ``seedcnn-device update``, and if there is a URL, from there from now on."""
    if url:
        config = device.home / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "url": url}))
    return clock.run("seedcnn.device.main", "--home", device.home, "update", *options, at=at, **variables)


def status(device: Device, clock: Clock) -> dict[str, object]:
    done = clock.run("seedcnn.device.main", "--home", device.home, "status", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def installs(done: subprocess.CompletedProcess[str], device: Device, release: int = 2) -> None:
    assert (done.returncode, done.stderr) == (0, "")
    assert f"release {release} is installed" in done.stdout
    assert device.release() == release


def refuses(done: subprocess.CompletedProcess[str], words: str) -> None:
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def clock_is_seen(clock: Clock, moment: datetime) -> None:
    """A clock that nobody sees would make every case here pass or fail for another reason."""
    clock.set(moment)
    line = [sys.executable, "-c", "import time; print(time.time(), time.monotonic())"]
    done = subprocess.run(line, capture_output=True, text=True, check=True, env=clock.environment())
    seconds, monotonic = map(float, done.stdout.split())
    assert 0 <= seconds - moment.timestamp() < 60
    assert 0 <= time.monotonic() - monotonic < 60


@pytest.mark.parametrize(
    "moment",
    few([START, START - DAY, datetime(2000, 1, 1, tzinfo=UTC), EPOCH, START + 2 * DAY], [3]),
    ids=["right", "a day behind", "2000", "1970", "two days ahead"],
)
def test_a_release_waits_and_the_clock_is_right_or_behind_or_a_little_ahead(device, clock, moment):
    clock_is_seen(clock, moment)
    installs(asked(device, clock, at=moment), device)
    assert status(device, clock)["clock"]["behind"] == (moment < START - DAY)
    done = asked(device, clock, at=START)
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing new" in done.stdout
    assert not status(device, clock)["clock"]["behind"]


@pytest.mark.parametrize(
    "moment",
    few([START + 4 * DAY, START + 200 * DAY, datetime(2038, 1, 20, tzinfo=UTC), Y2106], [0]),
    ids=["four days", "200 days", "2038", "2106"],
)
def test_a_clock_far_ahead_is_refused_and_does_no_harm(device, clock, moment):
    before = contents(device.home)
    refuses(asked(device, clock, at=moment), EXPIRED)
    assert contents(device.home) == before
    assert device.release() == 1
    assert status(device, clock)["active"]["release"] == 1
    installs(asked(device, clock, at=START), device)


@pytest.mark.slow
def test_1970_and_a_repository_that_froze(device, clock, fleet):
    """For 30 days nothing was signed: the right clock notices, and one in 1970 says that it cannot know."""
    installs(asked(device, clock, at=EPOCH), device)
    refuses(asked(device, clock, at=START + 30 * DAY), EXPIRED)
    done = asked(device, clock, at=EPOCH)
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing new" in done.stdout
    said = clock.run("seedcnn.device.main", "--home", device.home, "status")
    assert "so the age of the repository's metadata is unknown" in " ".join(said.stdout.split())


@pytest.mark.slow
def test_1970_and_a_repository_that_froze_before_the_software_was_released(tmp_path, clock):
    directory = tmp_path / "repository"
    signed_at(directory, datetime.fromtimestamp(BUILT, UTC) - 30 * DAY)
    with serve(directory) as server:
        device = Fleet(directory, server.url).device(tmp_path / "home")
        refuses(asked(device, clock, at=EPOCH), EXPIRED)
        publish(directory, make_bundle(2), now=START, clock_ok=True)
        installs(asked(device, clock, at=EPOCH), device)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [EPOCH, Y2106], ids=["1970", "2106"])
@pytest.mark.parametrize("suffix", ["root.json", "timestamp.json", "demo.rule.json", ".bundle"])
def test_a_jump_while_the_device_downloads(device, clock, fleet, suffix, moment):
    """The clock jumps when a file is asked for. The age of metadata is judged by one time, taken after the roots."""

    def jump(request: Request) -> None:
        clock.set(moment)
        request.serve()

    clock.set(START)
    with hostile(fleet.directory / "public", jump, suffix) as (server, url):
        done = asked(device, clock, url=url)
    assert server.spoiled
    if suffix == "root.json" and moment == Y2106:
        refuses(done, EXPIRED)
        assert device.release() == 1
        done = asked(device, clock, at=START, url=fleet.url)
    installs(done, device)
    assert device.states()[-1] == "COMMITTED"
    done = asked(device, clock, at=START, url=fleet.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing new" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "words"),
    [
        (START, ""),
        (EPOCH, "certificate is not yet valid"),
        (START - 2 * DAY, "certificate is not yet valid"),
        (START + 2 * DAY, "certificate has expired"),
    ],
    ids=["right", "1970", "two days behind", "two days ahead"],
)
def test_a_certificate_is_judged_by_the_devices_clock(device, clock, fleet, tmp_path, moment, words):
    certificate = write_certificate(tmp_path / "both.pem", START - DAY, START + DAY)

    def good(request: Request) -> None:
        request.serve()

    with hostile(fleet.directory / "public", good, ".bundle", server_context(certificate)) as (_, url):
        trusted = {"SSL_CERT_FILE": str(certificate)}
        done = asked(device, clock, url=url, at=moment, **trusted)
        if words:
            refuses(done, words)
            assert device.release() == 1
            done = asked(device, clock, url=url, at=START, **trusted)
    installs(done, device)


@pytest.fixture
def publisher(fleet: Fleet, tmp_path: Path) -> Path:
    directory = tmp_path / "publisher"
    shutil.copytree(fleet.directory, directory)
    (tmp_path / "3.bundle").write_bytes(make_bundle(3))
    return directory


@pytest.mark.parametrize(
    ("moment", "wrong"),
    few(
        [
            (START - HOUR, "before the last signing"),
            (EPOCH, "before the last signing"),
            (START + 8 * DAY, "more than 7 days after the last signing"),
            (START + 3650 * DAY, "more than 7 days after the last signing"),
        ],
        [2],
    ),
    ids=["an hour behind", "1970", "eight days ahead", "ten years ahead"],
)
def test_a_publisher_whose_clock_is_wrong_signs_nothing(publisher, clock, device, moment, wrong, tmp_path):
    before = {path: path.read_bytes() for path in publisher.rglob("*") if path.is_file()}
    line = ("seedcnn.cli", "repo", "publish", publisher, tmp_path / "3.bundle")
    done = clock.run(*line, at=moment)
    assert done.returncode == 1
    assert wrong in " ".join(done.stderr.split())
    assert {path: path.read_bytes() for path in publisher.rglob("*") if path.is_file()} == before
    done = clock.run(*line, at=START + DAY)
    assert done.returncode == 0, done.stderr
    with serve(publisher) as server:
        installs(asked(device, clock, url=server.url), device, 3)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [EPOCH, START + 3650 * DAY], ids=["1970", "ten years ahead"])
def test_a_publisher_whose_first_clock_was_wrong(clock, tmp_path, moment):
    """The first signing has nothing to compare with. The next one refuses, and --clock-ok renews what is wrong."""
    directory, bundle = tmp_path / "publisher", tmp_path / "1.bundle"
    bundle.write_bytes(make_bundle(1))
    # Each process starts at the time it is given, so a later one is given a later time.
    for number, line in enumerate(
        (["init", directory], ["add-family", directory, "demo"], ["publish", directory, bundle])
    ):
        done = clock.run("seedcnn.cli", "repo", *line, at=moment + number * HOUR)
        assert done.returncode == 0, done.stderr
    with serve(directory) as server:
        device = Fleet(directory, server.url).device(tmp_path / "home")
        if moment == EPOCH:
            refuses(asked(device, clock, at=START), EXPIRED)
        else:
            installs(asked(device, clock, at=START), device, 1)
        assert clock.run("seedcnn.cli", "repo", "refresh", directory, at=START).returncode == 1
        done = clock.run("seedcnn.cli", "repo", "refresh", directory, "--clock-ok", at=START)
        assert done.returncode == 0, done.stderr
        bundle.write_bytes(make_bundle(2))
        done = clock.run("seedcnn.cli", "repo", "publish", directory, bundle, at=START + HOUR)
        assert done.returncode == 0, done.stderr
        later = START + 3 * HOUR
        if moment > START:  # a device believes the rule's time of signing for as long as the timestamp has this key
            refuses(asked(device, clock, at=later), EXPIRED)
            done = clock.run("seedcnn.cli", "repo", "rotate", directory, "timestamp", at=START + 2 * HOUR)
            assert done.returncode == 0, done.stderr
        installs(asked(device, clock, at=later), device)
        for name in ("timestamp.json", "*.snapshot.json", "*.rule.json", "*.bundles.json", "*.targets.json"):
            path = max((directory / "public" / "metadata").glob(name), key=lambda path: path.stat().st_mtime_ns)
            expires = datetime.fromisoformat(json.loads(path.read_bytes())["signed"]["expires"])
            assert START < expires <= later + 180 * DAY, path.name
