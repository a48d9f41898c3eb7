"""Repositories that ask to wait, and checks that find nothing and so write nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from email.utils import formatdate

import pytest

from seedcnn.device.agent import update
from seedcnn.device.fetcher import DownloadLimits, retry_after
from seedcnn.device.main import main
from seedcnn.device.postponed import forget, postpone, postponed
from seedcnn.errors import PostponedError, UpdateError
from tests.device.fleet import Device, Fleet
from tests.device.hostile import Request, hostile

LIMITS = DownloadLimits(deadline=5.0)


def busy(request: Request) -> None:
    request.reply(b"", "503 Service Unavailable", "Retry-After: 3600")


@pytest.fixture
def busy_server(device: Device, fleet: Fleet):
    """The device's own repository, busy for an hour."""
    with hostile(fleet.directory / "public", busy, "timestamp.json") as (server, url):
        path = device.home / "config.json"
        path.write_text(path.read_text().replace(fleet.url, url))
        yield server


def test_a_server_that_asks_to_wait_is_not_asked_before(device, busy_server, fleet, capsys):
    with pytest.raises(
        PostponedError, match=r"put off: http://.*/timestamp.json .* asks to wait for 3600 s, which the"
    ):
        device.update(limits=LIMITS)
    asked = len(busy_server.requests)
    states = device.states()
    result = device.update(limits=LIMITS)
    assert (result.updated, result.release) == (False, 1)
    assert "nothing is asked before 20" in result.message
    assert main(["--home", str(device.home), "update"]) == 0
    assert capsys.readouterr().out.endswith("wants it so; --now asks at once\n")
    assert len(busy_server.requests) == asked
    assert device.states() == states

    assert main(["--home", str(device.home), "status", "--verbose"]) == 0
    assert "waiting    until 20" in capsys.readouterr().out
    assert main(["--home", str(device.home), "update", "--now"]) == 1
    assert len(busy_server.requests) > asked

    later = time.time() + 3700
    with pytest.raises(PostponedError):
        update(device.home, limits=LIMITS, clock=lambda: later)
    # The clock has jumped back by more than a day: no server can have asked for that long.
    with pytest.raises(PostponedError):
        update(device.home, limits=LIMITS, clock=lambda: later - 10 * 86400)
    # Another repository has not asked to wait, and what it says ends the wait.
    fleet.publish(2)
    assert device.update(fleet.url).release == 2
    assert postponed(device.home, time.time()) is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'{"format": "seedcnn-postponed/2"}',
        b'{"format": "seedcnn-postponed/1", "url": "u", "until": "soon", "reason": ""}',
        b'{"format": "seedcnn-postponed/1", "url": "u", "until": 1e400, "reason": ""}',
        b'{"format": "seedcnn-postponed/1", "url": "u", "until": 99999999999999, "reason": ""}',
    ],
)
def test_a_damaged_postponement_postpones_nothing(tmp_path, text):
    (tmp_path / "postponed.json").write_bytes(text)
    assert postponed(tmp_path, 1000.0) is None


def test_a_postponement_ends(tmp_path):
    postpone(tmp_path, "u", 1e16, "why", 1000.0)
    assert postponed(tmp_path, 1000.0, "u").until == 1000 + 86400
    assert postponed(tmp_path, 1000.0, "v") is None
    assert postponed(tmp_path, 1000.0 + 86400) is None
    assert postponed(tmp_path, 900.0) is None
    forget(tmp_path)
    assert postponed(tmp_path, 1000.0) is None


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": " 0 "}, 0.0),
        ({"Retry-After": formatdate(1060, usegmt=True)}, 60.0),
        ({"Retry-After": formatdate(500, usegmt=True)}, 0.0),
        ({"Retry-After": formatdate(60, usegmt=True), "Date": formatdate(0, usegmt=True)}, 60.0),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "1.5"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "٣"}, None),
        ({"Retry-After": "Mon, 99 Foo 2020 00:00:00 GMT"}, None),
        ({"Retry-After": "9" * 4000}, 9999999999999999.0),
    ],
)
def test_retry_after(fields, seconds):
    assert retry_after(fields, 1000.0) == seconds


class Counting:
    """Counts the calls below a home that change a file or a name or flush a directory; a flush opens it first."""

    NAMES = ("os.rename", "os.remove", "os.symlink", "os.rmdir", "os.truncate", "os.link")
    WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_DIRECTORY

    def __init__(self) -> None:
        self.home, self.calls = "", []
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.home or self.home not in str(arguments):
            return
        if event in self.NAMES or (event == "open" and int(str(arguments[2])) & self.WRITING):
            self.calls.append((event, str(arguments[0]).removeprefix(self.home)))


@pytest.fixture(scope="module")
def counting():
    found = Counting()
    yield found
    found.home = ""


def snapshot(home) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_ino, path.lstat().st_mtime_ns) for path in home.rglob("*")}


def test_a_check_that_finds_nothing_writes_nothing(device, counting):
    before = snapshot(device.home)
    counting.home = str(device.home)
    assert not device.update().updated
    counting.home = ""
    assert counting.calls == [("open", "/lock")]  # which is empty
    assert snapshot(device.home) == before


def test_a_check_that_finds_nothing_flushes_and_renames_nothing(device):
    if (strace := shutil.which("strace")) is None:
        pytest.skip("strace is not installed")
    calls = "fsync,fdatasync,sync_file_range,rename,renameat,renameat2,unlink,unlinkat,symlink,symlinkat,link,linkat"
    line = [sys.executable, "-m", "seedcnn.device.main", "--home", str(device.home), "update"]
    log = device.home.with_name("calls")
    traced = [strace, "-f", "-qq", "-o", str(log), "-e", f"trace={calls}", *line]
    done = subprocess.run(traced, capture_output=True, text=True, timeout=120, check=False)
    if "ptrace" in done.stderr:
        pytest.skip(f"processes cannot be traced here: {done.stderr}")
    assert done.stdout == "nothing new: release 1 is installed\n"
    assert [each for each in log.read_text().splitlines() if "exited" not in each] == []


def test_the_same_refusal_again_writes_nothing(device):
    before = None
    for _ in range(3):
        with pytest.raises(UpdateError, match="cannot be reached"):
            device.update("http://127.0.0.1:1", DownloadLimits(connects=1))
        assert before in (None, snapshot(device.home))
        before = snapshot(device.home)
    assert device.states()[-2:] == ["CHECK", "REFUSED"]
    assert device.states().count("REFUSED") == 1
    # A day later it is written again, and takes the place of the first.
    path = device.home / "journal.json"
    journal = json.loads(path.read_bytes())
    journal["entries"][-1]["time"] -= 90000
    path.write_text(json.dumps(journal))
    with pytest.raises(UpdateError):
        device.update("http://127.0.0.1:1", DownloadLimits(connects=1))
    assert device.states().count("REFUSED") == 1
    assert device.slots.journal.last().time > time.time() - 100
