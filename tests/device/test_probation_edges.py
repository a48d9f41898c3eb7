"""The edges of a probation: one answer, one start, one second more or less, and what does not decide."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from seedcnn.device.bad import bad_files, find_bad, note_bad
from seedcnn.device.config import read_config
from seedcnn.device.counting import Counts, Moment, Start, add_counts, failed_starts, forget_counts, read_counts
from seedcnn.device.live import LiveModel
from seedcnn.device.outbox import MOST, queue_reports, queued
from seedcnn.device.probation import judge
from seedcnn.device.records import Trial
from seedcnn.device.tally import Tally
from seedcnn.errors import RolledBackError
from tests.device.bundles import make_bundle
from tests.device.fleet import IMAGES
from tests.device.test_probation import BRIGHT, offer, start

TRIAL = Trial("f" * 64, "e" * 64, 2, "b", "a", "d" * 64, 3, 100, 60, 1, 20, 100)


@pytest.mark.parametrize(
    ("counts", "failed", "action", "code"),
    [
        (Counts(99, seconds=60), 0, "wait", ""),
        (Counts(100, seconds=59.9), 0, "wait", ""),
        (Counts(100, seconds=60), 2, "commit", ""),
        (Counts(100, seconds=60), 3, "back", "crash-loop"),
        (Counts(1, 1), 0, "wait", ""),
        (Counts(2, 2), 0, "back", "bad-answers"),
        (Counts(10, late=10), 0, "wait", ""),  # a tenth of the hundred that are wanted
        (Counts(11, late=11), 0, "back", "late-answers"),
        (Counts(1000, late=100, seconds=60), 0, "commit", ""),
        (Counts(1000, late=101, seconds=60), 0, "back", "late-answers"),
    ],
)
def test_the_verdict(counts, failed, action, code):
    verdict = judge(TRIAL, counts, failed)
    assert (verdict.action, verdict.code) == (action, code)
    if code != "late-answers":
        assert judge(replace(TRIAL, latency_ms=0), counts, failed).action == action


def test_the_first_bad_answer_ends_a_long_probation(device, fleet):
    offer(fleet, 2, bundle=make_bundle(2, fragile=True), answers=1_000_000)
    device.update()
    with LiveModel(device.home) as live:
        live.predict(IMAGES)
        assert np.isfinite(live.predict(BRIGHT[:1]).probabilities).all()
    assert device.slots.journal.last().code == "bad-answers"
    assert device.release() == 1


def test_a_batch_is_late_by_the_time_of_one_image(device):
    trial = replace(TRIAL, latency_ms=10)
    config = read_config(device.home)
    tally = Tally(device.slots, config, "e" * 64, ["cat", "dog"], trial)
    best, logits = np.zeros(4, np.int64), np.ones((4, 2), np.float32)
    for seconds in (0.039, 0.041):
        tally.count(logits, best, seconds)
    tally.write()
    found = read_counts(device.home, "e" * 64)
    assert (found.answers, found.late) == (8, 4)


def test_a_superseded_model_is_not_bad(device, fleet):
    offer(fleet, 2)
    device.update()
    artefact = device.slots.examine("b").record.artefact
    offer(fleet, 3)
    device.update()
    assert bad_files(device.home) == ()
    assert find_bad(device.home, artefact) is None
    offer(fleet, 2)
    assert device.update().release == 2


def test_a_new_probation_begins_with_no_failed_starts(device, fleet):
    offer(fleet, 2)
    device.update()
    for _ in range(2):
        assert start(device, "os.abort()") != 0
    sha256 = device.slots.examine("b").record.sha256
    assert failed_starts(device.home, sha256) == 2
    add_counts(device.home, sha256, Counts(5, labels={"cat": 5}))
    forget_counts(device.home, sha256)
    assert (failed_starts(device.home, sha256), read_counts(device.home, sha256).answers) == (0, 0)
    with_one = Start(device.home, sha256)
    assert failed_starts(device.home, sha256) == 0  # it is alive
    with_one.close()
    with_one.close()


def test_seconds_without_the_name_of_a_start():
    """Where nothing names a start of the device, seconds that fall tell one from another."""
    counts = Counts(seconds=10.0, boot="", mark=500.0)
    assert counts.at(Moment("", 540.0)).seconds == 50.0
    assert counts.at(Moment("", 7.0)).seconds == 17.0
    assert counts.at(Moment("other", 540.0)).seconds == 550.0


def test_seconds_before_a_restart_are_kept(device):
    moments = iter([Moment("a", 100.0), Moment("a", 170.0), Moment("b", 5.0), Moment("b", 9.0)])
    found = [add_counts(device.home, "e" * 64, Counts(), now=lambda: next(moments)).seconds for _ in range(4)]
    assert found == [0.0, 70.0, 75.0, 79.0]


@pytest.mark.parametrize("damaged", [False, True])
def test_an_interrupted_switch_with_a_bad_probe_or_a_damaged_record(device, fleet, damaged):
    """Killed while the probe runs: a file whose probe had failed, or a record that cannot be read, is no commit."""
    offer(fleet, 2)
    journal = device.home / "journal.json"
    kept = device.home.with_name("kept")
    device.update(probe=f"cp {journal} {kept}")
    journal.write_bytes(kept.read_bytes())
    assert device.states()[-1] == "SWITCH"
    if damaged:
        (device.home / "probation.json").write_bytes(b"{")
    else:
        note_bad(device.home, device.slots.examine("b").record.artefact, 2, "the probe ended with exit status 1")
    with pytest.raises(RolledBackError, match="release 1 answers again"):
        device.update()
    assert device.release() == 1
    assert device.states()[-1] == "ROLLED_BACK"


def test_the_oldest_progress_goes_first_and_failures_last(device):
    """Of more reports than fit, progress is dropped before commits, and commits before failures."""
    directory = device.home / "reports"
    directory.mkdir(exist_ok=True)
    size = MOST // 8
    states = ["ROLLED_BACK", "COMMITTED", "ELIGIBLE", "DOWNLOAD", "ELIGIBLE", "COMMITTED", "REFUSED", "PROBATION"]
    for path in queued(device.home):
        path.unlink()
    for number, state in enumerate(states):
        (directory / f"{number:012}-{state}.json").write_bytes(b" " * size)
    names = []
    for _ in range(7):
        device.slots.journal.append("ELIGIBLE", release=2, serial=9)
        queue_reports(device.slots, read_config(device.home))
        names = [path.name.partition("-")[2].removesuffix(".json") for path in queued(device.home)]
        assert sum(path.stat().st_size for path in queued(device.home)) <= MOST
        for path in queued(device.home):  # what came now is made as large as the others
            if path.stat().st_size < size:
                path.write_bytes(b" " * size)
        if sum(path.stat().st_size for path in queued(device.home)) > MOST:
            break
    assert names.count("ROLLED_BACK") == names.count("REFUSED") == 1
    assert names.count("COMMITTED") == 2
    assert "PROBATION" not in names or names.count("ELIGIBLE") < 9
