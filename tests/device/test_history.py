"""The journal for people and for programs."""

from __future__ import annotations

import json
import re
from dataclasses import fields

import pytest

from seedcnn.device.history import as_json, as_text
from seedcnn.device.journal import STATES, Entry
from seedcnn.device.main import main

NOON = 1_780_000_000  # 2026-05-28 20:26:40 UTC


def printed(device, capsys, *arguments: str) -> str:
    assert main(["--home", str(device.home), "history", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_the_steps_of_an_update_as_text(device, fleet, capsys):
    fleet.publish(2)
    assert device.update().release == 2
    lines = printed(device, capsys).splitlines()
    date = r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    assert re.fullmatch(rf"{date}  CHECK", lines[0])
    assert re.fullmatch(rf"{date}  SWITCH     release 2, slot b, before: slot a", lines[-2])
    assert re.fullmatch(rf"{date}  COMMITTED  release 2, slot b", lines[-1])
    assert [line.split()[3] for line in lines] == device.states()
    assert printed(device, capsys, "--last", "1").splitlines() == lines[-1:]
    assert printed(device, capsys, "--last", "999").splitlines() == lines


def test_the_steps_as_json(device, capsys):
    found = json.loads(printed(device, capsys, "--json"))
    assert [each["state"] for each in found] == device.states()
    for each, entry in zip(found, device.slots.journal.entries(), strict=True):
        assert set(each) == {"date", *(field.name for field in fields(Entry))}
        date = each.pop("date")
        assert Entry(**each) == entry
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", date)
    assert (
        json.loads(printed(device, capsys, "--json", "--last", "2"))
        == json.loads(printed(device, capsys, "--json"))[-2:]
    )


def test_nothing_yet_and_no_home(fleet, tmp_path, capsys):
    device = fleet.device(tmp_path / "home")
    assert printed(device, capsys) == "no step has been journalled yet\n"
    assert json.loads(printed(device, capsys, "--json")) == []
    assert main(["--home", str(tmp_path / "none"), "history"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith(f"none is not initialised; run: seedcnn-device --home {tmp_path / 'none'} init\n")


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.5"])
def test_numbers_that_are_refused(text, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["history", f"--last={text}"])
    assert caught.value.code == 2
    assert f"{text!r} must be a whole number, at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        (Entry("CHECK", NOON), "CHECK"),
        (Entry("HOLD", NOON, 3, reason="not selected", serial=7), "HOLD  release 3: not selected"),
        (Entry("REFUSED", NOON, reason="no route\x1b[31m\nto host"), "REFUSED  no route\\x1b[31m\\nto host"),
        (Entry("SWITCH", NOON, 2, "b", "factory", "probe"), "SWITCH  release 2, slot b, before: factory"),
        (Entry("PROBATION", NOON, 2, "b", "a"), "PROBATION  release 2, slot b, before: slot a"),
        (
            Entry("COMMITTED", NOON, 2, "b", answers=1000, bad=1, late=2),
            "COMMITTED  release 2, slot b, 1000 answers (1 bad, 2 late)",
        ),
        (
            Entry("ROLLED_BACK", NOON, 1, "b", "the probe failed", "probe", taken=2),
            "ROLLED_BACK  to release 1, from release 2, in slot b: the probe failed",
        ),
        (Entry("ROLLED_BACK", NOON, 0, "a", "mark_bad"), "ROLLED_BACK  to no model, in slot a: mark_bad"),
        (Entry("ADAPTED", NOON, 2, "b", "here"), "ADAPTED  release 2, slot b: here"),
    ],
)
def test_lines(entry, line):
    assert as_text((entry,)) == [f"2026-05-28 20:26:40 UTC  {line}"]
    assert as_json((entry,))[0]["date"] == "2026-05-28T20:26:40Z"


def test_every_state_has_a_line_and_columns_are_aligned():
    lines = as_text(tuple(Entry(state, NOON, 7, "a", "why") for state in STATES))
    assert {line[25:].partition(" ")[0] for line in lines} == set(STATES)
    assert {line[25:].index(" release 7") for line in lines if "ROLLED_BACK" not in line} == {12}


def test_a_journal_that_somebody_has_damaged(device, capsys, caplog):
    (device.home / "journal.json").write_text("{")
    assert printed(device, capsys) == "no step has been journalled yet\n"
    assert "cannot be read, so a new journal is started" in caplog.text
