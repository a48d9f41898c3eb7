"""A fleet in small: 20 devices as real processes, a staged rollout, two bad releases, and the way back.

Run it with ``make fleet-demo`` on Linux. It takes about two minutes and ends with a status other than 0 if anything is
not as it should be. Each device is two processes: an application that answers pictures without end
(``fleet_device.py``), and ``seedcnn-device run``. Four devices have a fault: a link that breaks off, a full disk, no
clock, and an application that release 2 brings down. The networks are made on the spot (``fleet_models.py``).
Everything is written to ``demo-out/fleet/``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import secrets
import shutil
import signal
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from seedcnn.bundle import Probation
from seedcnn.bundle.rollout import bucket
from seedcnn.server.families import add_family
from seedcnn.server.repository import init_repository, publish
from seedcnn.server.rollouts import Plan, advance, revert, start
from seedcnn.server.staged import percent

sys.path.insert(0, str(Path(__file__).resolve().parent))
from fleet_parts import FULL, BadLink, Device, Server, begin, end_all, megabytes

ROOT = Path(__file__).resolve().parent.parent
FAMILY = "fleet-demo"  # of fleet_models.py, which needs torch; this process does not
FAULTS = ("bad link", "no clock", "full disk", "crash loop")
PROBATION = Probation(answers=12, seconds=2)
MARK = "models.err"  # in a directory that the demo has made, and may remove
CUT = 0.3  # of a bundle, after which the bad link breaks off
BACK = 0.95  # of the devices, whose time is the figure
PLANS = {20: ((100, 500, 1000), 250, (2, 10)), 6: ((300, 600, 1000), 700, (1, 4))}
"""By the number of devices: waves and the share of failures that stops a rollout, both per mille, and how many devices
the first two waves select. Two of the four faults make a device fail, so 5 % would stop the good release, too."""


def expect(condition: object, sentence: str) -> None:
    """End the demo with a sentence unless a condition holds."""
    if not condition:
        raise SystemExit(f"fleet demo: {sentence}")


@dataclass
class Fleet:
    """The devices, the repository and the server, and the time since the demo began."""

    out: Path
    devices: list[Device]
    begun: float
    server: Server
    soak: int
    memory: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def directory(self) -> Path:
        """The repository."""
        return self.out / "repository"

    @property
    def reports(self) -> Path:
        """The directory of the devices' reports."""
        return self.out / "reports"

    def of_kind(self, kind: str) -> Device:
        """Return the device that has a fault."""
        return next(each for each in self.devices if each.kind == kind)

    def say(self, text: str) -> None:
        """Print a line with the seconds since the demo began."""
        begin = f"{time.monotonic() - self.begun:6.1f} s  "
        print(textwrap.fill(text, 96, initial_indent=begin, subsequent_indent=" " * len(begin)), flush=True)

    def tend(self) -> None:
        """Look after every device once."""
        for each in self.devices:
            each.tend(self.out / "models")

    def wait(self, condition: Callable[[], object], what: str, seconds: float = 120.0) -> None:
        """Look after the devices until a condition holds; end the demo if that takes too long."""
        until = time.monotonic() + seconds
        while not condition():
            expect(time.monotonic() < until, f"it took more than {seconds:.0f} s until {what}; see {self.out}")
            time.sleep(0.1)
            self.tend()

    def bundle(self, release: int) -> bytes:
        """Return a release as soon as it has been made."""
        path = self.out / "models" / f"{release}.bundle"
        self.wait(path.exists, f"release {release} was made")
        return path.read_bytes()

    def wait_for_answers(self, release: int, devices: list[Device] | None = None) -> None:
        """Wait until devices, by default all, answer with a release."""
        those = self.devices if devices is None else devices
        what = f"{len(those)} devices answered with release {release}"
        self.wait(lambda: all(each.release == release for each in those), what)

    def salt(self) -> str:
        """Draw a salt until the first wave selects ordinary devices only, and the last one those that will fail.

        A salt of chance would do the same for a large fleet. Of 20 devices a first wave may be one alone that fails,
        and then the rollout of a good release stops.
        """
        waves, _, wanted = PLANS[len(self.devices)]
        late = {self.of_kind(kind).name for kind in ("full disk", "crash loop")}
        early = {self.of_kind(kind).name for kind in ("bad link", "no clock")}
        while True:
            salt = secrets.token_hex(16)
            first, second = ({d.name for d in self.devices if bucket(salt, d.name) < each} for each in waves[:2])
            if (len(first), len(second)) == wanted and not first & early and early <= second and not second & late:
                return salt

    def begin(self, release: int, *, waves: tuple[int, ...] = ()) -> str:
        """Sign a release, offer it to the first wave, and return the salt."""
        planned, stop_at, _ = PLANS[len(self.devices)]
        plan = Plan(waves or planned, self.soak, 600, stop_at, probation=PROBATION)
        salt = self.salt()
        publish(self.directory, self.bundle(release), hold=True, deltas=0)
        start(self.directory, FAMILY, release, plan, salt=salt)
        dials = ", ".join(percent(each) for each in plan.waves)
        self.say(f"rollout start: release {release} in waves of {dials}; stop above {percent(stop_at)} of failures")
        return salt

    def decide(self, ended: str, seconds: float = 120.0) -> float:
        """Run ``rollout advance`` every second until it comes to "done" or "stop"; return when the last run began."""
        until, last, begun = time.monotonic() + seconds, "", 0.0
        while last != ended:
            begun = time.time()
            decision, _ = advance(self.directory, FAMILY, self.reports)
            counts, last = decision.counts, decision.action
            ignored = [each for each in counts.ignored if "its rule has serial" not in each]  # of an earlier rollout
            expect(not ignored, f"reports were ignored: {ignored}")
            if last != "wait":
                failed = ", ".join(f"{code} {number}" for code, number in counts.codes.items())
                self.say(f"rollout advance decides: {last}; {decision.reason}" + (f" ({failed})" if failed else ""))
                expect(last in ("advance", ended), f"the rollout came to {last!r} instead of {ended!r}")
            expect(time.monotonic() < until, f"the rollout took more than {seconds:.0f} s; see {self.out}")
            pause = time.monotonic() + 1.0
            while last != ended and time.monotonic() < pause:
                time.sleep(0.1)
                self.tend()
        return begun

    def back(self, since: float, release: int) -> list[float]:
        """Wait until all devices answer with a release, and return after how many seconds each did, in order."""
        self.wait_for_answers(release)
        return sorted(round(max(0.0, each.changes[-1][0] - since), 2) for each in self.devices)


