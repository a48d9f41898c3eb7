"""The parts of ``fleet_demo.py``: devices as pairs of real processes, a static server, and a link that breaks off."""

from __future__ import annotations

import os
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from seedcnn.bundle.report import ENDS, FAILURES
from seedcnn.device.agent import init
from seedcnn.device.bad import bad_files, forget_bad
from seedcnn.device.journal import Entry
from seedcnn.device.slots import Slots
from seedcnn.errors import DeviceError

DEVICE = Path(__file__).resolve().with_name("fleet_device.py")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
FULL = 28 << 10  # bytes: a file of a full disk cannot be longer; metadata and journal can, but no bundle
_AGAIN = 0.5  # seconds until an application that ended is started anew
_PATIENCE = 10.0  # seconds that a process may take to end


def begin(*command: str, stdout: IO[bytes] | int | None = None, stderr: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start Python with arguments, as a process that ends with this one, even if this one is killed."""
    # 1 is PR_SET_PDEATHSIG, 15 is SIGTERM.
    tied = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); os.execv(sys.argv[1], sys.argv[1:])"
    line = [sys.executable, "-S", "-c", tied, sys.executable, *command]
    return subprocess.Popen(line, stdout=stdout, stderr=stderr, env=ENVIRONMENT)


class BadLink(threading.Thread):
    """A TCP proxy to a port of this machine that breaks every connection after ``most`` bytes of answers."""

    def __init__(self, port: int, most: int) -> None:
        super().__init__(daemon=True)
        self.most, self.broken, self._port = most, 0, port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def run(self) -> None:
        """Carry connections until :meth:`close`."""
        with suppress(OSError):
            while True:
                threading.Thread(target=self._carry, args=(self._listener.accept()[0],), daemon=True).start()

    def _carry(self, device: socket.socket) -> None:
        left = self.most
        with device, suppress(OSError), socket.create_connection(("127.0.0.1", self._port)) as server:
            while left > 0:
                for sock in select.select([device, server], [], [])[0]:
                    data = sock.recv(min(4096, left) if sock is server else 4096)
                    if not data:
                        return
                    (device if sock is server else server).sendall(data)
                    left -= len(data) if sock is server else 0
            self.broken += 1

    def close(self) -> None:
        """Take no more connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class Server:
    """``seedcnn repo serve`` in a process of its own, and its access log."""

    def __init__(self, fleet: Path, log: Path) -> None:
        command = ["-u", "-m", "seedcnn.cli", "repo", "serve", str(fleet), "--port", "0", "--access-log"]
        self._log = log
        with log.open("wb") as errors:
            self.process = begin(*command, stdout=subprocess.PIPE, stderr=errors)
        assert self.process.stdout is not None
        said = self.process.stdout.readline().decode().strip()
        found = re.search(r"http://\S+:(\d+)$", said)
        if found is None:
            raise SystemExit(f"fleet demo: the server did not start; it said {said!r}: {log.read_text()}")
        self.url, self.port = found[0], int(found[1])

    def requests(self, release: int | None = None) -> int:
        """Count the requests for bundles and deltas of a release, or of all, that it has answered."""
        number = r"\d+" if release is None else str(release)
        text = self._log.read_text(errors="replace")
        return len(re.findall(rf'"GET /targets/\S+\.{number}\.(?:bundle|from-\d+\.delta) ', text))


@dataclass
class Device:
    """A device: a home, a process that updates it and a process that answers.

    Attributes:
        kind: ordinary, or what is wrong with it.
        answers: of each release, how many were right, wrong, and bad.
        changes: (time, release) of the first answer of each release after another one.
        crashes: of the application by SIGSEGV.
    """

    name: str
    kind: str
    place: Path
    every: int
    crash_with: int = 0
    answers: dict[int, dict[str, int]] = field(default_factory=dict)
    changes: list[tuple[float, int]] = field(default_factory=list)
    crashes: int = 0
    _updater: subprocess.Popen[bytes] | None = None
    _application: subprocess.Popen[bytes] | None = None
    _again: float = 0.0
    _read: int = 0
    _steps: dict[int, Entry] = field(default_factory=dict)
    _changed: int = 0

    @property
    def home(self) -> Path:
        """The device's home."""
        return self.place / "home"

    @property
    def release(self) -> int:
        """The release of its newest answer; 0 before the first one."""
        return self.changes[-1][1] if self.changes else 0

    def journal(self) -> tuple[Entry, ...]:
        """Return its journal, oldest first."""
        return tuple(self._steps[number] for number in sorted(self._steps))

    def _remember(self) -> None:
        """Read the journal, which forgets old steps, if it has changed."""
        slots = Slots(self.home)
        try:
            changed = (self.home / "journal.json").stat().st_mtime_ns
        except FileNotFoundError:
            return
        if changed != self._changed:
            self._changed = changed
            self._steps |= {step.number: step for step in slots.journal.entries()}

    @property
    def is_settled(self) -> bool:
        """Whether the newest step of its journal is an end, or a hold."""
        self._remember()
        return bool(self._steps) and self.journal()[-1].state in (*ENDS, "HOLD")

    def failures(self) -> list[Entry]:
        """Return the refusals and the ways back, oldest first."""
        return [each for each in self.journal() if each.state in FAILURES and each.code != "known"]

    def ends(self, release: int) -> list[Entry]:
        """Return the ends that a release came to here, oldest first. One that is not tried again is none."""
        ended = [each for each in self.journal() if each.state in ENDS and each.code != "known"]
        return [each for each in ended if (each.taken or each.release) == release]

    def has_run(self, release: int) -> bool:
        """Return whether it has switched to a release."""
        return any(each.state == "SWITCH" and each.release == release for each in self.journal())

    def start(self, root: Path, url: str, family: str, reports: Path) -> None:
        """Prepare the home and start to update it."""
        self.place.mkdir()
        init(self.home, root, url, family, device_id=self.name)
        if self.kind == "no clock":
            command = [str(DEVICE), str(self.home), "--every", str(self.every)]
        else:
            command = ["-m", "seedcnn.device.main", "--home", str(self.home), "run", "--every", f"{self.every}s"]
        self._updater = self._run("update", *command, "--reports", str(reports))

    def _run(self, log: str, *command: str) -> subprocess.Popen[bytes]:
        with (self.place / f"{log}.log").open("ab") as out, (self.place / f"{log}.err").open("ab") as errors:
            return begin(*command, stdout=out, stderr=errors)

    def fill_disk(self, *, full: bool) -> None:
        """Forbid its updates to write long files, or allow it again."""
        assert self._updater is not None
        hard = resource.prlimit(self._updater.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(self._updater.pid, resource.RLIMIT_FSIZE, (FULL if full else hard, hard))

    def tend(self, pictures: Path) -> None:
        """Start the application if it does not run, as a service manager would, and read what it has answered."""
        self._listen()
        self._remember()
        if self._updater is not None and self._updater.poll() is not None:
            raise SystemExit(f"fleet demo: the updates of {self.name} ended: {(self.place / 'update.err').read_text()}")
        if self._application is not None and self._application.poll() is not None:
            self.crashes += self._application.returncode == -signal.SIGSEGV
            self._application, self._again = None, time.monotonic() + _AGAIN
        if self._application is None and time.monotonic() >= self._again and (self.home / "current").exists():
            options = ["--pictures", str(pictures), "--crash-with", str(self.crash_with)]
            self._application = self._run("answer", str(DEVICE), str(self.home), *options)

    def _listen(self) -> None:
        path = self.place / "answer.log"
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.decode().splitlines():
            moment, release, verdict = line.split()
            if int(release) != self.release:
                self.changes.append((float(moment), int(release)))
            counts = self.answers.setdefault(int(release), {"right": 0, "wrong": 0, "bad": 0})
            counts[verdict] += 1

    def mend(self) -> None:
        """Put an application in place that no release brings down."""
        self.crash_with = 0
        if self._application is not None:
            self._application.terminate()

    def forget_bad(self) -> None:
        """Let its updates try every file again that has failed here, as ``seedcnn-device forget-bad`` does."""
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                with Slots(self.home).lock():
                    for each in bad_files(self.home):
                        forget_bad(self.home, each.sha256)
                return
            except DeviceError:  # an update is running
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)

    @property
    def processes(self) -> list[subprocess.Popen[bytes]]:
        """Its processes that were started and not replaced."""
        return [each for each in (self._updater, self._application) if each is not None]


def end_all(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """End processes, and wait until they are gone."""
    processes = list(processes)
    for each in processes:
        each.terminate()
    for each in processes:
        try:
            each.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            each.kill()
            each.wait()


def megabytes(processes: Iterable[subprocess.Popen[bytes]]) -> float:
    """Return the memory of processes, with each page that several share counted once."""
    total = 0
    for each in processes:
        with suppress(OSError):
            text = Path(f"/proc/{each.pid}/smaps_rollup").read_text()
            total += int(re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)[1])  # type: ignore[index]
    return total / 1e3
