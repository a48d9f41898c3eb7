"""Norm statistics of the place where a device stands, from unlabelled images.

A norm that was folded away gives ``z = s * u + b``. The bundle says which mean and standard deviation z had on the
training images. From those of z on other images follow the scale and the bias that give it back the old ones, as a norm
in training mode would. The layers go in the order of the graph, because each must see the adapted ones before it.

Taps, not a second graph: each z becomes a further output of the bundle's own graph, so nothing more travels, and every
form of a layer and every runtime is served. The price is one session for each norm while the statistics are taken;
it computes the graph up to the norm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from seedcnn.arrays import F32, U8
from seedcnn.bundle import Bundle
from seedcnn.bundle.adaptable import Site
from seedcnn.bundle.entries import NORMS
from seedcnn.errors import BundleError
from seedcnn.runtime.session import Session, open_session, preprocess
from seedcnn.runtime.taps import with_outputs

__all__ = ["Norms", "Statistics", "adapted", "distance", "first_norm", "measure"]

_BATCH = 64
_MOST = 32.0  # by which a channel's scale may grow or shrink: beyond it the images say nothing about the channel


@dataclass(frozen=True, eq=False)
class Statistics:
    """Means and standard deviations of the values behind norms: float32 [channels of all sites] each."""

    means: F32
    stds: F32

    def split(self, counts: list[int]) -> list[Statistics]:
        """The statistics of each site, given their channels."""
        cuts = np.cumsum(counts)[:-1]
        pairs = zip(np.split(self.means, cuts), np.split(self.stds, cuts), strict=True)
        return [Statistics(mean, std) for mean, std in pairs]


@dataclass(frozen=True, eq=False)
class Norms:
    """The norms of a bundle.

    Attributes:
        sites: in the order of the graph.
        names: of the tensors in the bundle's table.
        shipped: what the values have on the training images.
    """

    sites: tuple[Site, ...]
    names: tuple[str, ...]
    shipped: Statistics

    @classmethod
    def of(cls, bundle: Bundle) -> Norms:
        """The norms of a bundle.

        Raises:
            BundleError: if it does not say where they are, or holds statistics that cannot be.
        """
        manifest = bundle.manifest
        if not manifest.norms:
            raise BundleError(
                f"{manifest.model} release {manifest.release} cannot be adapted: it does not say where its norms are; "
                "pack it with --adaptable"
            )
        entry = next(entry for entry in manifest.tensors if entry.role == NORMS)
        means, stds = bundle.unscaled()[entry.name]
        if not (np.isfinite(means).all() and np.isfinite(stds).all() and (stds >= 0).all()):
            raise BundleError(f"tensor {entry.name!r} holds statistics that are negative or not finite")
        return cls(manifest.norms, tuple(each.name for each in manifest.tensors), Statistics(means, stds))

    @property
    def counts(self) -> list[int]:
        """Channels of each site."""
        return [site.channels for site in self.sites]


def distance(one: Statistics, other: Statistics) -> float:
    """How far two statistics of the same channels lie apart: 0 if they are equal, symmetric, at most a few.

    The mean over channels of ``((m - m')**2 + (d - d')**2) / (d**2 + d'**2)``, where no channel counts for more than 2.
    """
    apart = np.square(one.means - other.means, dtype=np.float64) + np.square(one.stds - other.stds, dtype=np.float64)
    width = np.square(one.stds, dtype=np.float64) + np.square(other.stds, dtype=np.float64)
    each = np.divide(apart, width, out=np.where(apart > 0, 2.0, 0.0), where=width > 0)
    return float(np.minimum(each, 2.0).mean())


def _renormed(
    tensors: Mapping[str, F32], norms: Norms, site: Site, shipped: Statistics, found: Statistics
) -> dict[str, F32]:
    """The tensors with new scales and biases of one norm."""
    known = shipped.stds > 0
    ratio = np.divide(shipped.stds, found.stds, out=np.full_like(shipped.stds, _MOST), where=found.stds > 0)
    factor = np.where(known, np.clip(ratio, 1 / _MOST, _MOST), 1).astype(np.float64)
    center, target = np.where(known, found.means, 0).astype(np.float64), np.where(known, shipped.means, 0)
    result = dict(tensors)
    for scale, bias, first in site.places:
        weights, shifts = result[norms.names[scale]], result[norms.names[bias]]
        mine, rows = slice(first, first + shifts.size), len(weights)
        each = np.repeat(factor[mine], rows // shifts.size).reshape(rows, *[1] * (weights.ndim - 1))
        moved = (shifts.reshape(-1) - center[mine]) * factor[mine] + target[mine]
        result[norms.names[scale]] = (weights * each).astype(np.float32)
        result[norms.names[bias]] = moved.astype(np.float32).reshape(shifts.shape)
    return result


def adapted(tensors: Mapping[str, F32], norms: Norms, found: Statistics) -> dict[str, F32]:
    """The tensors of a graph with the scales and biases that fit the statistics of other images.

    Args:
        tensors: of the bundle, as it expands.
        norms: of the bundle.
        found: from :func:`measure`.

    Raises:
        ValueError: if the statistics are those of other norms.
    """
    total = sum(norms.counts)
    if found.means.shape != (total,) or found.stds.shape != (total,):
        raise ValueError(f"`found` has shapes {found.means.shape}, {found.stds.shape}; the norms need ({total},)")
    result = dict(tensors)
    shipped = norms.shipped.split(norms.counts)
    for site, old, new in zip(norms.sites, shipped, found.split(norms.counts), strict=True):
        result = _renormed(result, norms, site, old, new)
    return result


@dataclass(frozen=True)
class _Tapped:
    """A graph with one further output."""

    session: Session
    value: str
    bundle: Bundle

    def statistics(self, images: U8) -> Statistics:
        """Mean and standard deviation of each channel over images and places."""
        total, squares, count = np.zeros(1), np.zeros(1), 0
        for begin in range(0, len(images), _BATCH):
            inputs = preprocess(images[begin : begin + _BATCH], self.bundle.manifest.preprocessing)
            (found,) = self.session.run([self.value], {self.bundle.manifest.graph.input: inputs})
            values = found.reshape(*found.shape[:2], -1).astype(np.float64)
            total, squares = total + values.sum((0, 2)), squares + np.square(values).sum((0, 2))
            count += values.shape[0] * values.shape[2]
        mean = total / count
        spread = np.sqrt(np.maximum(squares / count - np.square(mean), 0))
        return Statistics(mean.astype(np.float32), spread.astype(np.float32))


def _tapped(bundle: Bundle, tensors: Mapping[str, F32], site: Site, runtime: str, threads: int) -> _Tapped:
    graph = with_outputs(bundle.graph(), [site.value], alone=True)
    return _Tapped(open_session(graph, tensors, runtime=runtime, threads=threads), site.value, bundle)


def first_norm(
    bundle: Bundle, norms: Norms, tensors: Mapping[str, F32], *, runtime: str = "onnxruntime", threads: int = 1
) -> Callable[[U8], Statistics]:
    """A call that gives the statistics of images behind the first norm, as shipped: [channels of the first site].

    Args:
        tensors: of the bundle, as it expands.

    Raises:
        BundleError: if the graph has no such value.
    """
    return _tapped(bundle, tensors, norms.sites[0], runtime, threads).statistics


def _measured(
    bundle: Bundle, norms: Norms, tensors: Mapping[str, F32], images: U8, runtime: str, threads: int
) -> Iterator[Statistics]:
    shipped = norms.shipped.split(norms.counts)
    now = dict(tensors)
    for site, old in zip(norms.sites, shipped, strict=True):
        found = _tapped(bundle, now, site, runtime, threads).statistics(images)
        if found.means.shape != old.means.shape or not (np.isfinite([found.means, found.stds]).all()):
            raise BundleError(
                f"the value {site.value!r} has {found.means.shape[0]} channels or numbers that are not finite; its "
                f"norm has {site.channels}"
            )
        now = _renormed(now, norms, site, old, found)
        yield found


def measure(
    bundle: Bundle,
    norms: Norms,
    tensors: Mapping[str, F32],
    images: U8,
    *,
    runtime: str = "onnxruntime",
    threads: int = 1,
) -> Statistics:
    """Take the statistics of images behind each norm, layer by layer.

    Args:
        tensors: of the bundle, as it expands.
        images: uint8 [N, height, width, channels], of the rule's size, N >= 1.

    Raises:
        ValueError: if dtype or shape is not what the rule wants, or there is no image.
        BundleError: if the graph does not have the values that the bundle names, or does not run.
    """
    if not len(images):
        raise ValueError("`images` holds no image")
    found = list(_measured(bundle, norms, tensors, images, runtime, threads))
    return Statistics(np.concatenate([each.means for each in found]), np.concatenate([each.stds for each in found]))
