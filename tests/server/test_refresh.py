"""``refresh`` again and again: a line each time, on after errors, a clean end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest

from seedcnn.server.lock import exclusive
from seedcnn.server.refresh import refresh_forever
from seedcnn.server.repository import init_repository

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def test_it_goes_on_after_an_error_and_ends_when_told(tmp_path):
    init_repository(tmp_path, now=NOW)
    key = tmp_path / "keys" / "timestamp.pem"
    stop, said, hours = threading.Event(), [], iter((6, 12, 18))

    def clock():
        return NOW + timedelta(hours=next(hours))

    def say(line):
        said.append(line)
        if len(said) == 1:
            key.rename(tmp_path / "away.pem")
        elif len(said) == 2:
            (tmp_path / "away.pem").rename(key)
        else:
            stop.set()

    tiny = timedelta(milliseconds=1)
    refresh_forever(tmp_path, tiny, stop, say, clock=clock)
    assert said == [
        "2026-01-01 18:00:00 signed anew: timestamp",
        "2026-01-02 00:00:00 not signed, trying again: timestamp needs 1 of its keys; 0 at hand",
        "2026-01-02 06:00:00 signed anew: timestamp",
    ]


def test_a_failure_is_tried_again_soon(tmp_path):
    """With an interval of days, what failed once is done within the shorter interval."""
    init_repository(tmp_path)
    stop, said = threading.Event(), []

    def say(line):
        said.append(line)
        if "signed anew" in line:
            stop.set()

    lock = exclusive(tmp_path)
    lock.__enter__()
    running = threading.Thread(
        target=refresh_forever,
        args=(tmp_path, timedelta(days=1), stop, say),
        kwargs={"soon": timedelta(seconds=0.05)},
    )
    running.start()
    while not said:
        stop.wait(0.01)
    lock.__exit__(None, None, None)
    running.join(timeout=20)
    assert not running.is_alive()
    assert "not signed, trying again: " in said[0]
    assert "another process is publishing there" in said[0]
    assert said[-1].endswith("signed anew: timestamp")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_the_real_command_cleanly(tmp_path, number):
    init_repository(tmp_path / "r")
    process = subprocess.Popen(
        [sys.executable, "-m", "seedcnn.cli", "repo", "refresh", str(tmp_path / "r"), "--every", "6h"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    with process:
        assert "signed anew: timestamp" in process.stdout.readline()
        process.send_signal(number)
        try:
            assert (process.wait(timeout=20), process.stderr.read()) == (0, "")
        finally:
            process.kill()
