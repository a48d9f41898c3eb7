"""Power cuts: images of an ext4 file system during an update and a probation, without what was not flushed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.device.sound import check_point, check_said
from tests.device.states import END, Cutter, Ran, State, begins, make_stage

CUTS = 30
STEPS = ("update", "live", "images", "images", "reload", "images", "close", "update")
STATE = State(begins, STEPS, (2, 3), 3, (("COMMITTED", 3),), END, anew=3)


@contextmanager
def mounted(image: Path, where: Path) -> Iterator[Path]:
    """Mount an image, with nothing written on its own account for five minutes."""
    where.mkdir(exist_ok=True)
    line = ["mount", "-o", "loop,commit=300", str(image), str(where)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"an ext4 image cannot be mounted here: {done.stderr.strip()}")
    try:
        yield where
    finally:
        until = time.monotonic() + 30
        while subprocess.run(["umount", str(where)], capture_output=True, check=False).returncode != 0:
            assert time.monotonic() < until, f"{where} stays busy"
            time.sleep(0.05)  # a process that was killed has not let go of it yet


@pytest.fixture
def tools() -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting an image needs root")
    if missing := [
        name for name in ("losetup", "mount", "umount", "mkfs.ext4", "e2fsck") if shutil.which(name) is None
    ]:
        pytest.skip(f"{', '.join(missing)}: not installed")


@pytest.fixture
def cutter() -> Iterator[Cutter]:
    cutter = Cutter()
    yield cutter
    cutter.close()


class Worker:
    """A process, in a group of its own, that does the steps on a place."""

    def __init__(self, place: Path) -> None:
        line = [sys.executable, "-m", "tests.device.cutting"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(line, text=True, start_new_session=True, **pipes)
        self._place = place
        self.ask(())
        self.process.stdout.readline()  # it is ready

    def ask(self, steps: tuple[str, ...]) -> None:
        request = {"place": str(self._place), "steps": list(steps), "fault": "", "at": 0, "lasting": False}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()

    def signal(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    def close(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait(timeout=60)
        self.process.stdin.close()
        self.process.stdout.close()


def photograph(image: Path, to: Path) -> None:
    """Copy what has reached the disk; again, until nothing is being written."""
    shutil.copyfile(image, to)
    while True:
        again = image.read_bytes()
        if again == to.read_bytes():
            return
        to.write_bytes(again)


def cut(stage, clean: Path, tmp_path: Path, seconds: float | None) -> tuple[float, Path]:
    """Do the steps on a disk, cut after some seconds, or at their end for None; return their time and the disk then."""
    image, picture = tmp_path / "disk.img", tmp_path / "cut.img"
    shutil.copyfile(clean, image)
    with mounted(image, tmp_path / "disk") as disk:
        worker = Worker(disk / "place")
        try:
            begin = time.monotonic()
            worker.ask(STEPS)
            if seconds is None:
                check_said(stage, STATE, Ran(**json.loads(worker.process.stdout.readline())))
            else:
                time.sleep(seconds)
            took = time.monotonic() - begin
            worker.signal(signal.SIGSTOP)
            (disk / "unflushed").write_bytes(bytes(4096))
            photograph(image, picture)
        finally:
            worker.close()
    return took, picture


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_power_cuts(fleet, tmp_path, tools, cutter, record_property):
    """After each cut the device has the old or the new model, and repeating it ends as without a cut."""
    stage = make_stage(fleet, tmp_path / "stage" / "place", cutter, STATE)
    clean = tmp_path / "clean.img"
    line = ["mkfs.ext4", "-q", "-F", "-d", str(stage.place.parent), str(clean), "24M"]
    subprocess.run(line, check=True)
    took, _ = cut(stage, clean, tmp_path, None)
    chance, seen, states, wrong = random.Random(5), set(), set(), {}
    for number in range(CUTS):
        instant = took * (number + chance.random()) / CUTS
        _, picture = cut(stage, clean, tmp_path, instant)
        with mounted(picture, tmp_path / "cut") as disk:
            unflushed = disk / "unflushed"
            assert not unflushed.exists() or not unflushed.stat().st_size  # or else this cuts nothing off
            states.add((tmp_path / "cut" / "place" / "home" / "probation.json").exists())
            release, problem = check_point(stage, STATE, disk / "place", Ran(-9, 0, []))
        seen.add(release)
        if problem:
            wrong[f"cut {number} after {instant:.3f} s"] = problem
    record_property("points", CUTS)
    assert not wrong, "\n".join(f"{where}:\n{problem}" for where, problem in wrong.items())
    assert seen == {2, 3}
    assert states == {False, True}
