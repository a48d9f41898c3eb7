"""A process with everything imported that forks a child per request, which is killed or refused at its N-th call.

Reads lines of JSON from stdin: {"place": DIR, "steps": [...], "fault": "kill", "ENOSPC", "EROFS", "EIO" or "", "at": N,
"lasting": whether the file system refuses all calls from the N-th on}. The child works on the home ``DIR/home``; every
call that touches a file below DIR counts. Writes a line: {"code": exit code or -signal, "calls": number counted or 0,
"said": [[step, result], ...]}.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import traceback
from pathlib import Path

import numpy as np

import seedcnn.device.health
import seedcnn.device.updater  # noqa: F401 - imported before the fork, so that the child starts at once
from seedcnn.device.agent import rollback, update
from seedcnn.device.live import LiveModel
from seedcnn.errors import SeedCNNError
from tests.device.fleet import IMAGES

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.symlink", "os.rmdir", "os.truncate", "os.link", "os.chmod"}
GROWS = {"os.rename", "os.mkdir", "os.symlink"}
LISTS = {"os.scandir", "os.listdir"}
BRIGHT = np.full_like(IMAGES, 255)


class Fault:
    """Counts calls that a fault can hit, and kills or refuses."""

    def __init__(self, place: str, fault: str, at: int, lasting: bool) -> None:
        self.place, self.fault, self.at, self.lasting, self.count = place, fault, at, lasting, 0

    def hits(self, event: str, arguments: tuple[object, ...]) -> bool:
        """Whether this kind of fault can come at this call."""
        if event == "open":
            return self.fault not in ("ENOSPC", "EROFS") or bool(int(str(arguments[2])) & WRITES)
        if event in LISTS:
            return self.fault == "EIO"
        return event in (GROWS if self.fault == "ENOSPC" else CHANGES)

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if event != "open" and event not in CHANGES and event not in LISTS:
            return
        named = [os.fsdecode(item) for item in arguments if isinstance(item, (str, bytes))]
        if not any(self.place in name for name in named) or not self.hits(event, arguments):
            return
        self.count += 1
        if self.count != self.at and not (self.lasting and self.count > self.at > 0):
            return
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        number = getattr(errno, self.fault)
        raise OSError(number, os.strerror(number), named[0])


class Child:
    """One device."""

    def __init__(self, place: Path) -> None:
        self.home, self.delivered = place / "home", place / "delivered"
        self.live: LiveModel | None = None

    def step(self, name: str) -> object:
        """Do one step and return its result."""
        if name == "update":
            return update(self.home, reports=self.delivered).message
        if name == "rollback":
            return rollback(self.home, reports=self.delivered)
        if name == "live":
            self.live = LiveModel(self.home)
            return self.live.model.bundle.manifest.release
        if name == "crash":
            os._exit(3)
        if self.live is None:
            return None  # it could not be opened
        if name in ("images", "bright"):
            found = self.live.predict(IMAGES if name == "images" else BRIGHT)
            return [
                self.live.model.bundle.manifest.release,
                found.indices.tolist(),
                found.probabilities.tobytes().hex(),
            ]
        return getattr(self.live, name)()  # reload, close


def child(request: dict, report: int) -> None:
    place = Path(request["place"])
    fault = Fault(str(place), request["fault"], request["at"], request["lasting"])
    device = Child(place)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - the process ends with it
    sys.addaudithook(fault)
    code = 0
    for name in request["steps"]:
        try:
            result = device.step(name)
        except SeedCNNError as error:
            result, code = f"{type(error).__name__}: {error}", 1
        except BaseException:
            result, code = "defect: " + traceback.format_exc(), 70
        os.write(report, (json.dumps([name, result]) + "\n").encode())
    os.write(report, f"{fault.count}\n".encode())
    os._exit(code)


def serve() -> None:
    while line := sys.stdin.readline():
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(reading)
                child(json.loads(line), writing)
            finally:
                os._exit(70)
        os.close(writing)
        with os.fdopen(reading) as file:
            lines = [json.loads(each) for each in file]
        _, status = os.waitpid(pid, 0)
        calls = lines.pop() if lines and isinstance(lines[-1], int) else 0
        answer = {"code": os.waitstatus_to_exitcode(status), "calls": calls, "said": lines}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