def install_first(fleet: Fleet) -> None:
    """Publish release 1 for all devices, and start them."""
    link = BadLink(fleet.server.port, int(CUT * len(fleet.bundle(1))))
    link.start()
    publish(fleet.directory, fleet.bundle(1))
    fleet.say(
        f"release 1 is published; {len(fleet.devices)} devices start, and update every {fleet.devices[0].every} s"
    )
    for each in fleet.devices:
        url = link.url if each.kind == "bad link" else fleet.server.url
        each.start(fleet.directory / "root.json", url, FAMILY, fleet.reports)
        fleet.tend()
    fleet.wait_for_answers(1)
    fleet.say(f"all answer with release 1; the bad link broke off {link.broken} times")
    expect(link.broken, "the bad link has not broken off, so it shows nothing")


def roll_out_good(fleet: Fleet) -> None:
    """Roll release 2 out; two devices fail, and are mended."""
    full, crashing = fleet.of_kind("full disk"), fleet.of_kind("crash loop")
    expect(len(fleet.bundle(2)) > FULL, f"release 2 has no more than {FULL} bytes, for which the full disk has room")
    full.fill_disk(full=True)
    fleet.begin(2)
    fleet.decide("done")
    fleet.wait(lambda: all(each.ends(2) for each in fleet.devices), "every device had come to an end of release 2")
    failed = {each.name: each.ends(2)[-1].code for each in fleet.devices if each.ends(2)[-1].state != "COMMITTED"}
    expect(failed == {full.name: "space", crashing.name: "crash-loop"}, f"these devices failed: {failed}")
    fleet.wait_for_answers(1, [full, crashing])
    fleet.wait_for_answers(2, [each for each in fleet.devices if each.name not in failed])
    for name, code in failed.items():
        fleet.say(f"{name} runs release 1: {code}")
    fleet.say(f"the application of {crashing.name} has crashed {crashing.crashes} times")
    full.fill_disk(full=False)
    crashing.mend()
    crashing.forget_bad()
    fleet.wait_for_answers(2)
    fleet.wait(lambda: all(each.ends(2)[-1].state == "COMMITTED" for each in fleet.devices), "all committed release 2")
    fleet.say("disk freed, application mended, forget-bad: all devices have committed release 2")


