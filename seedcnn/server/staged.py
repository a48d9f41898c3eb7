"""A staged rollout as the server remembers it: plain data, and what each command makes of it. It is not served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from seedcnn.bundle import check_family
from seedcnn.bundle.limits import MAX_INT
from seedcnn.bundle.ranges import LATEST, check_integer
from seedcnn.bundle.rollout import bucket, check_cohort

__all__ = ["ENDED", "ON_STOP", "STATES", "Staged", "percent"]

STATES = ("running", "paused", "stopped", "done")
ENDED = ("stopped", "done")
ON_STOP = ("revert", "pause")
_LONGEST = 366 * 86400  # seconds


def percent(per_mille: int) -> str:
    """Return a dial as people type it: 5%, 0.1%."""
    return f"{per_mille // 10}%" if per_mille % 10 == 0 else f"{per_mille // 10}.{per_mille % 10}%"


def _check_waves(waves: tuple[int, ...]) -> None:
    shown = ", ".join(percent(each) if type(each) is int else repr(each) for each in waves)[:200]
    if not waves:
        raise ValueError("waves are missing; name at least one, such as 100%")
    if any(type(each) is not int or not 1 <= each <= 1000 for each in waves):
        raise ValueError(f"waves are {shown}; each must be from 0.1% to 100%")
    if any(after <= before for before, after in pairwise(waves)):
        raise ValueError(f"waves are {shown}; each must be above the one before it")


@dataclass(frozen=True)
class Staged:
    """One rollout of a family, its dial turned step by step.

    Attributes:
        family: whose devices it is for.
        offer, base: the release that is rolled out, and the one that other devices run; 0 for no base.
        first: serial of its first rule; those that follow count up by one.
        rules: the dial in per mille and the time of signing of each of its rules, in seconds since 1970.
        salt: of all its rules.
        waves: the dials it goes through, in per mille, rising.
        started: time in seconds since 1970 when the current wave began, or was resumed.
        soak: seconds that a wave lasts at least.
        deadline: seconds after a device's first report by which it must have committed or failed.
        stop_at: share of failures, in per mille, above which it stops.
        on_stop: "revert" or "pause".
        cohorts: that it is for, in ascending order; () for all devices.
        state: "running", "paused", "stopped" (reverted), or "done".
        salts: every salt that a rollout of this family has used.

    Raises:
        ValueError: naming the field, its value and the rule.
    """

    family: str
    offer: int
    base: int
    first: int
    rules: tuple[tuple[int, int], ...]
    salt: str
    waves: tuple[int, ...]
    started: int
    soak: int
    deadline: int
    stop_at: int
    on_stop: str = "revert"
    cohorts: tuple[str, ...] = ()
    state: str = "running"
    salts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_family(self.family)
        check_integer("offer", self.offer, 1, MAX_INT)
        check_integer("base", self.base, 0, MAX_INT)
        check_integer("first", self.first, 1, MAX_INT)
        if not self.rules:
            raise ValueError("rules are missing; a rollout has one at least")
        for per_mille, signed_at in self.rules:
            check_integer("per_mille", per_mille, 0, 1000)
            check_integer("signed_at", signed_at, 0, LATEST)
        _check_waves(self.waves)
        check_integer("started", self.started, 0, LATEST)
        check_integer("soak", self.soak, 1, _LONGEST)
        check_integer("deadline", self.deadline, 1, _LONGEST)
        check_integer("stop_at", self.stop_at, 0, 1000)
        for name, words in (("on_stop", ON_STOP), ("state", STATES)):
            if (value := getattr(self, name)) not in words:
                raise ValueError(f"{name} is {value!r:.80}; it must be one of {', '.join(words)}")
        if list(self.cohorts) != sorted({check_cohort(each) for each in self.cohorts}):
            raise ValueError(f"cohorts are {list(self.cohorts)!r:.80}; they must be in ascending order, each once")

    @property
    def serial(self) -> int:
        """Serial of its newest rule."""
        return self.first + len(self.rules) - 1

    @property
    def dial(self) -> int:
        """The dial now, in per mille."""
        return self.rules[-1][0]

    @property
    def following(self) -> int | None:
        """The wave after the dial, in per mille; None after the last one."""
        return next((each for each in self.waves if each > self.dial), None)

    @property
    def wave(self) -> int:
        """Number of the wave, from 1; 0 for a dial below the first one."""
        return sum(each <= self.dial for each in self.waves)

    def horizon(self, now: int, dial: int) -> int:
        """Return when the last device should have committed, if every wave from ``dial`` on lasts as planned."""
        left = 1 + sum(each > dial for each in self.waves)
        return now + self.soak * left + self.deadline

    def selected(self, serial: int, device: str, cohort: str) -> bool:
        """Return whether the dial of one of its rules had reached a device."""
        if self.cohorts and cohort not in self.cohorts:
            return False
        return bucket(self.salt, device) < self.rules[serial - self.first][0]

    def turned(self, dial: int, now: int, *, by_hand: bool = False) -> Staged:
        """Return the rollout with another dial, from which the soak counts anew.

        A dial that an operator turns to the last wave ends the rollout: nobody waits for reports any more.
        """
        state = "running" if self.state == "done" else self.state
        if by_hand and dial >= self.waves[-1]:
            state = "done"
        return replace(self, rules=(*self.rules, (dial, now)), started=now, state=state)

    def paused(self) -> Staged:
        """Return the rollout as it waits for ``resumed``."""
        return replace(self, state="paused")

    def resumed(self, now: int) -> Staged:
        """Return the rollout as it goes on; the soak counts anew."""
        return replace(self, state="running", started=now)

    def ended(self, state: str) -> Staged:
        """Return the rollout as it has ended: "stopped" or "done"."""
        return replace(self, state=state)

    def to_json(self) -> dict[str, Any]:
        """Return the form in which it is kept: integers, strings, lists and objects."""
        lists = {name: list(getattr(self, name)) for name in ("waves", "cohorts", "salts")}
        return {**vars(self), **lists, "rules": [list(each) for each in self.rules]}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Staged:
        """Parse the form in which it is kept.

        Raises:
            ValueError: naming what is wrong.
        """
        try:
            rules = tuple((per_mille, signed_at) for per_mille, signed_at in value["rules"])
            lists: dict[str, Any] = {name: tuple(value[name]) for name in ("waves", "cohorts", "salts")}
            return cls(**{**value, **lists, "rules": rules})
        except (TypeError, KeyError) as error:
            raise ValueError(f"its fields are not those of a rollout: {error}") from None
