"""The demo of a fleet runs from end to end: with few devices quickly, and as ``make fleet-demo`` runs it."""

from __future__ import annotations

import importlib.util
import json
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
FAULTS = {"bad link": "", "no clock": "", "full disk": "2: space", "crash loop": "2: crash-loop"}


@pytest.fixture
def parts():
    spec = importlib.util.spec_from_file_location("fleet_parts", EXAMPLES / "fleet_parts.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["fleet_parts"] = module  # where its dataclasses look for their names
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules["fleet_parts"]


@pytest.mark.parametrize(
    ("devices", "options"),
    [(6, ["--every", "1", "--soak", "2"]), pytest.param(20, [], marks=pytest.mark.slow)],
    ids=["few", "all"],
)
def test_fleet_demo_end_to_end(devices, options, tmp_path):
    out = tmp_path / "fleet"
    command = [sys.executable, EXAMPLES / "fleet_demo.py", "--out", out, "--devices", str(devices), *options]
    done = subprocess.run(list(map(str, command)), text=True, capture_output=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 100
    record = json.loads((out / "fleet-demo.json").read_text())
    stop, back = record["figures"]["stop of release 3"], record["figures"]["revert of release 4"]
    assert stop["bundles fetched by the way back"] == back["bundles fetched by the way back"] == 0
    assert back["devices that had committed it"] == devices
    assert f"{back['seconds from revert to 95 % on release 2']:.1f} s; bundle bytes: 0" in done.stdout
    assert back["seconds from revert to 95 % on release 2"] > 0
    ran_bad = 0
    for name, kind, ran, now, failures in record["table"]:
        assert now == "committed 2"
        if kind == "ordinary":
            ran_bad += " 3 " in ran
            assert ran in ("1 2 4 2", "1 2 3 2 4 2")
        else:
            assert failures == FAULTS[kind]
            assert ran == ("1 2 1 2 4 2" if kind == "crash loop" else "1 2 4 2")
        assert re.search(rf"^{name} +{kind} ", done.stdout, re.MULTILINE)
    assert ran_bad == stop["devices that ran it"] >= stop["that took it back by themselves"] >= 1


def test_a_directory_that_the_demo_has_not_made_stays(tmp_path):
    (tmp_path / "photo").write_text("dear")
    command = [sys.executable, str(EXAMPLES / "fleet_demo.py"), "--out", str(tmp_path)]
    done = subprocess.run(command, text=True, capture_output=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == f"fleet demo: {tmp_path} exists, and this demo has not made it; remove it, or give --out\n"
    assert (tmp_path / "photo").read_text() == "dear"


@pytest.mark.parametrize(("most", "arrives"), [(1000, 1000), (10_000, 5000)])
def test_bad_link_breaks_off(parts, most, arrives):
    with socket.create_server(("127.0.0.1", 0)) as server:
        link = parts.BadLink(server.getsockname()[1], most)
        link.start()
        address, port = link.url.removeprefix("http://").split(":")

        def answer():
            with server.accept()[0] as sock, suppress(OSError):
                sock.sendall(sock.recv(100) * 1000)

        threading.Thread(target=answer, daemon=True).start()
        with socket.create_connection((address, int(port)), timeout=30) as sock:
            sock.sendall(b"hello")
            got = b""
            with suppress(ConnectionResetError):
                while data := sock.recv(4096):
                    got += data
        assert got == b"hello" * (arrives // 5)
        link.close()
        link.join(10)
        assert link.broken == (most < 5000)
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((address, int(port)), timeout=5)


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_processes_end_with_the_one_that_began_them_even_if_it_is_killed(parts, tmp_path):
    code = (
        f"import sys, time; sys.path.insert(0, {str(EXAMPLES)!r}); import fleet_parts\n"
        "sleep = 'import time; print(1, flush=True); time.sleep(600)'\n"
        "began = fleet_parts.begin('-c', sleep, stdout=-1, stderr=None)\n"
        "began.stdout.readline(); print(began.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        assert runs(pid)
        parent.kill()
    until = time.monotonic() + 30
    while runs(pid):
        assert time.monotonic() < until, f"process {pid} still runs"
        time.sleep(0.05)
