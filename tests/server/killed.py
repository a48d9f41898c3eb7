"""Makes a repository in a forked child that kills itself before its N-th call that changes a file or a name.

Arguments: a directory, and "offline" for keys on a stick. For N = 1, 2, ... DIRECTORY/(N - 1) is what the kill before
the N-th call leaves; the last one, whose number is printed, is whole. Each DIRECTORY/twice-K was killed, repeated and
killed again.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from seedcnn.errors import RepositoryError
from seedcnn.server.repository import init_repository

# Every audited call by which a file or a name can change.
CALLS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod"}


OFFLINE = "offline" in sys.argv[2:]


def init(directory: Path) -> None:
    """The command that is killed."""
    if OFFLINE:
        init_repository(directory, offline_keys=directory / "stick", passphrase=b"open sesame")
    else:
        init_repository(directory)


def run(directory: Path, kill_at: int) -> bool:
    """Return whether the child was killed."""
    pid = os.fork()
    if pid == 0:
        count = 0

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal count
            if event in CALLS:
                count += 1
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            init(directory)
            os._exit(0)
        except RepositoryError:
            os._exit(0 if (directory / "root.json").exists() else 71)
        finally:
            os._exit(70)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code not in (0, -signal.SIGKILL):
        raise RuntimeError(f"the child ended with {code}")
    return code != 0


if __name__ == "__main__":
    place = Path(sys.argv[1])
    number = 0
    while run(place / str(number), number + 1):
        number += 1
    # Twice on the way: before the k-th call, and again before the k-th call of the repetition.
    for again in range(0, number, 9):
        run(place / f"twice-{again}", again + 1)
        run(place / f"twice-{again}", again + 1)
    print(number)
