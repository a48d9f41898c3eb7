"""The one table of data sets by name: how the training and the test part of each are had."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from seedcnn.data.image_set import ImageSet, TrainTest
from seedcnn.data.pictures.folder import CenterCrop, ImageFolder
from seedcnn.data.sets import imagenet
from seedcnn.data.sets.cifar10 import load_cifar10
from seedcnn.data.sets.cifar100 import load_cifar100
from seedcnn.data.sets.gtsrb import load_gtsrb
from seedcnn.data.sets.icons50 import hold_out_style, hold_out_subtypes, hold_out_traditional, load_icons50
from seedcnn.data.sets.icons50_rebuilt import load_icons50_rebuilt
from seedcnn.data.sets.official import OfficialFiles, cifar10_c_files, imagenet_c_files
from seedcnn.errors import ConfigError

__all__ = ["DATA_SETS", "DataSet", "Wanted", "random_choice"]

Triple = tuple[float, float, float]
Say = Callable[[str], None]
Train = tuple[ImageSet | ImageFolder, Triple, Triple]
Test = tuple[ImageSet, Triple, Triple]


@dataclass(frozen=True)
class Wanted:
    """What was asked for; the arguments of :func:`seedcnn.data.sets.named.load_test`."""

    name: str
    root: Path | None
    hold_out: str
    verify: bool
    say: Say
    limit: int | None = None
    on_error: str = "raise"
    decoded: Path | None = None

    @property
    def directory(self) -> str:
        """For the sets that need one."""
        return str(self.root)


@dataclass(frozen=True)
class DataSet:
    """A data set that has a name.

    Attributes:
        about: what it is read from.
        train, test: load a part, with mean and standard deviation per channel on the 0..1 scale.
        directory: "needed", "optional" (downloaded without one) or "none" (always downloaded).
        hold_out: whether a hold-out divides it; it then has no training part without one.
        files: whether its training pictures are decoded as they are needed.
        constants: of generated corruptions, "cifar" or "imagenet".
        official: finds its corrupted pictures as published, if there are any.
    """

    about: str
    train: Callable[[Wanted], Train]
    test: Callable[[Wanted], Test]
    directory: str = "needed"
    hold_out: bool = False
    files: bool = False
    constants: str = "cifar"
    official: Callable[[Path, ImageSet], OfficialFiles] | None = None


def random_choice(n: int, count: int) -> npt.NDArray[np.int64]:
    """``count`` of ``n`` indices, the same ones every time, ascending; all where there are no more.

    Returns:
        int64 [min(n, count)], by raw words of Philox(key=0).
    """
    words = np.random.Philox(key=0).random_raw(n)
    return np.sort(np.argsort(words, kind="stable")[:count]).astype(np.int64)


def _some(data: ImageSet, limit: int | None) -> ImageSet:
    return data if limit is None or limit >= len(data) else data.take(random_choice(len(data), limit))


def _train_of(load: Callable[[Wanted], TrainTest]) -> Callable[[Wanted], Train]:
    def part(wanted: Wanted) -> Train:
        found = load(wanted)
        return found.train, found.mean, found.std

    return part


def _test_of(load: Callable[[Wanted], TrainTest], *, limited: bool = False) -> Callable[[Wanted], Test]:
    def part(wanted: Wanted) -> Test:
        found = load(wanted)
        return _some(found.test, wanted.limit if limited else None), found.mean, found.std

    return part


def _cifar10(wanted: Wanted) -> TrainTest:
    found = load_cifar10(wanted.root, progress=wanted.say)
    train = ImageSet(found.train_images, found.train_labels, found.classes, found.source)
    return TrainTest(train, found.test, found.mean, found.std)


def _cifar100(wanted: Wanted) -> TrainTest:
    return load_cifar100(wanted.directory, verify=wanted.verify)


def _gtsrb(wanted: Wanted) -> TrainTest:
    return load_gtsrb(wanted.directory, verify=wanted.verify, on_error=wanted.on_error)


def _icons50(wanted: Wanted) -> ImageSet:
    return load_icons50(wanted.directory, verify=wanted.verify, on_error=wanted.on_error)


def _icons50_rebuilt(wanted: Wanted) -> ImageSet:
    return load_icons50_rebuilt(progress=wanted.say)


def _divided(whole: ImageSet, hold_out: str) -> TrainTest:
    try:
        if hold_out == "subtypes":
            return hold_out_subtypes(whole)
        if hold_out == "traditional":
            return hold_out_traditional(whole)
        return hold_out_style(whole, hold_out.split(","))
    except ValueError as error:
        raise ConfigError(f"hold-out {hold_out!r}: {error}") from None


def _icons(load: Callable[[Wanted], ImageSet], about: str, directory: str) -> DataSet:
    def divided(wanted: Wanted) -> TrainTest:
        return _divided(load(wanted), wanted.hold_out)

    def train(wanted: Wanted) -> Train:
        if wanted.hold_out:
            return _train_of(divided)(wanted)
        raise ConfigError(
            f"data {wanted.name!r} has no test part of its own: set hold_out to subtypes, traditional or styles"
        )

    def test(wanted: Wanted) -> Test:
        if wanted.hold_out:
            return _test_of(divided, limited=True)(wanted)
        return _some(load(wanted), wanted.limit), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # the authors do not normalise

    return DataSet(about, train, test, directory, hold_out=True)


def _imagenet_train(wanted: Wanted) -> Train:
    listed = imagenet.list_imagenet(wanted.directory, "train", classes=1000 if wanted.verify else None)
    return listed, imagenet.MEAN, imagenet.STD


def _imagenet_test(wanted: Wanted) -> Test:
    listed = imagenet.list_imagenet(wanted.directory, classes=1000 if wanted.verify else None)
    if wanted.limit is not None:
        listed = listed.take(random_choice(len(listed), wanted.limit))
    wanted.say(f"decoding {len(listed):,} pictures of {listed.source}")
    test = listed.load(CenterCrop(224, 256), on_error=wanted.on_error, file=wanted.decoded)
    return test, imagenet.MEAN, imagenet.STD


DATA_SETS: Mapping[str, DataSet] = {
    "cifar10": DataSet(
        "downloaded if no directory is given",
        _train_of(_cifar10),
        _test_of(_cifar10),
        directory="optional",
        official=cifar10_c_files,
    ),
    "cifar100": DataSet("a directory of the official files", _train_of(_cifar100), _test_of(_cifar100)),
    "gtsrb": DataSet(
        "a directory of the official archives, unpacked; 32 x 32", _train_of(_gtsrb), _test_of(_gtsrb, limited=True)
    ),
    "icons50": _icons(_icons50, "a directory of Icons-50; 32 x 32; with a hold-out", "needed"),
    "icons50-rebuilt": _icons(_icons50_rebuilt, "Icons-50 rebuilt from emoji packages, downloaded", "none"),
    "imagenet": DataSet(
        "a directory that holds train and val, each <wnid>/*.JPEG; to test the middle 224 of 256",
        _imagenet_train,
        _imagenet_test,
        files=True,
        constants="imagenet",
        official=imagenet_c_files,
    ),
}
"""Name -> data set."""
