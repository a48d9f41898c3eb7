"""Learning norm statistics of a device's place from unlabelled images, checked before they answer.

Nothing of the images is kept or sent: what stays is a mean and a standard deviation for each channel.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seedcnn.arrays import F32, U8
from seedcnn.device.adapted import MAX_SETS, LearnedSet, check_name, read_sets, write_sets
from seedcnn.device.adaptive import AdaptiveModel
from seedcnn.device.agent import open_home
from seedcnn.device.health import self_test
from seedcnn.device.images import list_pictures, load_batch
from seedcnn.device.probing import finish_interrupted
from seedcnn.device.runtime import Model
from seedcnn.device.slots import Slots
from seedcnn.errors import AdaptError, BundleError, ImageError
from seedcnn.runtime.adapting import Norms, measure
from seedcnn.runtime.pictures import load_picture

__all__ = ["DEFAULT_SET", "LEAST_IMAGES", "Adaptation", "adapt", "classes_left", "load_images", "undo"]

DEFAULT_SET = "here"
LEAST_IMAGES = 10
_MOST_IMAGES = 4096
_LOG = logging.getLogger(__name__)
_COLLAPSED = 0.4  # of the shipped model's number of classes


@dataclass(frozen=True)
class Adaptation:
    """A set that a device has learned.

    Attributes:
        name: of the set.
        images: how many it was learned from.
        norms: how many norms have new statistics.
        shipped_classes, classes: how many classes the answers to these images spread over, before and after: 2 to the
            power of the entropy of their histogram.
    """

    name: str
    images: int
    norms: int
    shipped_classes: float
    classes: float


def classes_left(logits: F32) -> float:
    """How many classes answers spread over: 2 to the power of the entropy, in bits, of the classes' histogram.

    Args:
        logits: [N, classes], N >= 1.
    """
    counts = np.bincount(logits.argmax(1), minlength=logits.shape[1])
    shares = counts[counts > 0] / len(logits)
    return float(2.0 ** -(shares * np.log2(shares)).sum())


def load_images(paths: Iterable[str | Path], model: Model, most: int = _MOST_IMAGES) -> U8:
    """Read pictures, directories of them, and NumPy batches: uint8 [N, height, width, channels].

    Raises:
        ImageError: if a file cannot be read, a batch is of another size, or there are more than ``most``.
    """
    rule = model.bundle.manifest.preprocessing
    parts: list[U8] = [np.zeros((0, rule.height, rule.width, rule.channels), np.uint8)]
    for path in list_pictures(paths):
        parts.append(load_batch(path, rule) if path.suffix == ".npy" else load_picture(path, rule)[None])
        if (count := sum(map(len, parts))) > most:
            raise ImageError(f"there are more than {most} images ({count} up to {path}); fewer say as much")
    return np.concatenate(parts)


def _check_images(images: U8, least: int) -> None:
    distinct = len({image.tobytes() for image in images})
    if distinct < least:
        which = (
            f"{len(images)} images" if distinct == len(images) else f"{len(images)} images, {distinct} of them distinct"
        )
        raise AdaptError(f"{which} are too few to learn the statistics of a place from; at least {least} are needed")


def _learned(model: Model, images: U8, name: str, threads: int) -> tuple[LearnedSet, Adaptation]:
    """Take the statistics, and refuse them if the model does not answer well with them."""
    bundle = model.bundle
    norms = Norms.of(bundle)
    self_test(model.session, bundle)
    found = measure(bundle, norms, bundle.tensors(), images, runtime=model.session.runtime, threads=threads)
    means, stds = (values.astype("<f4").tobytes() for values in (found.means, found.stds))
    learned = LearnedSet(name, len(images), int(time.time()), means, stds)
    chooser = AdaptiveModel.of_model(model, [learned], threads=threads).chooser
    if chooser is None:
        raise ValueError("an adaptive model has sets")
    changed = Model(bundle, chooser.session(name), model.source)
    if not np.isfinite(changed.logits(bundle.canned_images())).all():
        raise AdaptError(f"the set {name!r} was refused: with it the canned images give logits that are not finite")
    before, after = (classes_left(each.logits(images)) for each in (model, changed))
    if after < _COLLAPSED * before:
        raise AdaptError(
            f"the set {name!r} was refused: with it the answers to these {len(images)} images collapse from "
            f"{before:.1f} classes to {after:.1f}; at least {_COLLAPSED:g} of the shipped model's are needed"
        )
    return learned, Adaptation(name, len(images), len(norms.sites), before, after)


def adapt(
    home: str | Path,
    images: U8 | Iterable[str | Path],
    *,
    name: str = DEFAULT_SET,
    threads: int = 1,
    least: int = LEAST_IMAGES,
) -> Adaptation:
    """Learn the statistics of a device's place, beside what its active model was shipped with.

    From then on the device chooses a set for each window of images, see :mod:`seedcnn.device.adaptive`. A set of the
    same name is replaced. Killed at any moment, the device answers with the sets before or after.

    Args:
        home: of the device.
        images: uint8 [N, height, width, channels] of the rule's size; or paths of pictures, directories and batches.
        name: of the set.
        threads: threads per inference.
        least: refuse fewer distinct images than this.

    Raises:
        ValueError: if the name, or the images' type or size is not allowed.
        ImageError: if an image cannot be read, or a batch is of another size.
        AdaptError: if the images are too few, there are too many sets, the answers collapse or are not finite, or the
            file system refuses. What was learned before stays.
        BundleError: if the active model does not say where its norms are.
        SelfTestError: if it fails its own self-test.
        DeviceError: if the home is not initialised, locked or without a model.
    """
    check_name(name)
    slots = open_home(home)
    with slots.lock():
        try:
            finish_interrupted(slots, slots.repair())
            model = Model.load(slots, threads=threads)
            try:
                Norms.of(model.bundle)
            except BundleError as error:
                raise AdaptError(str(error)) from None
            given = images if isinstance(images, np.ndarray) else load_images(images, model)
            _check_images(given, least)
            old = [each for each in read_sets(slots.home, model.bundle.sha256) if each.name != name]
            if len(old) >= MAX_SETS:
                raise AdaptError(f"{len(old)} sets are kept already, and no more than {MAX_SETS}: undo one first")
            learned, result = _learned(model, given, name, threads)
            write_sets(slots.home, model.bundle.sha256, [*old, learned])
            _note(slots, model.bundle.manifest.release, model.source, "ADAPTED", f"{name}: {len(given)} images")
        except OSError as error:
            raise AdaptError(f"nothing was learned: {error.strerror or error} ({error.filename or home})") from error
    return result


def _note(slots: Slots, release: int, slot: str, state: str, reason: str) -> None:
    """Journal what is done already, so a failure must not look like one of the work."""
    try:
        slots.journal.append(state, release=release, slot=slot, reason=reason)
    except OSError as error:
        _LOG.warning("%s %s could not be journalled: %s", state, reason, error)


def undo(home: str | Path, name: str | None = None) -> tuple[str, ...]:
    """Forget what the device has learned for its active model.

    Args:
        name: of the set; None forgets all.

    Returns:
        The names of the sets that are gone.

    Raises:
        AdaptError: if there is no such set, or the file system refuses.
        DeviceError: if the home is not initialised, locked or without a model.
    """
    slots = open_home(home)
    with slots.lock():
        try:
            finish_interrupted(slots, slots.repair())
            active = slots.active()
            sets = read_sets(slots.home, active.record.sha256)
            gone = tuple(each.name for each in sets if name in (None, each.name))
            if not gone:
                known = ", ".join(each.name for each in sets) or "none"
                what = "no set" if name is None else f"no set {name!r}"
                raise AdaptError(f"{what} was learned for release {active.record.release} (known: {known})")
            write_sets(slots.home, active.record.sha256, [each for each in sets if each.name not in gone])
            _note(slots, active.record.release, active.source, "UNADAPTED", ", ".join(gone))
        except OSError as error:
            raise AdaptError(f"the sets stay: {error.strerror or error} ({error.filename or home})") from error
    return gone
