"""States of a device around a probation, what is done in them, and what must hold afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seedcnn.device.counting import Counts, add_counts
from seedcnn.device.live import LiveModel
from seedcnn.device.outbox import queued
from seedcnn.device.runtime import Model, predictions_of
from tests.device.attacker import base, content_of, rule, sign_targets
from tests.device.bundles import make_bundle
from tests.device.cutting import BRIGHT
from tests.device.fleet import IMAGES, Device, Fleet

TEN = {"answers": 10, "seconds": 0, "max_bad": 0, "latency_ms": 0, "max_late_per_mille": 1000}
END = ("live", "images", "images", "images", "close", "update")


class Cutter:
    """Runs steps in a child that is killed or refused; see cutting.py."""

    def __init__(self) -> None:
        line = [sys.executable, "-m", "tests.device.cutting"]
        self._process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, place: Path, steps: Sequence[str], fault: str = "", at: int = 0, lasting: bool = False) -> Ran:
        request = {"place": str(place), "steps": list(steps), "fault": fault, "at": at, "lasting": lasting}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return Ran(**answer, unreadable=lasting and fault == "EIO")

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()


@dataclass(frozen=True)
class Ran:
    """What a child did: exit code or -signal, calls that a fault can hit (0 if killed), steps and their results.

    ``unreadable`` is whether it could read no file any more.
    """

    code: int
    calls: int
    said: list[list[Any]]
    unreadable: bool = False


@dataclass
class Stage:
    """A repository and a place with a device (``home``) that runs release 2, and release 1 in the other slot."""

    fleet: Fleet
    place: Path
    cutter: Cutter
    answers: dict[int, dict[str, list[Any]]] = field(default_factory=dict)
    bundles: dict[int, bytes] = field(default_factory=dict)
    serials: dict[int, int] = field(default_factory=dict)
    limits: dict[int, int] = field(default_factory=dict)

    @property
    def device(self) -> Device:
        return Device(self.place / "home")

    def know(self, bundle: bytes, release: int) -> None:
        """Learn the right answers of a release."""
        path = self.place.with_name("reference.bundle")
        path.write_bytes(bundle)
        model, self.bundles[release] = Model.load(path), bundle
        found = {"images": model.logits(IMAGES), "bright": model.logits(BRIGHT)}
        labels = model.bundle.manifest.labels
        self.answers[release] = {"logits": found["images"]} | {
            name: [row.indices.tolist(), row.probabilities.tobytes().hex()]
            for name, row in ((name, predictions_of(logits, labels)) for name, logits in found.items())
        }

    def make(self, release: int, *, fragile: bool = False) -> bytes:
        """Make a release, and learn its right answers."""
        bundle = make_bundle(release, fragile=fragile, min_release=1)
        self.know(bundle, release)
        return bundle

    def offer(self, release: int, *, fragile: bool = False, **limits: int) -> None:
        """Offer a release on probation to all devices."""
        bundle = self.make(release, fragile=fragile)
        value = {"probation": {**TEN, **limits}, "base": base(1)}
        self.limits[release] = value["probation"]["answers"]
        self.rule(release, value, {f"demo/{release}.bundle": bundle})

    def rule(self, release: int, value: dict[str, Any], files: dict[str, bytes] | None = None) -> None:
        """Sign a rule, and files."""
        text = rule(release, {"content": content_of(self.bundles[release]), **value})
        self.serials[release] = json.loads(text)["serial"]
        sign_targets(self.fleet.directory, {**(files or {}), "rollout/demo.json": text})

    def begin(self, release: int = 3, **options: Any) -> None:
        """Put a release on probation."""
        self.offer(release, **options)
        assert self.device.update().message.endswith("on probation")

    def counted(self, **counts: int) -> None:
        """Count answers of the model on probation."""
        sha256 = self.device.slots.active().record.sha256
        add_counts(self.device.home, sha256, Counts(labels={"cat": counts.get("answers", 0)}, **counts))


def begins(stage: Stage) -> None:
    stage.offer(3)


def _enough(stage: Stage) -> None:
    stage.begin(seconds=0)
    stage.counted(answers=12)


def _bad(stage: Stage) -> None:
    stage.begin()
    stage.counted(answers=5, bad=1)


def _crashed(stage: Stage) -> None:
    stage.begin()
    for _ in range(3):
        assert stage.cutter.run(stage.place, ["live", "crash"]).code == 3


def _counts(stage: Stage) -> None:
    stage.begin(answers=16)


def _nearly(stage: Stage) -> None:
    stage.begin()
    stage.counted(answers=6)


def _fragile(stage: Stage) -> None:
    stage.begin(fragile=True)
    stage.counted(answers=4)


def _superseded(stage: Stage) -> None:
    stage.begin(answers=1000)
    stage.offer(4)


def _reverted(stage: Stage) -> None:
    stage.begin(answers=1000)
    stage.rule(2, {})


def _reverted_on_probation(stage: Stage) -> None:
    stage.begin(answers=1000)
    stage.rule(2, {"probation": TEN})


def _committed(stage: Stage) -> None:
    stage.begin()
    assert stage.cutter.run(stage.place, END).code == 0
    assert stage.device.states()[-1] == "COMMITTED"


def _queued(stage: Stage) -> None:
    stage.begin()
    stage.device.update()  # without a directory for reports
    stage.counted(answers=12)
    stage.device.update()
    assert len(queued(stage.device.home)) > 3


def _damaged(stage: Stage) -> None:
    stage.begin()
    path = stage.device.home / "probation.json"
    path.write_bytes(path.read_bytes()[:-9])


@dataclass(frozen=True)
class State:
    """A state of a device and what is done in it.

    Args:
        prepare: makes the state of a stage.
        steps: of cutting.py, that are interrupted and then repeated.
        between: releases that may answer after an interruption.
        last: release that answers in the end, after ``after``.
        reported: (state, release) of each end that must be reported once, and no other.
        after: steps that lead to the end once the repetition is done.
        anew: release whose counting may begin anew, 0 for none.
    """

    prepare: Callable[[Stage], None]
    steps: tuple[str, ...]
    between: tuple[int, ...]
    last: int
    reported: tuple[tuple[str, int], ...]
    after: tuple[str, ...] = ()
    anew: int = 0


UPDATE, ROLLBACK = ("update",), ("rollback",)
COUNTING = ("live", "images", "reload", "images", "close")
STATES = {
    "probation begins": State(begins, UPDATE, (2, 3), 3, (("COMMITTED", 3),), END, anew=3),
    "update commits": State(_enough, UPDATE, (3,), 3, (("COMMITTED", 3),)),
    "update takes back for bad answers": State(_bad, UPDATE, (2, 3), 2, (("ROLLED_BACK", 3),)),
    "update takes back for failed starts": State(_crashed, UPDATE, (2, 3), 2, (("ROLLED_BACK", 3),)),
    "a process counts": State(_counts, COUNTING, (3,), 3, (("COMMITTED", 3),), END),
    "a process commits": State(_nearly, ("live", "images", "close"), (3,), 3, (("COMMITTED", 3),), END),
    "a process takes back": State(
        _fragile, ("live", "bright", "images", "close"), (2, 3), 2, (("ROLLED_BACK", 3),), UPDATE
    ),
    "a release supersedes": State(_superseded, UPDATE, (2, 3, 4), 4, (("COMMITTED", 4),), END, anew=4),
    "revert": State(_reverted, UPDATE, (2, 3), 2, (("COMMITTED", 2),)),
    "revert to a probation": State(_reverted_on_probation, UPDATE, (2, 3), 2, (("COMMITTED", 2),), END, anew=2),
    "rollback": State(_committed, ROLLBACK, (2, 3), 2, (("COMMITTED", 3), ("ROLLED_BACK", 3)), UPDATE),
    "rollback on probation": State(_counts, ROLLBACK, (2, 3), 2, (("ROLLED_BACK", 3),), UPDATE),
    "reports are delivered": State(_queued, UPDATE, (3,), 3, (("COMMITTED", 3),)),
    "damaged record": State(
        _damaged, UPDATE, (2, 3), 3, (("ROLLED_BACK", 3), ("COMMITTED", 3)), ("update", "update", *END), anew=3
    ),
}


def make_stage(fleet: Fleet, place: Path, cutter: Cutter, state: State) -> Stage:
    """Bring a device into a state. Everything before is reported elsewhere."""
    place.mkdir(parents=True)
    (place / "delivered").mkdir()
    stage = Stage(fleet, place, cutter)
    stage.know(fleet.publish(1), 1)
    device = fleet.device(place / "home")
    device.update()
    stage.know(fleet.publish(2), 2)
    device.update(reports=place.with_name("earlier"))
    for path in queued(device.home):
        path.unlink()
    with LiveModel(device.home) as live:
        live.predict(IMAGES)
    state.prepare(stage)
    return stage
