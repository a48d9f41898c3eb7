"""Runs commands on copies of a repository, each in a child that is killed, or finds the disk full, at its N-th call.

Arguments: a place that holds a repository as ``r`` and whatever a command needs; "kill" or "full"; the command's name;
the first N and the step. Prints a JSON list: for each N what a fresh client and one that has seen the start are offered
after the interruption, what the repeated command said, and what clients are offered then; and both times what is
remembered of a rollout.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from tuf.api.exceptions import RepositoryError as TufRepositoryError

from seedcnn.errors import RepositoryError
from seedcnn.server.ceremony import import_todo
from seedcnn.server.families import add_family, revoke, rotate
from seedcnn.server.refresh import refresh
from seedcnn.server.repository import prune, publish
from seedcnn.server.rollouts import Plan, advance, dial, pause, resume, revert, start, status
from seedcnn.server.verify import verify
from tests.server.client import Client

KILLED = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod"}  # by which a file or a name can change
SALT = "0123456789abcdef" * 2
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def commands(place: Path) -> dict[str, Callable[[], object]]:
    directory = place / "r"
    return {
        "publish": lambda: publish(directory, place / "2.bundle"),
        "hold": lambda: publish(directory, place / "2.bundle", hold=True),
        "add-family": lambda: add_family(directory, "other"),
        "timestamp": lambda: rotate(directory, "timestamp"),
        "snapshot": lambda: rotate(directory, "snapshot"),
        "rule": lambda: rotate(directory, "demo.rule"),
        "revoke": lambda: revoke(directory, (place / "keyid").read_text(), replace_with=place / "new.pem"),
        "import": lambda: import_todo(directory, place / "todo.json"),
        "prune": lambda: prune(directory, keep=1),
        "refresh": lambda: refresh(directory),
        "start": lambda: start(directory, "demo", 2, Plan((10, 50, 1000), 3600, 86400, 20), salt=SALT),
        "dial": lambda: dial(directory, "demo", 50),
        "pause": lambda: pause(directory, "demo"),
        "resume": lambda: resume(directory, "demo"),
        "revert": lambda: revert(directory, "demo"),
        "advance": lambda: advance(directory, "demo", place / "reports"),
    }


def remembered(directory: Path) -> list[object]:
    """What the server says about the rollout, and the dial of the rule in force."""
    try:
        found = status(directory, "demo")
    except RepositoryError:
        return []
    return [found.rollout.state, found.rollout.serial, found.rule.serial, found.rule.per_mille]


def hooked(how: str, number: int) -> Callable[[str, tuple[object, ...]], None]:
    count = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if how == "kill":
            if event in KILLED:
                count += 1
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)
            return
        takes_room = event == "os.mkdir" or (event == "open" and bool(int(str(arguments[2])) & WRITES))
        if takes_room and not str(arguments[0]).endswith("/lock"):
            count += 1
            if count >= number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))

    return hook


def interrupt(place: Path, how: str, name: str, number: int) -> str:
    """Run a command in a child; return "done", "killed", or its sentence."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        said = "defect"
        try:
            sys.addaudithook(hooked(how, number))
            commands(place)[name]()
            said = "done"
        except RepositoryError as error:
            said = str(error)
        finally:
            os.write(writing, said.encode())
            os._exit(0)
    os.close(writing)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with os.fdopen(reading, "rb") as file:
        said = file.read().decode()
    return "killed" if code == -signal.SIGKILL else said


def offered(client: Client) -> int | str:
    try:
        return client.release()
    except TufRepositoryError as error:
        return type(error).__name__


def main(start: Path, how: str, name: str, first: int, step: int) -> list[dict[str, object]]:
    found = []
    root = (start / "r" / "root.json").read_bytes()
    number = first
    while True:
        place = start.with_name(f"{start.name}-{how}-{name}-{number}")
        shutil.copytree(start, place, symlinks=True)
        said = interrupt(place, how, name, number)
        clients = [Client(place / "r", place / "home", root), Client(place / "r", place / "fresh", root)]
        row: dict[str, object] = {"number": number, "said": said, "between": [offered(each) for each in clients]}
        row["remembered"] = [remembered(place / "r")]
        try:
            commands(place)[name]()
            row["again"] = "done"
        except RepositoryError as error:
            row["again"] = str(error)
            refresh(place / "r")  # which tidies up after a command that was complete
        row["remembered"].append(remembered(place / "r"))  # type: ignore[attr-defined]
        row["after"] = [offered(each) for each in clients]
        row["problems"] = verify(place / "r")
        row["new"] = sorted(path.name for path in (place / "r" / "keys").glob("*.new.pem"))
        found.append(row)
        shutil.rmtree(place)
        if said == "done":
            return found
        number += step


if __name__ == "__main__":
    result = main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    sys.stdout.write(json.dumps(result))
