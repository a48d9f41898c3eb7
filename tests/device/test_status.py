"""The state of a device as one line for people, as text with dates, and as JSON."""

from __future__ import annotations

import json
import os
import re
import time
from datetime import datetime
from pathlib import Path

import pytest

from seedcnn.device.main import main
from seedcnn.device.status import status
from seedcnn.device.status_text import brief, full
from seedcnn.errors import UpdateError
from tests.device.fleet import Device, Fleet


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def line(device: Device, later: float = 0.0) -> str:
    """The line that a person sees ``later`` seconds from now."""
    return brief(status(device.home), time.time() + later)


@pytest.fixture
def five(device: Device, fleet: Fleet) -> Device:
    """A device that has installed releases 4 and 5 and refused 6, whose file was damaged on the server."""
    for release in (4, 5):
        fleet.publish(release)
        device.update()
    fleet.publish(6)
    flip(fleet.artefact(6))
    with pytest.raises(UpdateError):
        device.update()
    return device


def test_one_line_says_what_runs_what_ran_before_and_what_happened_last(five, capsys):
    assert main(["--home", str(five.home), "status"]) == 0
    (text,) = capsys.readouterr().out.splitlines()
    pattern = (
        r"demo  release 5 \(tiny\), since \d+ seconds? ago \| previous: release 4 \| "
        r"last: refused 6, \d+ seconds? ago: a file is not what was signed"
    )
    assert re.fullmatch(pattern, text)


@pytest.mark.parametrize(
    ("later", "words"),
    [(200, "3 minutes ago"), (7000, "2 h ago"), (86400 * 5 + 60, "5 days ago"), (90, "1 minute ago")],
)
def test_times_that_have_passed(five, later, words):
    assert f"since {words} |" in line(five, later)
    assert f"refused 6, {words}:" in line(five, later)


def test_a_clock_that_went_backwards_gives_the_date(five):
    date = status(five.home)["active"]["since"].replace("T", " ").replace("Z", " UTC")
    assert f"since {date} (ahead of this device's clock) |" in line(five, -3600)


def test_before_the_first_release(fleet, tmp_path):
    device = fleet.device(tmp_path / "home")
    next_step = f"next: seedcnn-device --home {device.home} update"
    assert line(device) == f"demo  no release yet | last: nothing tried yet\n{next_step}"
    fleet.publish(1)
    device.update()
    assert re.search(r"release 1 .* \| previous: none \| last: installed 1, ", line(device))
    device.update()  # finds nothing and so leaves no trace
    assert re.search(r"\| last: installed 1, \d+ seconds? ago$", line(device))


def test_a_factory_model(fleet, tmp_path, make_bundle):
    (tmp_path / "f.bundle").write_bytes(make_bundle(1))
    device = fleet.device(tmp_path / "home", factory=tmp_path / "f.bundle")
    assert re.match(
        r"demo  release 1 \(tiny\), the factory model, since \d+ seconds? ago \| previous: none \| last: nothing",
        line(device),
    )
    fleet.publish(2, min_release=2)
    device.update()
    assert "previous: release 1 (factory), which cannot be used: it is below the minimum release 2 |" in line(device)


def test_without_a_connection(device, tmp_path):
    with pytest.raises(UpdateError):
        device.update("http://127.0.0.1:1")
    assert re.search(
        r"last: the check failed, \d+ seconds? ago: the update could not be downloaded: http", line(device)
    )


def test_damaged_slots(five, caplog):
    flip(five.slots.path(five.slots.staging()) / "model.bundle")
    assert re.search(r"release 5 .* \| previous: slot ., which cannot be used: model.bundle has SHA-256", line(five))
    flip(five.slots.path(five.slots.current()) / "model.bundle")
    text = line(five)
    assert re.match(r"demo  no usable model: slot . is bad: model.bundle has SHA-256 .*\nnext: seedcnn-device", text)


def test_an_update_that_was_killed(five):
    with five.slots.lock():
        five.slots.journal.append("DOWNLOAD", release=7, slot="a")
    assert re.search(r"last: the download of 7 began \d+ seconds? ago and has not ended", line(five))


def test_the_link_tells_since_when_after_the_journal_forgot(five):
    for _ in range(70):
        five.slots.journal.append("REFUSED", release=6, reason="again")
    os.utime(five.home / "current", (1_700_000_000, 1_700_000_000), follow_symlinks=False)
    assert status(five.home)["active"]["since"] == "2023-11-14T22:13:20Z"


def test_verbose_has_the_rest_with_dates_in_utc(five, capsys):
    assert main(["--home", str(five.home), "status", "--verbose"]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("demo  release 5 ")
    rows = dict(row.split(maxsplit=1) for row in rest if not row.startswith("slot"))
    slots = {row[:6]: row for row in rest if row.startswith("slot")}
    known = status(five.home)
    assert known["active"]["sha256"] in slots[f"slot {known['current']}"]
    assert (rows["home"], rows["url"], rows["runtime"]) == (str(five.home), known["url"], "onnxruntime")
    assert "onnxruntime 1." in rows["installed"]
    date = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    assert re.fullmatch(rf"slot {known['current']}, since {date}", rows["active"])
    assert re.match(rf"{date} REFUSED, release 6, slot ., http://.* was refused: a file is not what", rows["last"])
    assert rows["floor"].startswith("serial 4, minimum release 0, SHA-256 ")
    assert "choices" not in rows


def test_json_has_everything_and_its_dates_are_dates(five, capsys):
    assert main(["--home", str(five.home), "status", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == status(five.home)
    assert (found["active"]["release"], found["active"]["model"], found["previous"]["release"]) == (5, "tiny", 4)
    assert datetime.fromisoformat(found["last"]["date"]).timestamp() == found["last"]["time"]
    assert abs(datetime.fromisoformat(found["active"]["since"]).timestamp() - time.time()) < 120


def test_text_and_json_exclude_each_other(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--home", str(tmp_path), "status", "--json", "--verbose"])
    assert caught.value.code == 2
    assert "not allowed with argument" in capsys.readouterr().err


@pytest.mark.parametrize("change", [{"time": "soon"}, {"time": 10**18}, {"state": "FLOWN"}, {"release": None}])
def test_a_journal_with_a_wrong_entry_counts_as_empty(five, caplog, change):
    path = five.home / "journal.json"
    journal = json.loads(path.read_bytes())
    journal["entries"][-1] |= change
    path.write_text(json.dumps(journal))
    assert line(five).endswith("last: nothing tried yet")
    assert "is not valid" in caplog.text


def test_names_and_reasons_cannot_write_to_the_terminal(five):
    five.slots.journal.append("REFUSED", release=6, reason="\x1b[31mred\nnext line")
    assert "\x1b" not in line(five)
    assert r"\x1b[31mred\nnext line" in line(five)
    assert all(row.isprintable() for row in full(status(five.home)))
