"""A model that keeps several sets of norm statistics side by side and chooses one for each window of images.

Stale statistics do harm: a network adapted to noise answers clean images worse than the one that never adapted.
So a window (the images of one call) is compared with each set behind the first norm, where nothing is adapted yet. The
distance is the mean over channels of ``((m - m')**2 + (d - d')**2) / (d**2 + d'**2)``, with means m and standard
deviations d: 0 for equal statistics, and robust against single channels. A learned set answers if it is nearer than the
shipped one and nearer than :data:`NEAR`; else the shipped set does. So does it for windows of fewer than
:data:`LEAST_WINDOW` images, whose statistics say more about the pictures than about the place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from seedcnn.arrays import F32, U8
from seedcnn.bundle import Bundle
from seedcnn.device.adapted import SHIPPED, LearnedSet, read_sets
from seedcnn.device.expand import MAX_EXPANDED_BYTES, expand
from seedcnn.device.runtime import Model
from seedcnn.device.slots import Slots
from seedcnn.errors import DeviceError
from seedcnn.runtime.adapting import Norms, Statistics, adapted, distance, first_norm
from seedcnn.runtime.session import Session, open_session

__all__ = ["LEAST_WINDOW", "NEAR", "AdaptiveModel", "statistics_of"]

NEAR = 0.012
LEAST_WINDOW = 32


def statistics_of(found: LearnedSet, norms: Norms) -> Statistics:
    """The statistics of a learned set.

    Raises:
        DeviceError: if they are of other norms or not usable.
    """
    means, stds = (np.frombuffer(data, "<f4").astype(np.float32) for data in (found.means, found.stds))
    if len(means) != sum(norms.counts) or not np.isfinite(means).all() or not (np.isfinite(stds) & (stds >= 0)).all():
        raise DeviceError(f"the learned set {found.name!r} has {len(means)} channels or numbers that cannot be")
    return Statistics(means, stds)


@dataclass
class _Chooser:
    """The sets of a bundle: their sessions, opened when first needed, and what was chosen last."""

    bundle: Bundle
    norms: Norms
    tensors: Mapping[str, F32]
    sets: Mapping[str, Statistics]
    runtime: str
    threads: int
    near: float
    sessions: dict[str, Session] = field(default_factory=dict)
    last: str = SHIPPED

    def __post_init__(self) -> None:
        self._first = first_norm(self.bundle, self.norms, self.tensors, runtime=self.runtime, threads=self.threads)
        self._heads = {name: found.split(self.norms.counts)[0] for name, found in self.sets.items()}
        self._own = self.norms.shipped.split(self.norms.counts)[0]

    def choose(self, images: U8) -> str:
        """Name of the set for a window."""
        self.last = SHIPPED
        if len(images) >= LEAST_WINDOW:
            seen = self._first(images)
            far = {name: distance(seen, head) for name, head in self._heads.items()}
            nearest = min(far, key=lambda name: far[name])
            if far[nearest] < min(self.near, distance(seen, self._own)):
                self.last = nearest
        return self.last

    def session(self, name: str) -> Session:
        """The session of a learned set."""
        if name not in self.sessions:
            tensors = adapted(self.tensors, self.norms, self.sets[name])
            graph = self.bundle.graph()
            self.sessions[name] = open_session(graph, tensors, runtime=self.runtime, threads=self.threads)
        return self.sessions[name]


@dataclass(frozen=True)
class AdaptiveModel(Model):
    """A model with learned sets of norm statistics beside the shipped one; each call of :meth:`logits` is a window."""

    chooser: _Chooser | None = None

    @classmethod
    def of_model(
        cls,
        model: Model,
        sets: Sequence[LearnedSet],
        *,
        threads: int = 1,
        near: float = NEAR,
        max_bytes: int = MAX_EXPANDED_BYTES,
    ) -> AdaptiveModel:
        """Put learned sets beside a model.

        Args:
            sets: of the model's bundle, at least one.
            threads: threads per inference.
            near: largest distance of a learned set that answers.
            max_bytes: see :func:`seedcnn.device.expand.expand`.

        Raises:
            BundleError: if the bundle does not say where its norms are.
            DeviceError: if a set is of other norms.
            ValueError: if there is no set.
        """
        if not sets:
            raise ValueError("`sets` is empty: the model answers as shipped without any")
        norms = Norms.of(model.bundle)
        found = {each.name: statistics_of(each, norms) for each in sets}
        tensors = expand(model.bundle, max_bytes=max_bytes)
        chooser = _Chooser(model.bundle, norms, tensors, found, model.session.runtime, threads, near)
        return cls(model.bundle, model.session, model.source, chooser)

    @classmethod
    def beside(cls, model: Model, slots: Slots, *, threads: int = 1) -> Model:
        """The model with the sets that its device has learned for it; the model itself if there are none."""
        sets = read_sets(slots.home, model.bundle.sha256)
        return cls.of_model(model, sets, threads=threads) if sets else model

    @property
    def chosen(self) -> str:
        """Name of the set that answered last."""
        return SHIPPED if self.chooser is None else self.chooser.last

    def choosing(self, window: U8) -> Model:
        """The model with the set that is nearest to a window of images, for other images than these.

        Args:
            window: uint8 [N, height, width, channels], of the manifest's size.
        """
        chosen = SHIPPED if self.chooser is None else self.chooser.choose(window)
        if self.chooser is None or chosen == SHIPPED:
            return Model(self.bundle, self.session, self.source)
        return Model(self.bundle, self.chooser.session(chosen), self.source)

    def logits(self, images: U8) -> F32:
        """Run images, as one window, with the set that is nearest to them.

        Args and errors as for :meth:`seedcnn.device.runtime.Model.logits`.
        """
        return self.choosing(images).logits(images)
