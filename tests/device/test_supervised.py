"""``seedcnn-device run`` under a supervisor: the messages of sd_notify(3) over a real datagram socket."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from seedcnn.device.supervisor import Supervisor
from tests.device.fleet import Device, Fleet
from tests.device.running import Running, named

PERIOD = "1000000"  # microseconds of the watchdog


class Listener:
    """What systemd is to a service: a datagram socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(f"\0{address[1:]}" if address[0] == "@" else address)

    def heard(self, seconds: float) -> list[str]:
        """Every message that comes within this time."""
        messages, end = [], time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.sock.settimeout(left)
            try:
                messages += [self.sock.recv(4096).decode()]
            except TimeoutError:
                break
        return messages

    def wait_for(self, begin: str, seconds: float = 20.0) -> list[str]:
        """Every message up to one that begins like this."""
        messages: list[str] = []
        self.sock.settimeout(seconds)
        while not messages or not messages[-1].startswith(begin):
            messages += [self.sock.recv(4096).decode()]
        return messages


@pytest.fixture(params=["@", pytest.param("path", marks=pytest.mark.slow)])
def listener(request, tmp_path: Path) -> Iterator[Listener]:
    abstract = f"@seedcnn-test-{secrets.token_hex(8)}"
    found = Listener(abstract if request.param == "@" else str(tmp_path / "notify"))
    yield found
    found.sock.close()


@pytest.fixture
def early(fleet: Fleet, tmp_path: Path) -> Device:
    """A device without a release, which asks at once after its start and then an hour later."""
    fleet.publish(1)
    return fleet.device(tmp_path / "home", device_id=named(3600, 0, 0.003))


def test_the_supervisor_hears_of_everything(early, listener, tmp_path):
    script = tmp_path / "ready"
    script.write_text("#!/bin/sh\nsleep 2\nenv > $0.env\n")
    script.chmod(0o755)
    environment = {"NOTIFY_SOCKET": listener.address, "WATCHDOG_USEC": PERIOD}
    with Running(early.home, "--every", "1h", "--ready", script, **environment) as running:
        messages = listener.wait_for("STATUS=")
        assert messages[0] == "READY=1"
        # An update that takes longer than the period of the watchdog lives.
        assert messages[1:-1] == ["WATCHDOG=1"] * len(messages[1:-1])
        assert len(messages) >= 5
        assert messages[-1].startswith("STATUS=20")
        assert messages[-1].endswith(" UTC release 1 is installed in slot a (before: none)")
        assert listener.heard(1.3)[:2] == ["WATCHDOG=1", "WATCHDOG=1"]  # asleep
        running.end()
        assert listener.wait_for("STOPPING=1", 1)[-1] == "STOPPING=1"
        assert listener.heard(0.7) == []
    variables = Path(f"{script}.env").read_text()
    assert "PATH=" in variables
    assert "NOTIFY_SOCKET" not in variables
    assert "WATCHDOG" not in variables


def test_an_update_that_hangs_is_not_covered_up(early, tmp_path):
    listener = Listener(str(tmp_path / "notify"))
    environment = {"NOTIFY_SOCKET": listener.address, "WATCHDOG_USEC": "200000"}
    with Running(early.home, 3600, "sleep 30", script="allowed=1.0", **environment) as running:
        assert listener.wait_for("READY")[-1] == "READY=1"
        running.warns("the work has not ended in its time, so the watchdog is not fed any more")
        assert "WATCHDOG=1" in listener.heard(0.2)  # those from before
        assert listener.heard(1.0) == []
        assert running.end() < 2
        assert listener.heard(0.2) == ["STOPPING=1"]
        assert len(running.err) == 1
    listener.sock.close()


def test_nothing_happens_without_a_supervisor(early):
    with Running(early.home, "--every", "1h", WATCHDOG_USEC="100000") as running:
        running.says("release 1 is installed")
        running.end()
        assert (len(running.out), running.err) == (1, [])


def variables(**given: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "20000", **given}


def test_a_watchdog_of_another_process_is_not_fed(tmp_path):
    listener = Listener(str(tmp_path / "notify"))
    for pid, fed in ((os.getppid(), False), (os.getpid(), True)):
        given = variables(NOTIFY_SOCKET=listener.address, WATCHDOG_PID=str(pid))
        supervisor = Supervisor.from_environment(given)
        assert given == {}
        supervisor.start(10.0)
        heard = listener.heard(0.2)
        supervisor.close()
        assert heard[0] == "READY=1"
        assert ("WATCHDOG=1" in heard) == fed
        listener.heard(0.1)
    listener.sock.close()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "READY=1 could not be sent to the supervisor: No such file or directory"),
        ({"NOTIFY_SOCKET": "vsock:2:1"}, "NOTIFY_SOCKET (='vsock:2:1') is ignored: it must be an absolute path or"),
        ({"NOTIFY_SOCKET": "/" + "x" * 200}, "READY=1 could not be sent to the supervisor: AF_UNIX path too long"),
        ({"WATCHDOG_USEC": "soon"}, "WATCHDOG_USEC (='soon') is ignored: it must be a whole number of microseconds"),
        ({"WATCHDOG_USEC": "-1"}, "WATCHDOG_USEC (='-1') is ignored"),
    ],
)
def test_a_supervisor_that_cannot_be_reached_is_logged_once(given, says, caplog):
    supervisor = Supervisor.from_environment(variables(**given))
    supervisor.start(10.0)
    supervisor.status("a\nb")
    supervisor.close()
    assert sum(says in message for message in caplog.messages) == 1


def test_a_status_is_one_line(tmp_path):
    listener = Listener(str(tmp_path / "notify"))
    Supervisor(listener.address).status("a\nREADY=1\x1b[31m" + "x" * 1000)
    (message,) = listener.heard(0.1)
    assert message.startswith("STATUS=a\\nREADY=1\\x1b[31mxxx")
    assert len(message) == 407
    listener.sock.close()
