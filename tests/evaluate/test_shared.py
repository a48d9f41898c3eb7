"""One evaluation by several processes: the bytes of a single one, also after kill -9; errors end all of them."""

from __future__ import annotations

import signal
import time

import pytest

from tests.evaluate.shared import measure, work

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def alone(tmp_path_factory, one_thread):
    """The tables of a single process, and its record."""
    record = tmp_path_factory.mktemp("alone") / "r.json"
    return measure({"record": record})[0], record.read_bytes()


def ended(processes, code=0):
    for process in processes:
        process.join()
        assert process.exitcode == code


@pytest.mark.parametrize("world", [2, 3])
def test_the_tables_and_the_record_are_those_of_one_process(tmp_path, start_group, alone, world):
    record = tmp_path / "r.json"
    ended(start_group(world, work, tmp_path / "t", options={"record": record, 0: {"delay": 0.01}}))
    assert {(tmp_path / f"t.{rank}.json").read_text() for rank in range(world)} == {alone[0]}
    assert record.read_bytes() == alone[1]
    calls = [int((tmp_path / f"t.{rank}.calls").read_text()) for rank in range(world)]
    assert sum(calls) == 3 + 2 + 2 * 5 * 4 + 2 * 5 * 2  # two of the four corruptions are random
    assert all(calls)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith((".", "r"))) == ["r.json"]


def test_published_images(tmp_path, start_group):
    ended(start_group(2, work, tmp_path / "t", options={"published": True}))
    assert (tmp_path / "t.0.json").read_text() == measure({"published": True})[0]


@pytest.mark.parametrize(("lost", "then"), [(0, 1), (1, 3)])
def test_a_killed_evaluation_goes_on_with_another_number_of_processes(tmp_path, start_group, alone, lost, then):
    record = tmp_path / "r.json"
    group = start_group(2, work, tmp_path / "t", options={"record": record, "delay": 0.05})
    deadline = time.monotonic() + 100
    while not record.exists() or b"contrast" not in record.read_bytes():
        assert all(process.exitcode is None for process in group)
        assert time.monotonic() < deadline
        time.sleep(0.002)
    group[lost].kill()
    for process in group:
        process.join()
    assert group[lost].exitcode == -signal.SIGKILL
    text = (tmp_path / f"t.{1 - lost}.error").read_text()
    assert text.startswith("ProcessError: another process of this run has ended")
    assert record.read_bytes() != alone[1]
    if then == 1:
        assert measure({"record": record})[0] == alone[0]
    else:
        ended(start_group(then, work, tmp_path / "t", options={"record": record}))
        assert (tmp_path / "t.0.json").read_text() == alone[0]
    assert record.read_bytes() == alone[1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({1: {"nan": 1}}, "DataError: one: the model's logits for image "),
        ({1: {"nan": 4}}, "DataError: model 'one' "),
        ({1: {"change": 1}}, "ProcessError: process 1 of 2 has other data than process 0: images and labels differ"),
    ],
    ids=["clean", "corrupted", "other images"],
)
def test_an_error_in_one_process_ends_all(tmp_path, start_group, options, words):
    ended(start_group(2, work, tmp_path / "t", options=options), code=3)
    first, second = ((tmp_path / f"t.{rank}.error").read_text() for rank in range(2))
    assert first == second
    assert first.startswith(words)


def test_a_record_that_cannot_be_written_ends_all(tmp_path, start_group):
    ended(start_group(2, work, tmp_path / "t", options={"record": tmp_path / "none" / "r.json"}), code=3)
    for rank in range(2):
        assert "cannot be written" in (tmp_path / f"t.{rank}.error").read_text()
