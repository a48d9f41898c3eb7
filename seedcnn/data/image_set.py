"""Classification sets in memory: selecting images, measuring them, and limiting a set to a part of itself."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

__all__ = ["ImageSet", "TrainTest", "Unreadable", "channel_statistics", "limited", "selection", "stratified_indices"]

Channels = tuple[float, ...]
"""One number for each channel."""
_BLOCK = 256


def selection(which: npt.ArrayLike) -> npt.NDArray[np.generic]:
    """Indices or a mask as an array; an empty list means no index."""
    picked = np.asarray(which)
    return picked if picked.size else picked.astype(np.int64)


def _column(values: object, length: int, name: str) -> npt.NDArray[np.str_]:
    array = np.asarray(values)
    if array.dtype.kind != "U" or array.shape != (length,):
        raise ValueError(f"`{name}` is {array.dtype} {array.shape}; it must hold one string per image, ({length},)")
    return array


@dataclass(frozen=True)
class Unreadable:
    """A file that could not be decoded: its path inside the data set, and why."""

    name: str
    reason: str


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Decoded images of one size, with labels.

    Attributes:
        images: uint8 [N, H, W, 3], RGB, or [N, H, W, 1], grey.
        labels: int64 [N], indices into ``classes``.
        classes: the class names, by label.
        source: where the set was read from, for messages.
        styles: strings [N], the style of each image (Icons-50: the vendor); None if the set has no styles.
        names: strings [N], the path of each image inside its data set, with "/"; None if images have no names.
        skipped: files of the set that could not be decoded and were left out because the caller asked for it.

    Raises:
        ValueError: naming the attribute, its value and the rule.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    source: str
    styles: npt.NDArray[np.str_] | None = None
    names: npt.NDArray[np.str_] | None = None
    skipped: tuple[Unreadable, ...] = ()

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
            raise ValueError(
                f"`images` is {images.dtype} {images.shape}; it must be uint8 [N, H, W, 3] or [N, H, W, 1]"
            )
        if labels.dtype != np.int64 or labels.shape != (len(images),):
            raise ValueError(f"`labels` is {labels.dtype} {labels.shape}; it must be int64 ({len(images)},)")
        if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.classes):
            found, n = f"{labels.min()} to {labels.max()}", len(self.classes)
            raise ValueError(f"`labels` goes from {found}; with {n} classes it must be in 0 to {n - 1}")
        for name in ("styles", "names"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _column(getattr(self, name), len(images), name))

    def __len__(self) -> int:
        return len(self.images)

    def take(self, which: npt.ArrayLike) -> ImageSet:
        """A copy with the images that indices (int [M]) or a mask (bool [N]) select, in that order."""
        picked = selection(which)
        return replace(
            self,
            images=self.images[picked],
            labels=self.labels[picked],
            styles=None if self.styles is None else self.styles[picked],
            names=None if self.names is None else self.names[picked],
        )

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Images per class, int64 [classes]."""
        return np.bincount(self.labels, minlength=len(self.classes)).astype(np.int64)


