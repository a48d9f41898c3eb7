"""A model in a process that runs for long: it keeps its last images in memory, and learns from them when told to."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import numpy as np

from seedcnn.arrays import U8
from seedcnn.device.adaptive import AdaptiveModel
from seedcnn.device.agent import open_home
from seedcnn.device.learning import DEFAULT_SET, Adaptation, adapt
from seedcnn.device.runtime import Model, Predictions
from seedcnn.errors import AdaptError

__all__ = ["LiveModel"]


class LiveModel:
    """The active model of a device, with the sets that it has learned; one process and one thread use it.

    The last ``keep`` images are the window by which a set is chosen, so that single images get the right set, too.
    They stay in memory: nothing is written or sent. It learns only when :meth:`adapt` is called.

    Args:
        home: of the device.
        keep: images in the window.
        threads: threads per inference.

    Raises:
        ValueError: if ``keep`` is below 1.
        SlotError, BundleError: see :meth:`seedcnn.device.runtime.Model.load`.
    """

    def __init__(self, home: str | Path, *, keep: int = 64, threads: int = 1) -> None:
        if keep < 1:
            raise ValueError(f"`keep` (={keep}) must be at least 1")
        self._slots, self._threads = open_home(home), threads
        self._recent: deque[U8] = deque(maxlen=keep)
        self.reload()

    def reload(self) -> None:
        """Open the active model and its sets again, after an update or after :command:`seedcnn-device adapt`."""
        model = Model.load(self._slots, threads=self._threads)
        self.model = AdaptiveModel.beside(model, self._slots, threads=self._threads)

    def predict(self, images: U8) -> Predictions:
        """Answer images, with the set that is nearest to the last ones.

        Args:
            images: uint8 [N, height, width, channels], of the manifest's size.

        Raises:
            ValueError: if dtype or shape is wrong.
        """
        model = self.model
        if not isinstance(model, AdaptiveModel):
            found = model.predict(images)
            self._recent.extend(images)
            return found
        self._recent.extend(images)
        return model.choosing(np.stack(self._recent) if self._recent else images).predict(images)

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
