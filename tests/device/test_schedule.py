"""The moments at which devices ask: spread evenly over the interval by their names, whatever the date is."""

from __future__ import annotations

import time
from contextlib import ExitStack
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seedcnn.device.main import main
from seedcnn.device.schedule import Schedule
from seedcnn.device.service import run_forever
from tests.device.hostile import Request, hostile
from tests.device.running import Running, named, until

SECOND = 10**9


@pytest.mark.parametrize(
    ("device_id", "every", "phase"),
    [
        ("camera-1", timedelta(hours=6), 895513007251),
        ("camera-1", timedelta(seconds=1), 513007251),
        ("00:1b:44:11:3a:b7", timedelta(days=7), 98357042606744),
    ],
)
def test_the_phase_of_a_device(device_id, every, phase):
    assert Schedule.of(device_id, every).phase == phase


def test_a_fleet_that_starts_in_one_second_spreads_evenly():
    start, every = 123_456 * SECOND, timedelta(hours=6)
    schedules = [Schedule.of(f"{number:032x}", every) for number in range(2000)]
    for moments, begin, length in (
        ([each.first(start) for each in schedules], start, 60 * SECOND),
        ([each.next(start) for each in schedules], start + 1, 6 * 3600 * SECOND),
    ):
        bins = np.bincount([(moment - begin) * 20 // length for moment in moments], minlength=20)
        assert len(bins) == 20
        assert ((bins - 100) ** 2 / 100).sum() < 36.2  # chi square of 19 degrees of freedom, 1 in 100


@given(
    st.text(min_size=1, max_size=64),
    st.integers(1, 7 * 86400),
    st.integers(0, 2**62),
    st.integers(1, 7 * 86400 * SECOND),
)
def test_moments(device_id, seconds, now, later):
    schedule = Schedule.of(device_id, timedelta(seconds=seconds))
    assert 0 <= schedule.phase < schedule.every == seconds * SECOND
    assert now <= schedule.first(now) < now + min(seconds, 60) * SECOND
    after = schedule.next(now)
    assert now < after <= now + schedule.every
    assert (after - schedule.phase) % schedule.every == 0
    assert schedule.next(after) == after + schedule.every


@pytest.mark.parametrize(
    "every", [timedelta(0), timedelta(milliseconds=999), timedelta(days=7, seconds=1), -timedelta(1)]
)
def test_intervals_that_are_refused(device, every):
    with pytest.raises(ValueError, match=r"`every` \(=.*\) must be from 1 second to 7 days"):
        run_forever(device.home, every)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0s", "argument --every: '0s': it must be a number and a unit, such as 90s, 30m, 6h or 2d"),
        ("8d", "argument --every: '8d': it must be from 1s to 7d"),
        ("6", "argument --every: '6': it must be a number and a unit"),
        ("1e3s", "argument --every: '1e3s': it must be a number and a unit"),
        ("604801s", "argument --every: '604801s': it must be from 1s to 7d"),
    ],
)
def test_intervals_that_the_command_refuses(text, says, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["run", "--every", text])
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


def test_every_device_asks_at_its_own_phase(fleet, tmp_path):
    fleet.publish(1)
    times: dict[str, list[int]] = {}

    def noted(request: Request) -> None:
        times.setdefault(request.server.name, []).append(time.monotonic_ns())
        request.serve()

    with ExitStack() as stack:
        for low in (0.2, 0.7):
            server, url = stack.enter_context(hostile(fleet.directory / "public", noted, "timestamp.json"))
            server.name = name = named(2, low, low + 0.05)
            device = fleet.device(tmp_path / name, url=url, device_id=name)
            stack.enter_context(Running(device.home, "--every", "2s"))
        until(lambda: len(times) == 2 and min(map(len, times.values())) >= 3)
    for name, moments in times.items():
        schedule = Schedule.of(name, timedelta(seconds=2))
        # The first check comes soon after the start, the others at the phase.
        assert all((moment - schedule.phase) % schedule.every < 0.7 * SECOND for moment in moments[1:])
