"""The operator's commands: --ready holds an update, --probe takes a model back; neither can hang or fill memory."""

from __future__ import annotations

import os
import resource
import shlex
import sys
import time

import pytest

from seedcnn.device.bad import bad_files
from seedcnn.device.commands import KEPT, check_command, run_command
from seedcnn.device.learning import undo
from seedcnn.device.main import main
from seedcnn.device.reverting import PROBE
from seedcnn.device.status import status
from seedcnn.device.status_text import brief
from seedcnn.errors import AdaptError, RolledBackError, UpdateError
from tests.device.fleet import contents


def python(code: str) -> str:
    return shlex.join([sys.executable, "-c", code])


def test_the_end_of_a_command():
    assert run_command("true").problem == ""
    assert run_command(python("raise SystemExit(3)")).problem == "ended with exit status 3"
    assert run_command(python("import os; os.kill(os.getpid(), 9)")).problem == "was killed by signal 9"
    ended = run_command(
        python("import sys; print('one\\n  two  \\n'); print(open('/dev/stdin').read(), file=sys.stderr)")
    )
    assert (ended.problem, ended.last_line) == ("", "two")
    ended = run_command("/no/such/program")
    assert (ended.problem, ended.started) == ("cannot be run: No such file or directory", False)
    # No shell.
    assert run_command("echo 'a b' ; exit 7").output == b"a b ; exit 7\n"
    for wrong in ("", "  ", "a 'b", "a\0b"):
        with pytest.raises(ValueError, match="`command`"):
            check_command(wrong)


def test_a_command_that_never_ends_is_killed_with_its_children(tmp_path):
    pids = tmp_path / "pids"
    code = f"import os, time; os.fork(); open({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n'); time.sleep(600)"
    begin = time.monotonic()
    assert run_command(python(code), seconds=1.0).problem == "did not end within 1 s"
    assert time.monotonic() - begin < 5
    for pid in map(int, pids.read_text().split()):
        for _ in range(100):
            if not is_running(pid):
                break
            time.sleep(0.02)
        assert not is_running(pid)


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_children_that_keep_the_pipe_hold_nothing_up():
    begin = time.monotonic()
    for session in ("", "os.setsid(); "):
        code = f"import os, time\nif os.fork() == 0:\n {session}time.sleep(20)"
        assert run_command(python(code)).problem == ""
    assert time.monotonic() - begin < 15


def test_output_without_end_is_dropped():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ended = run_command(python("import os\nfor _ in range(1024): os.write(1, bytes(1 << 20))"), seconds=30)
    assert (ended.problem, len(ended.output)) == ("", KEPT)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10  # KiB
    assert run_command("yes", seconds=0.5).problem == "did not end within 0.5 s"


def test_ready_says_no(device, fleet, tmp_path):
    fleet.publish(2)
    before = contents(device.home)
    for path in (fleet.directory / "public" / "targets" / "demo").iterdir():
        path.rename(tmp_path / path.name)  # whoever asks for a bundle fails
    for _ in range(2):
        result = device.update(ready=python("print('battery', 7); raise SystemExit(4)"))
        assert result.message == "release 2 is held: the command of --ready ended with exit status 4; release 1 stays"
    entry = device.slots.journal.last()
    assert (entry.state, entry.release, entry.code) == ("HOLD", 2, "ready")
    assert device.states().count("HOLD") == 1
    assert contents(device.home) == before
    for path in tmp_path.glob("*.bundle"):
        path.rename(fleet.directory / "public" / "targets" / "demo" / path.name)
    assert device.update(ready="true").release == 2


def test_a_command_that_is_not_there_is_refused_before_anything_is_fetched(device, fleet, capsys):
    fleet.publish(2)
    for option in ("ready", "probe"):
        with pytest.raises(UpdateError, match=rf"--{option} \(='/no/such x'\) names no program that can be run"):
            device.update(**{option: "/no/such x"})
    assert "DOWNLOAD" not in device.states()[device.states().index("COMMITTED") :]
    assert bad_files(device.home) == ()
    with pytest.raises(SystemExit):
        main(["--home", str(device.home), "update", "--probe", "a 'b"])
    assert "cannot be split into words" in capsys.readouterr().err
    assert device.release() == 1


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("print('no light'); raise SystemExit(1)", "the probe ended with exit status 1: no light"),
        ("import os; os.abort()", "the probe was killed by signal 6"),
        ("import time; time.sleep(60)", "the probe did not end within 2 s"),
    ],
    ids=["status", "signal", "time"],
)
def test_a_probe_that_fails_takes_the_model_back(device, fleet, code, words):
    fleet.publish(2)
    with pytest.raises(RolledBackError, match=f"release 2 was taken back: {words}; release 1 answers again"):
        device.update(probe=python(code), seconds=2.0)
    assert device.release() == 1
    entry = device.slots.journal.last()
    assert (entry.state, entry.release, entry.slot, entry.reason, entry.code) == ("ROLLED_BACK", 1, "b", words, PROBE)
    assert "last: the probe failed, so back to release 1, " in brief(status(device.home), time.time())
    (bad,) = bad_files(device.home)
    assert (bad.release, bad.count, bad.reason) == (2, 1, words)
    fleet.artefact(2).unlink()  # the slot still holds it
    with pytest.raises(RolledBackError):
        device.update(probe="false")
    with pytest.raises(UpdateError, match="has failed or was taken back here and is not fetched again"):
        device.update(probe="true")
    fleet.publish(3)
    assert device.update(probe="true").release == 3
    assert device.states()[-1] == "COMMITTED"


def test_a_probe_asks_the_new_model(device, fleet):
    fleet.publish(2)
    line = shlex.join([sys.executable, "-m", "seedcnn.device.main", "--home", str(device.home), "status"])
    check = python(f"import subprocess; assert b'release 2 ' in subprocess.run({line!r}.split(), stdout=-1).stdout")
    done = device.command("update", "--probe", check)
    assert (done.returncode, done.stderr) == (0, "")
    assert device.release() == 2


def test_a_first_model_that_fails_its_probe_leaves_none(fleet, tmp_path):
    fleet.publish(1)
    device = fleet.device(tmp_path / "home")
    with pytest.raises(RolledBackError, match="no model is left"):
        device.update(probe="false")
    assert not os.path.lexists(device.home / "current")
    assert "no usable model" in brief(status(device.home), time.time())


def interrupted(device, fleet) -> None:
    """A home as a kill leaves it while a probe runs."""
    fleet.publish(2)
    journal, link = device.home / "journal.json", device.home / "current"
    device.update(
        probe=python(f"open({str(device.home.with_name('kept'))!r}, 'wb').write(open({str(journal)!r}, 'rb').read())")
    )
    journal.write_bytes(device.home.with_name("kept").read_bytes())
    assert device.states()[-1] == "SWITCH"
    assert os.readlink(link) == "slots/b"


def test_a_probe_that_was_interrupted_is_made_again(device, fleet):
    interrupted(device, fleet)
    with pytest.raises(AdaptError):
        undo(device.home)  # finishes nothing, since it cannot probe
    assert device.states()[-1] == "SWITCH"
    with pytest.raises(RolledBackError, match="release 2 was taken back: the probe ended with exit status 1"):
        device.update(probe="false")
    assert device.release() == 1
    assert device.states()[-1] == "ROLLED_BACK"


@pytest.mark.parametrize("probe", ["true", ""])
def test_an_interrupted_update_is_committed(device, fleet, probe):
    interrupted(device, fleet)
    assert not device.update(probe=probe).updated
    assert device.states()[-1] == "COMMITTED"
    assert device.release() == 2
