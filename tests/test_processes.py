"""What the processes of a run exchange: shared work, turns, and errors that all of them raise."""

from __future__ import annotations

import json

import pytest

from seedcnn.errors import ProcessError, is_shared, shared
from seedcnn.processes import Processes
from tests.exchanging import exchange


def test_two_processes(tmp_path, start_group):
    for process in start_group(2, exchange, tmp_path / "told"):
        process.join()
        assert process.exitcode == 0
    first, second = (json.loads((tmp_path / f"told.{rank}.json").read_text()) for rank in range(2))
    assert first["pieces"] == list(range(9))
    assert first["ranks"] == second["ranks"]
    assert sorted(first["ranks"]) == [0] * 8 + [1]  # the second process is slower
    assert (first["advanced"], second["advanced"]) == (45, 0)
    assert second["turn"] > first["turn"] + 0.1
    for found in (first, second):
        assert found["share"] == ["SeedCNNError", "piece 2", True]  # the first one that fails, as its text
        assert found["everywhere"] == ["SeedCNNError", "piece 2", True]
        assert found["first"] == ["SeedCNNError", "piece 2", True]
        assert found["after"] == [0, 1]


def test_one_process_does_all_itself():
    seen = []
    processes = Processes()
    assert processes.share([3, 4], lambda piece: piece * 10, lambda *call: seen.append(call)) == [0, 10]
    assert seen == [(3, 0), (4, 1)]
    assert processes.in_turn(lambda: 5) == processes.everywhere(lambda: 5) == processes.from_first(lambda: 5) == 5
    with pytest.raises(ProcessError) as found:
        processes.everywhere(lambda: (_ for _ in ()).throw(ProcessError("lost")))
    assert not is_shared(found.value)
    assert is_shared(shared(ProcessError("lost")))
