"""``seedcnn-device run`` as a real process, with its lines as they come."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from seedcnn.device.schedule import Schedule

# For what the command has no option for.
SCRIPT = """
import sys
from datetime import timedelta
from seedcnn.device.service import Request, run_forever
run_forever(sys.argv[1], timedelta(seconds=float(sys.argv[2])), Request(ready=sys.argv[3]), {options})
"""


def named(every: str | int, low: float, high: float) -> str:
    """A device's name whose phase is between two fractions of an interval in seconds."""
    for number in range(10_000):
        schedule = Schedule.of(f"camera-{number}", timedelta(seconds=int(every)))
        if low <= schedule.phase / schedule.every < high:
            return f"camera-{number}"
    raise AssertionError("no name")


def until(condition: Callable[[], bool], seconds: float = 30.0) -> float:
    """Wait until something is so, and return how long it took."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < seconds
        time.sleep(0.01)
    return time.monotonic() - begin


class Running:
    """The service in a process of its own; it is killed at the end of the block."""

    def __init__(self, home: Path, *arguments: object, script: str = "", **environment: str) -> None:
        line: list[object] = [sys.executable, "-c", SCRIPT.format(options=script), home, *arguments]
        if not script:
            line = [sys.executable, "-m", "seedcnn.device.main", "--home", home, "run", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(list(map(str, line)), env={**os.environ, **environment}, **pipes)
        self.out: list[str] = []
        self.err: list[str] = []
        pairs = ((self.process.stdout, self.out), (self.process.stderr, self.err))
        self.readers = [threading.Thread(target=self.read, args=pair) for pair in pairs]
        for reader in self.readers:
            reader.start()

    @staticmethod
    def read(pipe, lines: list[str]) -> None:
        for line in pipe:
            lines += [line.rstrip("\n")]

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for reader in self.readers:
            reader.join()
        self.process.stdout.close()
        self.process.stderr.close()

    def says(self, words: str) -> float:
        """Wait for a line on stdout with these words, and return how long that took."""
        return until(lambda: any(words in line for line in self.out) or self.ended("stdout has", words, self.out))

    def warns(self, words: str) -> float:
        """Wait for a line on stderr with these words, and return how long that took."""
        return until(lambda: any(words in line for line in self.err) or self.ended("stderr has", words, self.err))

    def ended(self, *words: object) -> bool:
        assert self.process.poll() is None, (*words, self.err)
        return False

    def end(self, number: int = signal.SIGTERM) -> float:
        """Send a signal, wait for exit status 0, and return how long that took."""
        self.process.send_signal(number)
        begin = time.monotonic()
        assert self.process.wait(timeout=20) == 0
        for reader in self.readers:
            reader.join()
        return time.monotonic() - begin