@dataclass(frozen=True, eq=False)
class TrainTest:
    """A training and a test set with the same classes. It has the attributes of ``Cifar10``.

    Attributes:
        train, test: the two parts.
        mean, std: the normalisation, per channel on the 0..1 scale; (0, 0, 0) and (1, 1, 1) where the papers do not
            normalise.

    Raises:
        ValueError: if the two parts have different classes.
    """

    train: ImageSet
    test: ImageSet
    mean: Channels
    std: Channels

    def __post_init__(self) -> None:
        if self.train.classes != self.test.classes:
            found = f"{len(self.train.classes)} and {len(self.test.classes)}"
            raise ValueError(f"`train` and `test` have different classes ({found}); they must have the same, in order")

    @property
    def train_images(self) -> npt.NDArray[np.uint8]:
        """uint8 [N, H, W, 3]."""
        return self.train.images

    @property
    def train_labels(self) -> npt.NDArray[np.int64]:
        """int64 [N]."""
        return self.train.labels

    @property
    def test_images(self) -> npt.NDArray[np.uint8]:
        """uint8 [M, H, W, 3]."""
        return self.test.images

    @property
    def test_labels(self) -> npt.NDArray[np.int64]:
        """int64 [M]."""
        return self.test.labels

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, by label."""
        return self.train.classes

    @property
    def source(self) -> str:
        """Where the training part was read from, for messages."""
        return self.train.source


def channel_statistics(images: npt.NDArray[np.uint8]) -> tuple[Channels, Channels]:
    """Mean and standard deviation of all pixels per channel, on the 0..1 scale, computed exactly from integer counts.

    Args:
        images: uint8 [N, H, W, channels], at least one pixel.

    Raises:
        ValueError: if ``images`` has another shape or dtype, or is empty.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
        raise ValueError(f"`images` is {images.dtype} {images.shape}; it must be uint8 [N, H, W, channels], not empty")
    levels = np.arange(256)
    pairs = []
    for channel in range(images.shape[3]):
        counts = np.zeros(256, np.int64)
        for start in range(0, len(images), _BLOCK):  # in blocks: bincount widens every byte to eight
            counts += np.bincount(images[start : start + _BLOCK, ..., channel].ravel(), minlength=256)
        n, total, squares = int(counts.sum()), int(counts @ levels), int(counts @ levels**2)
        pairs.append((total / n / 255, math.sqrt(n * squares - total * total) / n / 255))
    return tuple(mean for mean, _ in pairs), tuple(std for _, std in pairs)


def stratified_indices(labels: npt.NDArray[np.int64], fraction: float, *, seed: int = 0) -> npt.NDArray[np.int64]:
    """Indices of a random part of a training set that keeps the proportions of the classes (MonoCNN, Fig. 9).

    Exactly round(fraction * n) images of a class with n images are selected (halves round up). Raw words of
    Philox(key=(seed, class)) shuffle each class, so the selection depends only on (labels, fraction, seed). With the
    same seed, a smaller part is a subset of a larger one.

    Args:
        labels: int64 [N].
        fraction: in (0, 1].
        seed: integer in [0, 2**64).

    Returns:
        int64 [M], ascending.

    Raises:
        ValueError: if an argument is out of range, or the fraction leaves a class without images.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"`fraction` (={fraction}) must be in (0, 1]")
    if not 0 <= seed < 2**64:
        raise ValueError(f"`seed` (={seed}) must be in [0, 2**64)")
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or (len(labels) and labels.min() < 0):
        raise ValueError(f"`labels` is {labels.dtype} {labels.shape}; it must be integers >= 0, [N]")
    picked = [np.empty(0, np.int64)]
    for label in np.unique(labels).tolist():
        members = np.flatnonzero(labels == label)
        count = math.floor(fraction * len(members) + 0.5)
        if not count:
            raise ValueError(
                f"`fraction` (={fraction}) leaves none of the {len(members)} images of class {label}; "
                f"it must be at least {0.5 / len(members):.3g}"
            )
        words = np.random.Philox(key=np.array([seed, label], np.uint64)).random_raw(len(members))
        picked.append(members[np.argsort(words, kind="stable")[:count]])
    return np.sort(np.concatenate(picked))


class _Pickable(Protocol):
    @property
    def labels(self) -> npt.NDArray[np.int64]: ...

    def take(self, which: npt.ArrayLike) -> Self: ...


_Set = TypeVar("_Set", bound=_Pickable)


def limited(data: _Set, fraction: float, *, seed: int = 0) -> _Set:
    """A random part of a training set that keeps the proportions of the classes; see :func:`stratified_indices`.

    Args:
        data: an ``ImageSet`` or an ``ImageFolder``.
        fraction, seed: as in :func:`stratified_indices`.
    """
    return data.take(stratified_indices(data.labels, fraction, seed=seed))
