"""A process with everything imported that forks one device update per request, so that it can be killed at any instant.

Reads lines of JSON from stdin: {"home": DIR, "kill_at": N or 0, "options": [...]}. Forks a child that runs the update
command; with N > 0 the child kills itself with SIGKILL just before its N-th system call that touches a file under the
home. Writes the child's process id when it starts; after one more line it waits for the child's end and writes
{"code": exit code or -signal, "calls": number counted}. Until then the id stays the child's own, so that it is safe to
kill.
"""

from __future__ import annotations

import json
import os
import signal
import sys

import seedcnn.device.health
import seedcnn.device.runtime
import seedcnn.device.updater  # noqa: F401 - imported before the fork, so that the child starts at once
from seedcnn.device.main import main

# Every audited call by which a file or a name can change.
CALLS = {"open", "os.rename", "os.remove", "os.mkdir", "os.symlink", "os.rmdir", "os.truncate", "os.link"}


def child(home: str, kill_at: int, options: list[str], report: int) -> None:
    count = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event in CALLS and any(isinstance(item, (str, bytes)) and home in os.fsdecode(item) for item in arguments):
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - the process ends with it
    code = main(["--home", home, "update", *options])
    os.write(report, str(count).encode())
    os._exit(code)


while line := sys.stdin.readline():
    request = json.loads(line)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            child(request["home"], request["kill_at"], request["options"], writing)
        finally:
            os._exit(70)
    os.close(writing)
    print(pid, flush=True)
    sys.stdin.readline()
    _, status = os.waitpid(pid, 0)
    calls = os.read(reading, 100)
    os.close(reading)
    print(json.dumps({"code": os.waitstatus_to_exitcode(status), "calls": int(calls or b"0")}), flush=True)
