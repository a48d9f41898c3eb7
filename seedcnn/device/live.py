"""A model in a process that runs for long: it follows updates, counts its answers and can learn from its images."""

from __future__ import annotations

import logging
import os
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType

import numpy as np

from seedcnn.arrays import F32, U8
from seedcnn.bundle import Bundle
from seedcnn.device.adapted import FILE
from seedcnn.device.adaptive import AdaptiveModel
from seedcnn.device.agent import open_home
from seedcnn.device.config import read_config
from seedcnn.device.counting import Moment, moment
from seedcnn.device.learning import DEFAULT_SET, Adaptation, adapt
from seedcnn.device.probation import settle, trial_of, verdict_on
from seedcnn.device.records import Active, Trial
from seedcnn.device.reverting import model_before
from seedcnn.device.runtime import Answer, Model, Predictions, answer_files, predictions_of
from seedcnn.device.tally import Tally, begin_start
from seedcnn.errors import AdaptError, BundleError, DeviceError

__all__ = ["LiveModel"]

_LOOK = 0.02  # seconds between two looks for an update
_LOG = logging.getLogger(__name__)
_Stamp = tuple[int, int, int]


def _stamp(path: str) -> _Stamp | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


class LiveModel:
    """The active model of a device, for as long as an application runs; one process and one thread use it.

    :meth:`predict` looks whether an update has brought another model, at most every 20 ms, and if so opens that one
    first. It counts answers, answers that are not finite or fail, answers that are late, and labels, and writes the
    counts into the home now and then. While a model is on probation they decide: the model is committed, or the one
    before takes its place and answers in the same call. If a model cannot be opened, the one in memory goes on.

    The last ``keep`` images are the window by which a learned set is chosen, so that single images get the right set,
    too. They stay in memory: no image is written or sent. The model learns only when :meth:`adapt` is called.

    Use it in a ``with`` statement or call :meth:`close`. On probation, a process that ends in another way before its
    first answer counts as a start without an answer, and after three of them the model before takes its place.

    Args:
        home: of the device.
        keep: images in the window.
        threads: threads per inference.
        passed: for the seconds of a probation.

    Raises:
        ValueError: if ``keep`` is below 1.
        SlotError, BundleError: see :meth:`seedcnn.device.runtime.Model.load`.
    """

    def __init__(
        self, home: str | Path, *, keep: int = 64, threads: int = 1, passed: Callable[[], Moment] = moment
    ) -> None:
        if keep < 1:
            raise ValueError(f"`keep` (={keep}) must be at least 1")
        self._slots, self._threads, self._passed = open_home(home), threads, passed
        self._config = read_config(self._slots.home)
        self._recent: deque[U8] = deque(maxlen=keep)
        self._record = str(self._slots.home / "current" / "slot.json")
        self._sets = str(self._slots.home / FILE)
        self._next_look = 0.0
        self._tally: Tally | None = None
        self._has_left = False
        self._failed: Trial | None = None
        self._end: weakref.finalize | None = None  # type: ignore[type-arg]
        self.reload()

    def __enter__(self) -> LiveModel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An exception before the first answer is a start that has failed.
        self._let_go(on_purpose=error is None)

    def close(self) -> None:
        """Write the counts. The model can still answer; nothing is counted any more."""
        self._let_go(on_purpose=True)

    def _let_go(self, *, on_purpose: bool) -> None:
        tally, self._tally = self._tally, None
        if self._end is not None:
            self._end.detach()
        if tally is not None:
            (tally.close if on_purpose else tally.abandon)()

    def reload(self) -> None:
        """Open the active model and its sets again. :meth:`predict` does so by itself after an update or `adapt`."""
        stamps = _stamp(self._record), _stamp(self._sets)
        active = self._answering()
        trial, start = begin_start(self._slots, active)
        try:
            model = Model.load(self._slots, threads=self._threads, active=active)
            self.model = AdaptiveModel.beside(model, self._slots, threads=self._threads)
        except (BundleError, DeviceError):
            if trial is not None:
                failing = Tally(self._slots, self._config, trial.sha256, (), trial, start, now=self._passed)
                failing.fail(1)
                failing.write()
            raise
        self._let_go(on_purpose=True)
        self._stamps = stamps
        labels = model.bundle.manifest.labels
        tally = Tally(self._slots, self._config, active.record.sha256, labels, trial, start, now=self._passed)
        self._tally, self._end = tally, weakref.finalize(self, tally.abandon)

    def _answering(self) -> Active:
        """Return the model that should answer: the active one, or the one before if its probation has failed."""
        active = self._slots.active()
        try:
            trial = trial_of(self._slots, active)
            if trial is None:
                return active
            if trial != self._failed and verdict_on(self._slots.home, trial, now=self._passed).action != "back":
                return active
        except (ValueError, OSError) as error:
            _LOG.warning("the probation of release %d is not known: %s", active.record.release, error)
            return active
        try:
            with self._slots.lock():
                after, verdict = settle(self._slots, self._slots.repair(), now=self._passed)
            if verdict.action != "wait":
                return after or self._slots.active()
        except (DeviceError, OSError) as error:
            _LOG.warning("release %d could not be taken back, but does not answer: %s", active.record.release, error)
        return model_before(self._slots, trial.before) or active

    def _follow(self) -> bool:
        """Open the active model again if another one, or other sets, have come; return whether that was so."""
        if (now := time.monotonic()) < self._next_look:
            return False
        self._next_look = now + _LOOK
        stamps = _stamp(self._record), _stamp(self._sets)
        if stamps == self._stamps:
            return False
        self._has_left = False
        try:
            self.reload()
        except (BundleError, DeviceError, OSError) as error:
            self._stamps = stamps
            _LOG.warning("release %d goes on answering: %s", self.model.bundle.manifest.release, error)
            return False
        return True

    def predict(self, images: U8) -> Predictions:
        """Answer images, with the set that is nearest to the last ones.

        Args:
            images: uint8 [N, height, width, channels], of the manifest's size.

        Raises:
            ValueError: if dtype or shape is wrong.
            BundleError: if the model fails, and no model before takes its place.
        """
        self._follow()
        begin = time.perf_counter()
        try:
            logits = self._logits(images)
        except BundleError:
            if not self._count_failure(len(images)):
                raise
            begin = time.perf_counter()
            logits = self._logits(images)
        seconds = time.perf_counter() - begin
        self._recent.extend(images)
        found = predictions_of(logits, self.model.bundle.manifest.labels)
        if self._tally is not None and len(images):
            bad = self._tally.count(logits, found.indices, seconds)
            if self._tally.is_due:
                self._tally.write()
                if self._leave() and bad:
                    return self.model.predict(images)
        return found

    def predict_files(self, paths: Iterable[str | Path]) -> Iterator[Answer]:
        """Answer picture files as :meth:`seedcnn.device.runtime.Model.predict_files` does, and count the answers."""
        yield from answer_files(self.predict, self.bundle.manifest.preprocessing, paths)

    @property
    def bundle(self) -> Bundle:
        """The bundle that answers."""
        return self.model.bundle

    def _count_failure(self, images: int) -> bool:
        """Count images that the model could not answer, and return whether another model has taken its place."""
        if self._tally is None:
            return False
        self._tally.fail(images)
        self._tally.write()
        return self._leave()

    def _leave(self) -> bool:
        """Open the model before, if the present one has failed its probation; return whether it answers now.

        It answers even where nothing can be written down: while an update holds the home's lock, for example.
        """
        if self._tally is None or self._tally.failed is None or self._has_left:
            return False
        self._next_look = 0.0
        self._failed = self._tally.failed
        if self._follow():
            return True
        self._has_left, release = True, self.model.bundle.manifest.release
        try:
            self.reload()
        except (BundleError, DeviceError, OSError) as error:
            _LOG.warning("release %d goes on answering: %s", release, error)
        return self.model.bundle.manifest.release != release

    def _logits(self, images: U8) -> F32:
        model = self.model
        if not isinstance(model, AdaptiveModel):
            return model.logits(images)
        window = [*self._recent, *images][-(self._recent.maxlen or 1) :]
        return model.choosing(np.stack(window) if window else images).logits(images)

    def adapt(self, last: int, name: str = DEFAULT_SET) -> Adaptation:
        """Learn a set from the last images, see :func:`seedcnn.device.learning.adapt`.

        Raises:
            AdaptError: as there; or if fewer than ``last`` images are in memory.
        """
        if len(self._recent) < last:
            raise AdaptError(f"{len(self._recent)} images are in memory; {last} were asked for")
        found = adapt(self._slots.home, np.stack(list(self._recent)[-last:]), name=name, threads=self._threads)
        self.reload()
        return found
