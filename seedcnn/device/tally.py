"""The answers of one process: counted in memory, added to the home now and then, and judged while on probation."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Sequence

import numpy as np

from seedcnn.arrays import F32, I64
from seedcnn.device.config import Config
from seedcnn.device.counting import Counts, Moment, Start, add_counts, moment, read_counts
from seedcnn.device.outbox import queue_reports
from seedcnn.device.probation import judge, settle, trial_of
from seedcnn.device.records import Active, Trial
from seedcnn.device.slots import Slots
from seedcnn.errors import DeviceError

__all__ = ["Tally", "begin_start"]

EVERY, EVERY_TRIED = 600.0, 10.0  # seconds between two writes; while on probation
_LOG = logging.getLogger(__name__)


class Tally:
    """The answers of a model in this process.

    A failure to write is logged and the counts are kept for the next time: no answer fails because of it.

    Attributes:
        failed: the probation that the model has failed, also where that could not be written; None if it has not.

    Args:
        sha256: of the bundle.
        labels: of its classes.
        trial: its probation, None if it is not on probation.
        start: that the first answer ends, None for none.
        now: for the seconds of a probation.
    """

    def __init__(
        self,
        slots: Slots,
        config: Config,
        sha256: str,
        labels: Sequence[str],
        trial: Trial | None = None,
        start: Start | None = None,
        *,
        now: Callable[[], Moment] = moment,
    ) -> None:
        self._slots, self._config, self._sha256, self._labels = slots, config, sha256, labels
        self._trial, self._start, self._now = trial, start, now
        self._slowest = trial.latency_ms / 1e3 if trial and trial.latency_ms else math.inf
        self._process = os.getpid()
        self._clear()
        self._total = Counts()
        self.failed: Trial | None = None
        self._due = 0.0 if start else time.monotonic() + self._pause()

    def _pause(self) -> float:
        return EVERY_TRIED if self._trial else EVERY

    def _clear(self) -> None:
        self._answers = self._bad = self._late = 0
        self._by_label = [0] * len(self._labels)

    def count(self, logits: F32, best: I64, seconds: float) -> bool:
        """Count the answers of one call, and return whether one of them was bad.

        Args:
            logits: [N, classes], N at least 1.
            best: the best class of each image.
            seconds: that the call took.
        """
        number = len(best)
        self._answers += number
        if seconds > self._slowest * number:
            self._late += number
        if math.isfinite(np.vdot(logits, logits)):  # the fastest first look
            if number == 1:
                self._by_label[int(best[0])] += 1
            else:
                for index, times in enumerate(np.bincount(best, minlength=len(self._labels)).tolist()):
                    self._by_label[index] += times
            return False
        finite = np.isfinite(logits).all(axis=1)
        self._bad += number - int(finite.sum())
        for index in best[finite].tolist():
            self._by_label[index] += 1
        return not finite.all()

    def fail(self, number: int) -> None:
        """Count images that the model could not answer."""
        self._answers += number
        self._bad += number

    @property
    def is_due(self) -> bool:
        """Whether it is time to write, or enough was counted to end the probation."""
        if time.monotonic() >= self._due:
            return True
        trial = self._trial
        if trial is None:
            return False
        had = self._total.answers
        return self._bad > 0 or had < trial.answers <= had + self._answers

    def write(self) -> None:
        """Add what was counted to the home, and end the probation if that decides it."""
        try:
            if self._start is not None and self._answers:
                self._start.answered()
                self._start = None
            if self._answers or self._trial is not None:
                self._total = add_counts(self._slots.home, self._sha256, self._unwritten(), now=self._now)
                self._clear()
        except OSError as error:
            self._total = read_counts(self._slots.home, self._sha256)
            _LOG.warning("the answers in %s could not be counted: %s", self._slots.home, error.strerror or error)
        self._due = time.monotonic() + self._pause()
        if self._trial is not None:
            action = judge(self._trial, self._total.plus(self._unwritten()), 0).action
            self.failed = self._trial if action == "back" else None
            if action != "wait":
                self._settle()

    def _unwritten(self) -> Counts:
        names: dict[str, int] = {}
        for label, number in zip(self._labels, self._by_label, strict=True):
            if number:
                names[label] = names.get(label, 0) + number
        return Counts(self._answers, self._bad, self._late, names)

    def _settle(self) -> None:
        try:
            with self._slots.lock():
                active = self._slots.repair()
                if trial_of(self._slots, active) == self._trial:
                    verdict = settle(self._slots, active, now=self._now)[1]
                    queue_reports(self._slots, self._config)
                    if verdict.action == "wait":
                        return  # what decides it could not be written yet
                self._trial, self._slowest = None, math.inf
        except DeviceError as error:
            self._due = time.monotonic() + 1.0  # an update is running, or the home cannot be written
            _LOG.info("the probation goes on: %s", error)
        except (OSError, ValueError) as error:
            _LOG.warning("the probation could not be ended: %s", error)

    def close(self) -> None:
        """Write what is counted, and take a start back that came to no answer."""
        if os.getpid() != self._process:
            return  # a child process: its parent writes what was counted before the fork
        self.write()
        try:
            if self._start is not None:
                self._start.close()
        except OSError as error:
            _LOG.warning("the start in %s could not be taken back: %s", self._slots.home, error.strerror or error)

    def abandon(self) -> None:
        """Write what is counted. A start that came to no answer counts as failed."""
        if os.getpid() == self._process and self._answers:
            self.write()


def begin_start(slots: Slots, active: Active) -> tuple[Trial | None, Start | None]:
    """Return the probation of a model that is about to be loaded, and its start; None and None without a probation."""
    try:
        trial = trial_of(slots, active)
    except ValueError as error:
        _LOG.warning("%s", error)  # the next update takes the model back
        return None, None
    if trial is None:
        return None, None
    try:
        return trial, Start(slots.home, trial.sha256)
    except OSError as error:
        _LOG.warning("a start in %s could not be recorded: %s", slots.home, error.strerror or error)
        return trial, None
