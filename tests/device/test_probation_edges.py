"""The edges of a probation: one answer, one start, one second more or less, and what does not decide."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from seedcnn.bundle.report import Report
from seedcnn.device.agent import rollback
from seedcnn.device.bad import bad_files, find_bad, note_bad
from seedcnn.device.config import read_config
from seedcnn.device.counting import Counts, Moment, Start, add_counts, failed_starts, forget_counts, read_counts
from seedcnn.device.live import LiveModel
from seedcnn.device.outbox import MOST, queue_reports, queued
from seedcnn.device.probation import judge
from seedcnn.device.records import Trial
from seedcnn.device.status import status
from seedcnn.device.tally import Tally
from seedcnn.errors import DeviceError, RolledBackError, SlotError
from tests.device.attacker import rule, sign_targets
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
    config, size = read_config(device.home), MOST // 8
    queue_reports(device.slots, config)
    for path in queued(device.home):
        path.unlink()
    states = ["ROLLED_BACK", "COMMITTED", "ELIGIBLE", "DOWNLOAD", "ELIGIBLE", "COMMITTED", "REFUSED", "PROBATION"]
    directory = device.home / "reports"
    before = [directory / f"{number:012}-{state}.json" for number, state in enumerate(states)]
    for path in before:
        path.write_bytes(b" " * size)  # together as much as may wait
    dropped = []
    for _ in range(8):
        device.slots.journal.append("ROLLED_BACK", taken=2, serial=9)
        queue_reports(device.slots, config)
        dropped += [number for number, path in enumerate(before) if not path.exists() and number not in dropped]
        newest = queued(device.home)[-1]
        assert newest not in before
        newest.write_bytes(b" " * size)
        assert sum(path.stat().st_size for path in queued(device.home)) == MOST
    assert dropped == [2, 3, 4, 7, 1, 5, 0, 6]


def test_a_journal_that_is_begun_anew_is_reported_from_its_start(device):
    config = read_config(device.home)
    for _ in range(5):
        device.slots.journal.append("ELIGIBLE", release=2, serial=9)
    queue_reports(device.slots, config)
    before = len(queued(device.home))
    (device.home / "journal.json").unlink()
    device.slots.journal.append("COMMITTED", release=2, serial=9)
    queue_reports(device.slots, config)
    queue_reports(device.slots, config)
    assert len(queued(device.home)) == before + 1


def test_no_way_leads_back_to_a_release_that_never_committed(device, fleet):
    """Neither the operator's command nor damage of the good slot, after a revert and after a model was taken back."""
    offer(fleet, 2, answers=1000)
    device.update()
    sign_targets(fleet.directory, {"rollout/demo.json": rule(1)})  # a revert
    device.update()
    with pytest.raises(DeviceError, match=r"cannot go back to release 2: it was taken back itself, or has not ended"):
        rollback(device.home)
    assert device.release() == 1
    assert status(device.home)["previous"]["unusable"] == "it was taken back, or has not ended its probation"
    path = device.home / "slots" / "a" / "model.bundle"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(SlotError, match="release 2 was taken back, or has not ended its probation"):
        device.release()
    assert device.update().release == 1  # from the repository
    assert device.release() == 1
    offer(fleet, 2, answers=1000)
    device.update()
    assert device.states()[-1] == "PROBATION"  # it begins anew
    with LiveModel(device.home) as live:
        for _ in range(200):
            live.predict(IMAGES)
    assert device.states()[-1] == "COMMITTED"
    assert device.slots.is_committed("b")
    assert rollback(device.home).endswith("release 1 answers again")


def test_a_release_that_runs_already_is_reported_for_each_rule(device, fleet):
    offer(fleet, 2, answers=1)
    device.update()
    with LiveModel(device.home) as live:
        live.predict(IMAGES)
    since = status(device.home)["active"]["since"]
    count = device.states().count("COMMITTED")
    offer(fleet, 2, answers=50)
    for _ in range(3):
        assert device.update().message == "nothing new: release 2 is installed"
    assert device.states().count("COMMITTED") == count + 1
    report = Report.parse(queued(device.home)[-1].read_bytes())
    assert (report.state, report.release, report.serial) == ("COMMITTED", 2, device.slots.floor().serial)
    assert status(device.home)["active"]["since"] == since


def test_a_new_device_whose_offer_is_barred_runs_the_base(fleet, tmp_path):
    fleet.publish(1)
    offer(fleet, 2, bundle=make_bundle(2, fragile=True))
    device = fleet.device(tmp_path / "home")
    device.update()
    with LiveModel(device.home) as live:
        live.predict(BRIGHT)
    assert device.update().message.startswith("release 1 is installed")
    assert device.release() == 1


def test_processes_that_ran_together_are_one_start(device, fleet):
    offer(fleet, 2)
    device.update()
    code = "import time; print(1, flush=True); time.sleep(60)"
    lines = f"from seedcnn.device.live import LiveModel\nlive = LiveModel({str(device.home)!r})\n{code}"
    for times in (1, 2, 3):
        processes = [subprocess.Popen([sys.executable, "-c", lines], stdout=subprocess.PIPE) for _ in range(3)]
        for process in processes:
            assert process.stdout.read(1) == b"1"
        for process in processes[:2]:
            process.kill()
            process.wait()
        assert "on probation" in device.update().message  # the third is alive
        processes[2].kill()
        processes[2].wait()
        for process in processes:
            process.stdout.close()
        assert failed_starts(device.home, device.slots.examine("b").record.sha256) == times
    with pytest.raises(RolledBackError, match="3 starts without an answer"):
        device.update()


def test_a_bad_answer_is_on_the_disk_at_once(device, fleet):
    offer(fleet, 2, bundle=make_bundle(2, fragile=True), max_bad=1)
    device.update()
    code = (
        "import numpy as np\nimage = np.zeros((1, 32, 32, 3), np.uint8)\nlive.predict(image)\n"
        "live.predict(image + 255)\nos.kill(os.getpid(), 9)\n"
    )
    for _ in range(2):
        start(device, code)
    entry = device.slots.journal.last()
    assert (entry.state, entry.code, entry.answers, entry.bad) == ("ROLLED_BACK", "bad-answers", 4, 2)
    assert device.release() == 1


def test_the_seconds_of_every_restart_count(device, fleet):
    offer(fleet, 2, answers=0, seconds=100)
    device.update(passed=lambda: Moment("a", 1000.0))
    device.update(passed=lambda: Moment("b", 20.0))
    assert "50 of 100 s" in device.update(passed=lambda: Moment("c", 30.0)).message
