"""The report of a device: what it writes is what a server reads, and everything else is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from seedcnn.bundle.report import CODES, ENDS, FORMAT, MAX_BYTES, STATES, Report
from seedcnn.errors import UpdateError

REPORT = Report("0" * 32, "cam-1", "lab", "demo", 3, 7, "ROLLED_BACK", 1_790_000_000, "probe", "exit status 1", 9, 1, 2)


def test_what_is_written_is_read():
    for report in (REPORT, replace(REPORT, cohort="", text="ä" * 500, code="", state="PROBATION")):
        assert Report.parse(report.dump()) == report
        assert json.loads(report.dump())["format"] == FORMAT == "seedcnn-report/1"
    longest = replace(REPORT, text="\U0001f600" * 500, device="x" * 64, cohort="y" * 64, family="z" * 64)
    assert len(longest.dump()) <= MAX_BYTES
    assert set(ENDS) < set(STATES)
    assert all(replace(REPORT, code=code) for code in CODES)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"format": "seedcnn-report/2"}, "its format is 'seedcnn-report/2'"),
        ({"more": 1}, "its fields are answers, bad, code"),
        ({"id": "x"}, "id is 'x'; it must be 32 lower-case hexadecimal digits"),
        ({"device": ""}, "`device_id`"),
        ({"cohort": "A"}, "`cohort`"),
        ({"cohort": None}, "`cohort`"),
        ({"family": "A"}, "`family`"),
        ({"family": 3}, "`family`"),
        ({"serial": 0}, "serial is 0"),
        ({"release": "7"}, "release is '7'"),
        ({"time": -1}, "time is -1"),
        ({"state": "DONE"}, "state is 'DONE'; it must be one of ELIGIBLE, HOLD"),
        ({"state": []}, r"state is \[\]"),
        ({"code": "bad"}, "code is 'bad'; it must be one of self-test"),
        ({"text": "x" * 501}, "text is 'xxx.*at most 500 characters"),
        ({"text": 3}, "text is 3"),
        ({"answers": 1.5}, "only integers are allowed"),
        ({"late": True}, "late is True"),
    ],
)
def test_every_wrong_field_is_named(changes, match):
    data = json.dumps({**json.loads(REPORT.dump()), **changes}).encode()
    with pytest.raises(UpdateError, match=f"^the report was refused: .*{match}"):
        Report.parse(data)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b" " * (MAX_BYTES + 1), b"{}"])
def test_what_is_no_report_is_refused(data):
    with pytest.raises(UpdateError, match=r"^the report was refused: "):
        Report.parse(data)