def stop_fragile(fleet: Fleet) -> None:
    """Offer release 3, which has no answer to bright pictures; its first wave takes it back."""
    before = fleet.server.requests()
    salt = fleet.begin(3)
    seconds = fleet.back(fleet.decide("stop"), 2)
    fleet.wait(lambda: all(each.is_settled for each in fleet.devices), "every device was at rest")
    ran = [each for each in fleet.devices if each.has_run(3)]
    first = {each.name for each in fleet.devices if bucket(salt, each.name) < PLANS[len(fleet.devices)][0][0]}
    expect({each.name for each in ran} <= first, f"release 3 ran beyond its first wave: {[d.name for d in ran]}")
    ends = {each.name: each.ends(3)[-1] for each in ran if each.ends(3)}
    expect(ends, "no device took release 3 back by itself")
    for name, end in ends.items():
        expect((end.code, end.bad) == ("bad-answers", 1), f"{name} ended release 3 with {end}")
        fleet.say(f"{name} took release 3 back by itself: answer {end.answers} was not finite")
    bad = sum(counts["bad"] for each in fleet.devices for counts in each.answers.values())
    expect(not bad, f"{bad} answers that are not finite reached an application")
    for each in ran:
        if each.name not in ends:
            fleet.say(f"{each.name} ran release 3, too, and was sent back before a bright picture came")
    fetched, others = fleet.server.requests(3), fleet.server.requests() - before - fleet.server.requests(3)
    expect((fetched, others) == (len(ran), 0), f"{fetched} and {others} other bundles fetched for {len(ran)} devices")
    fleet.say(f"stop to 95 % of devices on release 2: {most(seconds):.1f} s; no bad answer reached an application")
    fleet.figures["stop of release 3"] = {
        "devices that ran it": len(ran),
        "that took it back by themselves": len(ends),
        "seconds from stop to 95 % on release 2": most(seconds),
        "bundles fetched by the way back": others,
    }


def revert_wrong(fleet: Fleet) -> None:
    """Roll out release 4, which passes its probation and answers wrongly, and revert it on all devices."""
    fleet.begin(4, waves=(1000,))
    fleet.decide("done")
    fleet.wait(lambda: all(each.ends(4) for each in fleet.devices), "every device had come to an end of release 4")
    ends = [each.ends(4)[-1] for each in fleet.devices]
    expect(all(end.state == "COMMITTED" for end in ends), "a device has not committed release 4")
    shifts = sorted(end.shift for end in ends)
    right = {release: _right(fleet, release) for release in (2, 4)}
    fleet.say(f"right answers: release 2 {right[2]:.0f} %, release 4 {right[4]:.0f} %")
    fleet.say(f"the devices' reports say that labels have shifted by {shifts[len(shifts) // 2] / 10:.0f} % (median)")
    expect(right[2] > 50 > right[4], f"release 4 should be worse than release 2: {right}")
    before, since = fleet.server.requests(), time.time()
    revert(fleet.directory, FAMILY)
    signed = time.time() - since
    seconds = fleet.back(since, 2)
    fetched = fleet.server.requests() - before
    expect(fetched == 0, f"the revert fetched {fetched} bundles")
    fleet.say(
        f"rollout revert: signed in {signed:.1f} s; 95 % of devices answer with release 2 after {most(seconds):.1f} s"
    )
    fleet.say("bundles fetched by the revert: none, 0 bytes (from the access log)")
    fleet.figures["revert of release 4"] = {
        "devices that had committed it": len(ends),
        "seconds from revert to 95 % on release 2": most(seconds),
        "seconds of each device": seconds,
        "bundles fetched by the way back": fetched,
    }


def most(seconds: list[float]) -> float:
    """Return the seconds after which 95 % of devices were back."""
    return seconds[math.ceil(BACK * len(seconds)) - 1]


def _right(fleet: Fleet, release: int) -> float:
    """Return the share of answers of a release that were right, in percent."""
    counts: Counter[str] = Counter()
    for each in fleet.devices:
        counts.update(each.answers.get(release, {}))
    return 100 * counts["right"] / max(1, counts.total())


def table(fleet: Fleet) -> list[list[str]]:
    """Return a row for each device: its name and kind, the releases that it ran, its last state, and failures."""
    rows = []
    for each in fleet.devices:
        steps = [step for step in each.journal() if step.state in ("SWITCH", "ROLLED_BACK")]
        ran = " ".join(str(step.release) for step in steps)
        codes = ", ".join(dict.fromkeys(f"{step.taken or step.release}: {step.code}" for step in each.failures()))
        rows.append([each.name, each.kind, ran, f"{each.journal()[-1].state.lower()} {each.release}", codes])
    return rows


