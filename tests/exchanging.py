"""The target of processes that exchange values; it imports what a fork server needs."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from seedcnn.errors import DataError, is_shared
from seedcnn.processes import open_processes


class OddError(DataError):
    """An error that cannot be made from its text alone."""

    def __init__(self, text, number):
        super().__init__(text)
        self.number = number


def wait_for(path, other, pieces):
    """Wait until another process has marked a number of pieces."""
    until = time.monotonic() + 120
    while len(list(Path(path).parent.glob(f"{Path(path).name}.{other}.[0-9]"))) < pieces:
        assert time.monotonic() < until, f"process {other} has not marked {pieces} pieces"
        time.sleep(0.005)


def exchange(path, environment):
    """Write what the methods of ``Processes`` answer in this process."""
    os.environ.update(environment)
    found, advanced, before = {}, [], time.monotonic()
    with open_processes("cpu") as processes:
        rank = processes.rank

        def work(piece):
            """The second process holds one piece until the first one has done all others."""
            mark = Path(f"{path}.{rank}.{piece}")
            if rank == 1:
                mark.touch()
            wait_for(path, other=1 - rank, pieces=8 if rank == 1 else 1)
            mark.touch()
            return piece, rank

        def fail(piece):
            time.sleep(0.05)
            if piece >= 2:
                raise OddError(f"piece {piece}", piece)

        results = processes.share([5] * 9, work, lambda amount, piece: advanced.append((amount, piece)))
        found["pieces"] = [piece for piece, _ in results]
        found["ranks"] = [who for _, who in results]
        found["advanced"] = sum(amount for amount, _ in advanced)
        found["turn"] = processes.in_turn(lambda: time.sleep(0.2) or time.monotonic() - before)
        for name, call in {
            "share": lambda: processes.share([1] * 9, fail),
            "everywhere": lambda: processes.everywhere(lambda: fail(2 * rank)),
            "first": lambda: processes.from_first(lambda: fail(2)),
        }.items():
            try:
                call()
            except Exception as error:
                found[name] = [type(error).__name__, str(error), is_shared(error)]
        found["after"] = processes.gather(rank)
    Path(f"{path}.{environment['RANK']}.json").write_text(json.dumps(found))