def show(rows: list[list[str]]) -> None:
    """Print a table."""
    head = ["device", "kind", "ran", "now", "failures"]
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def finish(fleet: Fleet, rows: list[list[str]]) -> None:
    """Print the figures, and write ``fleet-demo.json``."""
    (ran, alone, stopped, _), (committed, back, *_) = (list(each.values()) for each in fleet.figures.values())
    every, count = fleet.devices[0].every, len(fleet.devices)
    seconds = round(time.monotonic() - fleet.begun)
    processes = sum(len(each.processes) for each in fleet.devices) + 1
    print(f"\n{count} live devices, each of which asks for an update every {every} s:")
    print(f"release 3 fails its probation: {ran} of {count} ran it, {alone} took it back alone after one bad answer;")
    print(f"  from stop to 95 % on release 2: {stopped:.1f} s; bundle bytes: 0")
    print(f"release 4 passes its probation: {committed} of {count} had committed it;")
    print(f"  from revert to 95 % on release 2: {back:.1f} s; bundle bytes: 0")
    print(f"{processes} processes in {fleet.memory:,.0f} MB; {seconds} s in all")
    record = {
        "command": "make fleet-demo",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "versions": {name: version(name) for name in ("seedcnn", "onnxruntime", "tuf")},
        "load average of 5 minutes": round(os.getloadavg()[1], 1),
        "devices": count,
        "seconds between updates": every,
        "figures": {**fleet.figures, "seconds": seconds, "processes": processes, "megabytes": round(fleet.memory)},
        "table": rows,
    }
    (fleet.out / "fleet-demo.json").write_text(json.dumps(record, indent=2) + "\n")


def named(count: int, out: Path, every: int) -> list[Device]:
    """Return devices, the last four of which have a fault each."""
    kinds = ["ordinary"] * (count - len(FAULTS)) + list(FAULTS)
    (out / "devices").mkdir()
    return [
        Device(f"camera-{number:02}", kind, out / "devices" / f"camera-{number:02}", every, 2 * (kind == "crash loop"))
        for number, kind in enumerate(kinds, 1)
    ]


@contextmanager
def running(out: Path, count: int, every: int, soak: int) -> Iterator[Fleet]:
    """Begin to make the releases, serve a repository, and end every process in the end."""
    begun = time.monotonic()
    for name in ("models", "reports"):
        (out / name).mkdir(parents=True)
    with (out / MARK).open("wb") as errors:
        maker = begin(str(ROOT / "examples" / "fleet_models.py"), str(out / "models"), stderr=errors)
    processes = [maker]
    devices: list[Device] = []
    try:
        init_repository(out / "repository")
        add_family(out / "repository", FAMILY)
        server = Server(out / "repository", out / "access.log")
        processes.append(server.process)
        devices = named(count, out, every)
        fleet = Fleet(out, devices, begun, server, soak)
        yield fleet
    finally:
        end_all([*processes, *(process for each in devices for process in each.processes)])


def main(argv: list[str] | None = None) -> None:
    """Run the demo with the options ``argv``, by default those of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "demo-out" / "fleet", help="output directory")
    parser.add_argument("--devices", type=int, choices=sorted(PLANS), default=20, help="devices (default: %(default)s)")
    parser.add_argument("--every", type=int, default=2, help="seconds between updates (default: %(default)s)")
    parser.add_argument("--soak", type=int, default=8, help="seconds that a wave lasts at least (default: %(default)s)")
    arguments = parser.parse_args(argv)
    expect(sys.platform == "linux", f"it needs Linux, and this is {sys.platform}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that every process is ended then, too
    out: Path = arguments.out.resolve()
    expect(
        not out.exists() or (out / MARK).exists(),
        f"{out} exists, and this demo has not made it; remove it, or give --out",
    )
    shutil.rmtree(out, ignore_errors=True)
    with running(out, arguments.devices, arguments.every, arguments.soak) as fleet:
        install_first(fleet)
        roll_out_good(fleet)
        stop_fragile(fleet)
        revert_wrong(fleet)
        fleet.memory = megabytes(
            [fleet.server.process, *(each for device in fleet.devices for each in device.processes)]
        )
        rows = table(fleet)
        print()
        show(rows)
        finish(fleet, rows)


if __name__ == "__main__":
    main()
